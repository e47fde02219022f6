//! The instructions about what is around a task: groups, the key-value store, threads and processes.
use crate::machine::{wrong, Done, Machine, Stop};
use crate::text::{amounts, body_of, Words};
use crate::value::mix;
use crate::{next_line, say};
use libray::{kv, ActorHandle, Error, PlacementGroup, Strategy};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

extern "C" {
    pub fn write(fd: i32, data: *const u8, size: usize) -> isize;
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn alarm(seconds: u32) -> u32;
    fn _exit(status: i32) -> !;
    fn kill(pid: i32, signal: i32) -> i32;
}

const SIGKILL: i32 = 9;
const KEYS: &str = "model";

pub fn kill_myself() {
    // SAFETY: it sends a signal.
    unsafe { kill(i32::try_from(std::process::id()).unwrap_or(0), SIGKILL) };
}

impl Machine {
    // -- groups
    pub fn group(&mut self, w: &Words) -> Done {
        let bundles = w[3].split('/').map(amounts).collect::<Vec<_>>();
        let bundles = bundles.iter().map(Vec::as_slice).collect::<Vec<_>>();
        let strategy = match w[2].as_str() {
            "0" => Strategy::Pack,
            "1" => Strategy::Spread,
            "2" => Strategy::StrictPack,
            _ => Strategy::StrictSpread,
        };
        self.groups.remove(&w[1]);
        self.groups
            .insert(w[1].clone(), PlacementGroup::create(&bundles, strategy)?);
        self.ok()
    }

    fn placed(&self, name: &str) -> Result<PlacementGroup, Stop> {
        self.groups
            .get(name)
            .copied()
            .ok_or_else(|| Error::NotFound("no group".into()).into())
    }

    pub fn group_wait(&mut self, w: &Words) -> Done {
        self.placed(&w[1])?.wait(Some(Duration::from_millis(
            w[2].parse().unwrap_or_default(),
        )))?;
        self.ok()
    }

    pub fn group_remove(&mut self, w: &Words) -> Done {
        let group = self.placed(&w[1])?;
        self.groups.remove(&w[1]);
        group.remove()?;
        self.ok()
    }

    /// Of a driver's machine that has ended: one that gave up has left them.
    pub fn remove_groups(&mut self) {
        for (_, group) in self.groups.drain() {
            drop(group.remove()); // the node may be dead
        }
    }

    // -- key-value
    /// any, none or last; None is any.
    fn expected(&self, w: &Words, at: usize) -> Option<u64> {
        match w[at].as_str() {
            "any" => None,
            "none" => Some(0),
            _ => Some(self.versions.get(&w[1]).copied().unwrap_or(0)),
        }
    }

    pub fn kv_put(&mut self, w: &Words) -> Done {
        let tag = w[2]
            .parse::<u64>()
            .map_err(|_| wrong("a tag is a number"))?
            .to_le_bytes();
        let version = match self.expected(w, 3) {
            Some(expected) => kv::put_if(KEYS, w[1].as_bytes(), &tag, expected)?,
            None => kv::put(KEYS, w[1].as_bytes(), &tag)?,
        };
        self.versions.insert(w[1].clone(), version);
        self.tell(&format!("k {} {version}", w[2]));
        Ok(())
    }

    pub fn kv_get(&mut self, w: &Words) -> Done {
        let found = kv::get(KEYS, w[1].as_bytes())?;
        let (value, version) = found.ok_or_else(|| Error::NotFound("no such key".into()))?;
        let tag = value.try_into().map_or(0, u64::from_le_bytes);
        self.versions.insert(w[1].clone(), version);
        self.acc = mix(self.acc, tag);
        self.tell(&format!("k {tag} {version}"));
        Ok(())
    }

    pub fn kv_delete(&mut self, w: &Words) -> Done {
        let was_there = match self.expected(w, 2) {
            Some(expected) => kv::delete_if(KEYS, w[1].as_bytes(), expected)?,
            None => kv::delete(KEYS, w[1].as_bytes())?,
        };
        if !was_there {
            return Err(Error::NotFound("no such key".into()).into());
        }
        self.ok()
    }

