//! The instructions that a driver and a body share: values, waiting, tasks, streams, actors.
use crate::machine::{wrong, Done, Machine, Stop};
use crate::text::{amounts, body_of, count, option, Words};
use crate::value::{mix, planted, Ref, Value};
use libray::{
    ActorHandle, ActorOptions, Args, Error, Function, Language, ObjectStream, Placement,
    TaskOptions,
};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

struct Unpark(Thread);
impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What a future comes to, if it does before `end`.
fn wait_for<F: Future + Unpin>(mut future: F, end: Option<Instant>) -> Option<F::Output> {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    loop {
        match (Pin::new(&mut future).poll(&mut context), end) {
            (Poll::Ready(value), _) => return Some(value),
            (_, Some(end)) if Instant::now() >= end => return None,
            (_, Some(end)) => thread::park_timeout(end - Instant::now()),
            (_, None) => thread::park(),
        }
    }
}

/// What a submission says beside its slots.
struct Submission {
    args: Args,
    options: TaskOptions,
    function: Function,
}

fn names(word: &str) -> Vec<&str> {
    if word == "-" {
        Vec::new()
    } else {
        word.split(',').collect()
    }
}

/// A function or class under the name that every driver gives it; of this program unless lang= says another.
fn of_any_language(w: &Words, name: &str) -> Function {
    match option(w, "lang") {
        Some("python") => Function::new(Language::Python, "machine", name),
        Some("java") if name == "Box" => Function::new(Language::Java, "Bodies$Box", ""),
        Some("java") => Function::new(Language::Java, "Bodies", name),
        Some("c" | "cpp") => Function::new(Language::Native, "", name),
        _ => Function::new(Language::Rust, "", name),
    }
}

/// The name of a function or method by what is wanted of it.
fn named(results: usize) -> &'static str {
    if results > 1 {
        "run_several"
    } else {
        "run"
    }
}

impl Machine {
    // -- values
    pub fn put(&mut self, w: &Words) -> Done {
        let value = self.value(&w[2], None)?;
        self.refs.insert(w[1].clone(), libray::put(&Some(value))?);
        self.ok()
    }

    pub fn get(&mut self, w: &Words) -> Done {
        let refs = self.references(&w[1..])?;
        let got = libray::get_all_timeout(&refs, self.bound);
        let mut values = self.due(got)?;
        if values.len() != 1 {
            self.tell(&format!("values {}", values.len()));
        }
        if planted("order") && values.len() > 1 {
            values.swap(0, 1);
        }
        values.iter().for_each(|v| self.see(v.as_ref()));
        Ok(())
    }

    pub fn try_get(&mut self, w: &Words) -> Done {
        match self.reference(&w[1])?.try_get()? {
            Some(value) => self.see(value.as_ref()),
            None => self.tell("t"),
        }
        Ok(())
    }

    pub fn wait(&mut self, w: &Words) -> Done {
        let refs = self.references(&w[3..])?;
        let (want, ms) = (
            w[1].parse::<usize>().unwrap_or_default(),
            w[2].parse::<i64>().unwrap_or_default(),
        );
        let (ready, _) = libray::wait(refs.clone(), want, self.limit(ms))?;
        self.over = self.bound.is_some() && ms < 0 && ready.len() < want;
        let mask = refs
            .iter()
            .map(|r| if ready.contains(r) { '1' } else { '0' })
            .collect::<String>();
        self.tell(&format!("w {} {mask}", ready.len()));
        Ok(())
    }

    /// By futures, which a thread of libray wakes.
    pub fn told(&mut self, w: &Words) -> Done {
        let end = self.bound.map(|bound| Instant::now() + bound);
        let mut answer = "told".to_owned();
        for reference in self.references(&w[1..])? {
            let told =
                wait_for(reference, end).ok_or_else(|| Error::TimedOut("not all were told".into()));
            let code = self
                .due(told)?
                .map_or_else(|error| error.code_name(), |_| "RAY_OK");
            answer = format!("{answer} {}", &code[4..]);
        }
        self.tell(&answer);
        Ok(())
    }

    pub fn elem(&mut self, w: &Words) -> Done {
        let reference = self.reference(&w[1])?.clone();
        let got = match self.bound {
            Some(bound) => reference.get_timeout(bound),
            None => reference.get(),
        };
        let value = self.due(got)?;
        self.take(value, &w[2..])
    }

