//! The Rust driver of the conformance programs (../../SPEC.md), over the crate `libray` alone: reads programs from
//! standard input, one line each, and answers on standard output. As a worker, which libray starts with LIBRAY_WORKER
//! in its environment, it runs their bodies (body.rs).
mod around;
mod body;
mod machine;
mod operations;
mod text;
mod value;

use machine::Machine;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// One line in one write: other drivers share the descriptor.
pub fn say(line: &str) {
    static OUTPUT: Mutex<()> = Mutex::new(());
    let _one = OUTPUT.lock().unwrap_or_else(PoisonError::into_inner);
    let text = format!("{line}\n");
    let mut left = text.as_bytes();
    while !left.is_empty() {
        // SAFETY: the bytes are there.
        let n = unsafe { around::write(1, left.as_ptr(), left.len()) };
        let Ok(n @ 1..) = usize::try_from(n) else {
            std::process::exit(3)
        };
        left = &left[n..];
    }
}

/// One line of standard input, unbuffered: `fault` reads from it too.
pub fn next_line() -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while std::io::stdin().read(&mut byte).ok()? == 1 {
        if byte[0] == b'\n' {
            return String::from_utf8(line).ok();
        }
        line.push(byte[0]);
    }
    None
}

/// init cpus=2 store=BYTES resources=disk:2 bound=MS
fn start(line: &str) -> Result<(libray::Runtime, Duration), libray::Error> {
    let mut config = libray::Config::new().namespace("model"); // all drivers share it
    let mut bound = Duration::from_secs(20);
    for (key, value) in line
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
    {
        let number = || value.parse::<f64>().unwrap_or_default();
        match key {
            "cpus" => config = config.num_cpus(number()),
            "store" => config = config.store_bytes(number() as u64),
            "spill" => config = config.spill_bytes(number() as u64),
            "bound" => bound = Duration::from_millis(number() as u64),
            "resources" => {
                for (name, amount) in text::amounts(value) {
                    config = config.resource(name, amount);
                }
            }
            _ => {}
        }
    }
    let runtime = config.init()?;
    *around::SESSION
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = runtime.session_dir().display().to_string();
    say(&format!(
        "started {} {}",
        std::process::id(),
        runtime.session_dir().display()
    ));
    Ok((runtime, bound))
}

/// Any value that a query answers.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Answer {
    Nothing,
    Truth(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    Bytes(libray::Bytes),
    List(Vec<Answer>),
    Map(BTreeMap<String, Answer>),
}

fn query(what: &str) {
    let answer = libray::query::<Answer>(what)
        .ok()
        .and_then(|a| rmp_serde::to_vec_named(&a).ok());
    let digits = answer
        .iter()
        .flatten()
        .map(|b| format!("{b:02x}"))
        .collect::<String>();
    say(&format!("q {digits}"));
}

/// Descriptors and threads of this process.
fn count() {
    let entries = |folder| std::fs::read_dir(folder).map_or(0, Iterator::count);
    say(&format!(
        "n {} {}",
        entries("/proc/self/fd"),
        entries("/proc/self/task")
    ));
}

fn serve() -> Result<(), libray::Error> {
    let mut started = None;
    while let Some(line) = next_line() {
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match (command, started.as_ref()) {
            ("init", None) => {
                started = Some(start(rest).inspect_err(|e| say(&format!("failed {e}")))?)
            }
            ("run", Some((_, bound))) => {
                let mut machine = Machine::of_driver(*bound);
                drop(machine.run_whole(rest, ""));
                machine.remove_groups();
                drop(machine);
                say("done");
            }
            ("query", _) => query(rest),
            ("count", _) => count(),
            ("end", _) => {
                let code = match started
                    .take()
                    .map(|(runtime, _)| runtime.shutdown(Some(Duration::from_secs(5))))
                {
                    Some(Err(error)) => error.code_name(),
                    _ => "RAY_OK",
                };
                say(&format!("bye {code}"));
                break;
            }
            _ => say(&format!("unknown {command}")),
        }
    }
    Ok(())
}

fn main() -> Result<(), libray::Error> {
    if std::env::var_os("LIBRAY_WORKER").is_some() {
        drop(libray::init()?); // it does not return
    }
    let arguments = std::env::args().collect::<Vec<_>>();
    match arguments.get(1..).unwrap_or_default() {
        [flag, session, mode, path, text] if flag == "--join" => {
            around::join(session, mode, path, text)
        }
        _ => serve(),
    }
}