    // -- threads
    /// In a new thread, on this machine, until it has ended.
    pub fn thread(&mut self, w: &Words) -> Done {
        let under = format!("{}.", self.path);
        let done = std::thread::scope(|s| s.spawn(|| self.run_whole(body_of(w), &under)).join());
        Ok(done.unwrap_or_else(|_| Err(Error::Internal("the thread panicked".into())))?)
    }

    /// Beside this one, on a machine with copies of its slots.
    pub fn spawn(&mut self, w: &Words) -> Done {
        if self.beside.0.contains_key(&w[1]) {
            return Err(Stop::Empty);
        }
        let actors: std::collections::HashMap<String, ActorHandle> = self.actors.clone();
        let mut other = Self {
            bound: self.bound,
            refs: self.refs.clone(),
            actors,
            ..Self::default()
        };
        let (text, under) = (body_of(w).to_owned(), format!("{}.", self.path));
        self.beside.0.insert(
            w[1].clone(),
            std::thread::spawn(move || other.run_whole(&text, &under).is_ok()),
        );
        self.ok()
    }

    pub fn join(&mut self, w: &Words) -> Done {
        let good = self.beside.0.remove(&w[1]).ok_or(Stop::Empty)?.join();
        if self.bound.is_none() && !matches!(good, Ok(true)) {
            return Err(Error::Internal("what ran beside it failed".into()).into());
        }
        self.ok()
    }

    // -- processes
    /// In a child that then ends without a word.
    pub fn fork(&mut self, w: &Words) -> Done {
        // SAFETY: the child runs what libray allows in one, and ends without what this process would do at its end.
        let pid = unsafe { fork() };
        if pid == 0 {
            // SAFETY: no more than what their names say.
            unsafe { alarm(30) };
            let under = format!("{}.", self.path);
            let done = self.run_whole(body_of(w), &under);
            // SAFETY: as above.
            unsafe { _exit(i32::from(done.is_err())) };
        }
        let mut status = 0;
        // SAFETY: the child is ours.
        while pid > 0 && unsafe { waitpid(pid, &mut status, 0) } < 0 {}
        self.tell_ending(std::process::ExitStatus::from_raw(status));
        Ok(())
    }

    fn tell_ending(&self, status: std::process::ExitStatus) {
        self.tell(&format!(
            "x {}",
            status
                .code()
                .unwrap_or_else(|| 1000 + status.signal().unwrap_or_default())
        ));
    }

    /// driver clean|leave|die [BODY]: another driver, until it has ended.
    pub fn driver(&mut self, w: &Words) -> Done {
        let (session, under) = (session(), format!("{}.", self.path));
        let program = std::env::current_exe().map_err(|e| wrong(&e.to_string()))?;
        let status = Command::new(program)
            .args(["--join", &session, &w[1], &under, body_of(w)])
            .stdin(Stdio::null())
            .status();
        self.tell_ending(status.map_err(|e| wrong(&e.to_string()))?);
        Ok(())
    }

    /// The tester does it.
    pub fn fault(&mut self, w: &Words) -> Done {
        static ASKING: Mutex<()> = Mutex::new(());
        let _one = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
        say(&format!("f {} {}", w[1], w[2]));
        let Some(answer) = next_line() else {
            std::process::exit(3)
        };
        self.tell(if answer.starts_with("ok") { "ok" } else { "no" });
        Ok(())
    }
}

/// The folder of the session, for drivers that join it.
pub static SESSION: Mutex<String> = Mutex::new(String::new());

fn session() -> String {
    SESSION
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// A driver that joined: --join SESSION MODE PATH TEXT
pub fn join(session: &str, mode: &str, path: &str, text: &str) -> Result<(), Error> {
    let config = libray::Config::new().address(session).namespace("model");
    let runtime = config
        .init()
        .inspect_err(|e| say(&format!("a {path}join e {} # {e}", &e.code_name()[4..])))?;
    SESSION
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push_str(session);
    drop(Machine::of_driver(Duration::from_secs(20)).run_whole(text, path));
    match mode {
        "die" => kill_myself(),
        // SAFETY: it ends the process.
        "leave" => unsafe { _exit(0) },
        _ => {}
    }
    runtime.shutdown(Some(Duration::from_secs(5)))
}
