//! A machine: slots, answers, and the loop over instructions. One runs in the driver, in each body and in each thread
//! that `spawn` starts; all of it is that thread's alone.
use crate::body::{self, Shared};
use crate::say;
use crate::text::{instructions, Words};
use crate::value::{mix, Inside, Ref, Value};
use libray::{ActorHandle, Call, Error, ObjectStream, PlacementGroup};
use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Why an instruction was not done.
pub enum Stop {
    /// A slot that it needs is empty.
    Empty,
    Failed(Error),
    /// The body ends here, without a failure.
    Left,
}
impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
/// What an instruction answers.
pub type Done = Result<(), Stop>;

/// A failure that the machine itself tells.
pub fn wrong(text: &str) -> Stop {
    Stop::Failed(Error::InvalidArgument(text.into()))
}

#[derive(Default)]
pub struct Machine {
    /// How long a driver waits for what has to come; None in a body.
    pub bound: Option<Duration>,
    pub attempt: u64,
    pub acc: u64,
    pub path: String,
    /// What had to come did not: nothing more is run.
    pub over: bool,
    pub actor: Option<Arc<Shared>>,
    pub refs: HashMap<String, Ref>,
    pub actors: HashMap<String, ActorHandle>,
    pub streams: HashMap<String, ObjectStream<Option<Value>>>,
    pub groups: HashMap<String, PlacementGroup>,
    pub versions: HashMap<String, u64>,
    pub beside: Beside,
}

impl Machine {
    pub fn of_driver(bound: Duration) -> Self {
        Self {
            bound: Some(bound),
            ..Self::default()
        }
    }

    pub fn of_body(actor: Option<Arc<Shared>>) -> Self {
        Self {
            attempt: u64::from(libray::task::attempt()) - 1,
            actor,
            ..Self::default()
        }
    }

    /// Runs instructions that belong to no call; whether a body would have gone on.
    pub fn run_whole(&mut self, text: &str, under: &str) -> Result<(), Error> {
        self.run(None, text, under)
    }

    /// Runs a list of instructions. A driver tells what each answers; a body ends with the first failure.
    pub fn run(
        &mut self,
        mut call: Option<&mut Call<'_>>,
        text: &str,
        under: &str,
    ) -> Result<(), Error> {
        for (index, words) in instructions(text).iter().enumerate() {
            if self.over {
                break;
            }
            self.path = format!("{under}{index}");
            let done = match self.operate(words) {
                Some(done) => done,
                None => match &mut call {
                    Some(call) => body::operate(self, call, words),
                    None => Err(wrong(&format!("{} is for bodies", words[0]))),
                },
            };
            match done {
                Ok(()) => {}
                Err(Stop::Left) => break,
                Err(stop) if self.bound.is_none() => return Err(self.failure_of(stop)),
                Err(Stop::Empty) => self.tell("empty"),
                Err(Stop::Failed(error)) => self.tell_error(&error),
            }
        }
        Ok(())
    }

    /// What a body ends with.
    fn failure_of(&self, stop: Stop) -> Error {
        let text = match &stop {
            Stop::Failed(error) => format!("body {}: {} {error}", self.path, error.code_name()),
            _ => format!("body {}: a slot is empty", self.path),
        };
        match stop {
            Stop::Failed(error @ Error::Cancelled(_)) => error,
            _ if libray::task::is_cancelled() => Error::Cancelled(text),
            _ => Error::Internal(text),
        }
    }

    // -- answers
    pub fn tell(&self, text: &str) {
        if self.bound.is_some() {
            say(&format!("a {} {text}", self.path));
        }
    }

    fn tell_error(&self, error: &Error) {
        if matches!(error, Error::TimedOut(_)) {
            return self.tell("t");
        }
        let text = error
            .to_string()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let text = text.chars().take(400).collect::<String>();
        self.tell(&format!("e {} # {text}", &error.code_name()[4..]));
    }

    pub fn ok(&self) -> Done {
        self.tell("ok");
        Ok(())
    }

    /// The result of a wait for what has to come.
    pub fn due<T>(&mut self, result: Result<T, Error>) -> Result<T, Stop> {
        if self.bound.is_some() && matches!(result, Err(Error::TimedOut(_))) {
            self.over = true;
        }
        Ok(result?)
    }

    pub fn see(&mut self, value: Option<&Value>) {
        self.acc = mix(self.acc, value.map_or(1, Value::seen));
        let Some(value) = value else {
            return self.tell("nil");
        };
        let Value(tag, size, _, _, inside) = value;
        if value.is_whole() {
            self.tell(&format!("v {tag} {size} {}", inside.len()));
        } else {
            self.tell(&format!("damaged {tag} {size}"));
        }
    }