    pub fn copy(&mut self, w: &Words) -> Done {
        if let Some(reference) = self.refs.get(&w[2]).cloned() {
            self.refs.insert(w[1].clone(), reference);
        } else {
            let actor = self.handle(&w[2])?.clone();
            self.actors.insert(w[1].clone(), actor);
        }
        self.ok()
    }

    pub fn drop(&mut self, w: &Words) -> Done {
        for name in &w[1..] {
            self.refs.remove(name);
            self.actors.remove(name);
            self.streams.remove(name);
        }
        self.ok()
    }

    // -- submitting
    fn placement(&self, w: &Words) -> Result<Option<Placement>, Stop> {
        let Some(name) = option(w, "group") else {
            return Ok(None);
        };
        let group = self.groups.get(name).ok_or(Stop::Empty)?;
        let bundle = count(w, "bundle").and_then(|n| u16::try_from(n).ok());
        Ok(Some(
            bundle.map_or_else(|| group.any_bundle(), |n| group.bundle(n)),
        ))
    }

    /// The words from `first` on: options, arguments, and last the body, which is argument 0.
    fn arguments(&self, w: &Words, first: usize, results: usize) -> Result<Args, Stop> {
        let text = if results > 1 {
            format!("{results};{}", body_of(w))
        } else {
            body_of(w).to_owned()
        };
        let mut args = Args::new().value(text)?;
        for word in w[first..w.len() - 1]
            .iter()
            .filter(|word| !word.contains('='))
        {
            args = match word.strip_prefix('v') {
                Some(value) => args.value(Some(self.value(value, None)?))?,
                None => args.reference(self.reference(word)?),
            };
        }
        Ok(args)
    }

    fn submission(
        &self,
        w: &Words,
        first: usize,
        results: usize,
        function: &str,
    ) -> Result<Submission, Stop> {
        let mut options = TaskOptions::new().name(w[1].as_str());
        match count(w, "retries") {
            Some(-1) => options = options.retry_forever(),
            Some(n) => {
                options = u32::try_from(n).map_or(options.clone(), |n| options.max_retries(n))
            }
            None => {}
        }
        if option(w, "roe").is_some() {
            options = options.retry_on_error();
        }
        if let Some(window) = count(w, "window") {
            options = options.stream_window(window as u32);
        }
        for (name, amount) in option(w, "res").map(amounts).unwrap_or_default() {
            options = options.resource(name, amount);
        }
        if let Some(placement) = self.placement(w)? {
            options = options.placement(placement);
        }
        let args = self.arguments(w, first, results)?;
        Ok(Submission {
            args,
            options,
            function: of_any_language(w, function),
        })
    }

    fn keep(&mut self, outs: &[&str], refs: Vec<Ref>) -> Done {
        self.refs
            .extend(outs.iter().map(|name| (*name).to_owned()).zip(refs));
        self.ok()
    }

    pub fn task(&mut self, w: &Words) -> Done {
        let outs = names(&w[2]);
        let name = if option(w, "twin").is_some() {
            "twin"
        } else {
            named(outs.len())
        };
        let s = self.submission(w, 3, outs.len(), name)?;
        let refs = s
            .function
            .with(s.options)
            .call_many(outs.len() as u32, s.args)?;
        self.keep(&outs, refs)
    }

    fn keep_stream(&mut self, slot: &str, stream: ObjectStream<Option<Value>>) -> Done {
        self.streams.insert(slot.to_owned(), stream);
        self.ok()
    }

    pub fn stream(&mut self, w: &Words) -> Done {
        let s = self.submission(w, 3, 1, "run_stream")?;
        let stream = s.function.with(s.options).stream(s.args)?;
        self.keep_stream(&w[2], stream)
    }

    pub fn call(&mut self, w: &Words) -> Done {
        let (actor, outs) = (self.handle(&w[2])?.clone(), names(&w[3]));
        let s = self.submission(w, 4, outs.len(), "run")?;
        let refs = actor
            .method(named(outs.len()))
            .with(s.options)
            .call_many(outs.len() as u32, s.args)?;
        self.keep(&outs, refs)
    }

    pub fn call_stream(&mut self, w: &Words) -> Done {
        let actor = self.handle(&w[2])?.clone();
        let s = self.submission(w, 4, 1, "run_stream")?;
        let stream = actor.method("run_stream").with(s.options).stream(s.args)?;
        self.keep_stream(&w[3], stream)
    }

