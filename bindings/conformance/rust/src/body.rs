//! What workers run: bodies as tasks, calls and constructors, and the instructions that are theirs alone.
use crate::around;
use crate::machine::{wrong, Done, Machine, Stop};
use crate::text::Words;
use crate::value::{mix, Ref, Value};
use libray::{Call, Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What an actor keeps between its calls.
#[derive(Default)]
pub struct Shared(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    sum: u64,
    refs: HashMap<u64, Ref>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run_body(call: &mut Call<'_>, actor: Option<Arc<Shared>>) -> Result<()> {
    let text = call.arg::<String>(0)?;
    Machine::of_body(actor).run(Some(call), &text, "")
}

#[libray::remote(name = "run")]
fn run(call: &mut Call<'_>) -> Result<()> {
    run_body(call, None)
}

#[libray::remote(name = "twin")]
fn twin(call: &mut Call<'_>) -> Result<()> {
    run_body(call, None)
}

#[libray::remote(name = "run_several")]
fn run_several(call: &mut Call<'_>) -> Result<()> {
    run_body(call, None)
}

#[libray::remote(name = "run_stream")]
fn run_stream(call: &mut Call<'_>) -> Result<()> {
    run_body(call, None)
}

/// An actor whose methods are bodies.
pub struct Actor(Arc<Shared>);

#[libray::remote(name = "Box", concurrent)]
impl Actor {
    pub fn new(call: &mut Call<'_>) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        run_body(call, Some(shared.clone()))?;
        Ok(Self(shared))
    }
    pub fn run(&self, call: &mut Call<'_>) -> Result<()> {
        run_body(call, Some(self.0.clone()))
    }
    pub fn run_several(&self, call: &mut Call<'_>) -> Result<()> {
        run_body(call, Some(self.0.clone()))
    }
    pub fn run_stream(&self, call: &mut Call<'_>) -> Result<()> {
        run_body(call, Some(self.0.clone()))
    }
}

fn number(w: &Words, at: usize) -> std::result::Result<u64, Stop> {
    w.get(at)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| wrong("a number is missing"))
}

/// What a body is given as its I-th argument: argument 0 is the body itself.
fn argument(call: &mut Call<'_>, w: &Words) -> std::result::Result<Option<Value>, Stop> {
    Ok(call.arg(number(w, 1)? as usize + 1)?)
}

/// A value whose tag tells what the body saw, and with "a" also which attempt it was.
fn result(m: &Machine, w: &Words, at: usize) -> std::result::Result<Option<Value>, Stop> {
    let word = w.get(at).ok_or_else(|| wrong("a value is missing"))?;
    let written = word
        .split(':')
        .next()
        .and_then(|tag| tag.parse().ok())
        .unwrap_or_default();
    let tag = mix(m.acc, written);
    let tag = if w.get(at + 1).is_some_and(|a| a == "a") {
        mix(tag, 1000 + m.attempt)
    } else {
        tag
    };
    m.value(word, Some(tag)).map(Some)
}

fn on_purpose() -> Done {
    Err(Stop::Failed(Error::Internal("on purpose".into())))
}

/// Until the time is over, or the task is cancelled.
fn hold(us: u64) -> Done {
    let end = Instant::now() + Duration::from_micros(us);
    while Instant::now() < end && !libray::task::is_cancelled() {
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(libray::task::check_cancelled()?)
}

/// The instructions of bodies alone.
pub fn operate(m: &mut Machine, call: &mut Call<'_>, w: &Words) -> Done {
    let shared = m.actor.clone().ok_or_else(|| wrong("it is no actor"));
    match w[0].as_str() {
        "arg" => {
            let value = argument(call, w)?;
            m.see(value.as_ref());
        }
        "argx" => {
            let value = argument(call, w)?;
            return m.take(value, &w[2..]);
        }
        "ret" => call.give(number(w, 1)? as u32, &result(m, w, 2)?)?,
        "rets" => {
            let sum = shared?.lock().sum;
            call.give(
                number(w, 1)? as u32,
                &Some(Value::new(sum, 0, Vec::new(), false)?),
            )?;
        }
        "reterr" => call.give_error(number(w, 1)? as u32, "on purpose")?,
        "yield" => call.yield_item(&result(m, w, 1)?)?,
        "fail" if w.len() < 2 || m.attempt < number(w, 1)? => return on_purpose(),
        "crash" if w.len() < 2 || m.attempt < number(w, 1)? => around::kill_myself(),
        "fail" | "crash" => {}
        "exit" => {
            libray::task::exit_actor("the program says so")?;
            return Err(Stop::Left);
        }
        "hold" => return hold(number(w, 1)?),
        "add" => {
            let shared = shared?;
            let mut kept = shared.lock();
            kept.sum = kept.sum.wrapping_add(number(w, 1)?);
            m.acc = mix(m.acc, kept.sum);
        }
        "keep" => {
            let reference = m.reference(&w[2])?.clone();
            drop(shared?.lock().refs.insert(number(w, 1)? & 7, reference));
        }
        "kept" => {
            let reference = shared?
                .lock()
                .refs
                .get(&(number(w, 1)? & 7))
                .cloned()
                .ok_or(Stop::Empty)?;
            m.refs.insert(w[2].clone(), reference);
        }
        other => return Err(wrong(&format!("unknown {other}"))),
    }
    Ok(())
}