    // -- slots and values
    pub fn reference(&self, name: &str) -> Result<&Ref, Stop> {
        self.refs.get(name).ok_or(Stop::Empty)
    }

    pub fn references(&self, names: &[String]) -> Result<Vec<Ref>, Stop> {
        if names.is_empty() {
            return Err(Stop::Empty);
        }
        names
            .iter()
            .map(|name| self.reference(name).cloned())
            .collect()
    }

    pub fn handle(&self, name: &str) -> Result<&ActorHandle, Stop> {
        self.actors.get(name).ok_or(Stop::Empty)
    }

    /// The time that a wait has: milliseconds, or the bound for what has to come.
    pub fn limit(&self, milliseconds: i64) -> Option<Duration> {
        u64::try_from(milliseconds)
            .map(Duration::from_millis)
            .ok()
            .or(self.bound)
    }

    /// "TAG:SIZE[:r1,a2]", with `mixed` instead of the tag.
    pub fn value(&self, word: &str, mixed: Option<u64>) -> Result<Value, Stop> {
        let mut parts = word.splitn(3, ':');
        let mut number = || {
            parts
                .next()
                .and_then(|p| p.parse::<u64>().ok())
                .ok_or_else(|| wrong("a value is TAG:SIZE"))
        };
        let (tag, size) = (number()?, number()?);
        let inside = parts.next().into_iter().flat_map(|names| names.split(','));
        let inside = inside.map(|name| match name.as_bytes().first() {
            Some(b'a') => Ok(Inside(None, Some(self.handle(name)?.clone()))),
            _ => Ok(Inside(Some(self.reference(name)?.clone()), None)),
        });
        Ok(Value::new(
            mixed.unwrap_or(tag),
            size,
            inside.collect::<Result<_, Stop>>()?,
            tag % 5 == 4,
        )?)
    }

    /// Takes the I-th reference or handle of a value into a slot: the words I XD.
    pub fn take(&mut self, value: Option<Value>, words: &[String]) -> Done {
        let (index, slot) = (&words[0], &words[1]);
        let inside = value
            .map_or(Vec::new(), |v| v.4)
            .into_iter()
            .nth(index.parse().unwrap_or(usize::MAX));
        match inside {
            Some(Inside(Some(reference), _)) if slot.starts_with('r') => {
                drop(self.refs.insert(slot.clone(), reference))
            }
            Some(Inside(_, Some(actor))) if slot.starts_with('a') => {
                drop(self.actors.insert(slot.clone(), actor))
            }
            _ => return Err(wrong("no such reference inside")),
        }
        self.ok()
    }

    /// The instructions that driver and body share; None: it is not one of them.
    fn operate(&mut self, w: &Words) -> Option<Done> {
        Some(match w[0].as_str() {
            "put" => self.put(w),
            "get" => self.get(w),
            "try" => self.try_get(w),
            "wait" => self.wait(w),
            "told" => self.told(w),
            "elem" => self.elem(w),
            "copy" => self.copy(w),
            "drop" => self.drop(w),
            "task" => self.task(w),
            "stream" => self.stream(w),
            "call" => self.call(w),
            "callstream" => self.call_stream(w),
            "actor" => self.actor(w),
            "next" => self.next(w),
            "scancel" => self.stream_cancel(w),
            "sdone" => self.stream_done(w),
            "cancel" => self.cancel(w),
            "find" => self.find(w),
            "kill" => self.kill(w),
            "sleep" | "spin" => self.spend(w),
            "pump" => self.pump(w),
            "group" => self.group(w),
            "gwait" => self.group_wait(w),
            "gremove" => self.group_remove(w),
            "kvput" => self.kv_put(w),
            "kvget" => self.kv_get(w),
            "kvdel" => self.kv_delete(w),
            "thread" => self.thread(w),
            "spawn" => self.spawn(w),
            "join" => self.join(w),
            "fork" => self.fork(w),
            "driver" => self.driver(w),
            "fault" => self.fault(w),
            _ => return None,
        })
    }
}

/// Threads that run beside a machine, by their numbers; it waits for them at its end.
#[derive(Default)]
pub struct Beside(pub HashMap<String, JoinHandle<bool>>);

impl Drop for Beside {
    fn drop(&mut self) {
        for (_, thread) in self.0.drain() {
            let _ = thread.join();
        }
    }
}