    pub fn actor(&mut self, w: &Words) -> Done {
        let whole = |key| count(w, key).map(|n| u32::try_from(n).unwrap_or(u32::MAX)); // -1: without end
        let mut options = ActorOptions::new().max_restarts(whole("restarts").unwrap_or(0));
        options = options
            .max_task_retries(whole("again").unwrap_or(0))
            .max_concurrency(whole("conc").unwrap_or(0));
        options = options
            .max_pending_calls(whole("pending").unwrap_or(0))
            .name(option(w, "name").unwrap_or_default());
        for (name, amount) in option(w, "res").map(amounts).unwrap_or_default() {
            options = options.resource(name, amount);
        }
        if let Some(placement) = self.placement(w)? {
            options = options.placement(placement);
        }
        for (key, set) in [
            (
                "detached",
                ActorOptions::detached as fn(ActorOptions) -> ActorOptions,
            ),
            ("ooo", ActorOptions::out_of_order),
            ("gie", ActorOptions::get_if_exists),
        ] {
            options = if option(w, key).is_some() {
                set(options)
            } else {
                options
            };
        }
        let actor = of_any_language(w, "Box").create(&options, self.arguments(w, 3, 1)?)?;
        self.actors.insert(w[2].clone(), actor);
        self.ok()
    }

    // -- streams, cancelling, actors
    pub fn next(&mut self, w: &Words) -> Done {
        let ms = w[3].parse::<i64>().unwrap_or_default();
        let limit = self.limit(ms);
        let item = self
            .streams
            .get_mut(&w[1])
            .ok_or(Stop::Empty)?
            .next_ref(limit);
        let item = if ms < 0 { self.due(item)? } else { item? };
        let Some(item) = item else {
            self.acc = mix(self.acc, 7);
            self.refs.remove(&w[2]);
            self.tell("end");
            return Ok(());
        };
        self.refs.insert(w[2].clone(), item);
        self.ok()
    }

    pub fn stream_cancel(&mut self, w: &Words) -> Done {
        self.streams.get(&w[1]).ok_or(Stop::Empty)?.cancel()?;
        self.ok()
    }

    pub fn stream_done(&mut self, w: &Words) -> Done {
        let done = self.streams.get(&w[1]).ok_or(Stop::Empty)?.completed()?;
        self.refs.insert(w[2].clone(), done.cast());
        self.ok()
    }

    pub fn cancel(&mut self, w: &Words) -> Done {
        let reference = self.reference(&w[1])?;
        match w[2].as_str() {
            "f" => reference.cancel_by_force()?,
            "r" => reference.cancel_with_children()?,
            "-" => reference.cancel()?,
            _ => return Err(wrong("the crate cancels in one way at a time")),
        }
        self.ok()
    }

    pub fn find(&mut self, w: &Words) -> Done {
        self.actors.remove(&w[2]);
        self.actors.insert(w[2].clone(), ActorHandle::find(&w[1])?);
        self.ok()
    }

    pub fn kill(&mut self, w: &Words) -> Done {
        let actor = self.handle(&w[1])?;
        if w[2] == "1" {
            actor.restart()?;
        } else {
            actor.kill()?;
        }
        self.ok()
    }

    // -- time
    /// sleep US, spin US
    pub fn spend(&mut self, w: &Words) -> Done {
        let time = Duration::from_micros(w[1].parse().unwrap_or_default());
        if w[0] == "sleep" {
            thread::sleep(time);
        } else {
            let end = Instant::now() + time;
            while Instant::now() < end {
                std::hint::spin_loop();
            }
        }
        self.ok()
    }

    pub fn pump(&mut self, w: &Words) -> Done {
        let awaited = self.reference(&w[2])?.clone();
        let number = |at: usize| w[at].parse::<u64>().unwrap_or_default();
        let (end, width) = (
            Instant::now() + Duration::from_millis(number(3)),
            number(4).clamp(1, 31) as usize,
        );
        let mut window = std::collections::VecDeque::<Ref>::new();
        let mut ready = false;
        while !ready && Instant::now() < end {
            if window.len() == width {
                window.pop_front().map(|first| first.get()).transpose()?;
            }
            let s = self.submission(w, 5, 1, "run")?;
            window.push_back(s.function.with(s.options).call(s.args)?);
            ready = awaited.is_ready()?;
        }
        self.tell(if ready { "y" } else { "n" });
        Ok(())
    }
}
