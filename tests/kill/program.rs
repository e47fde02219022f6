//! program.rs -- the Rust program of the kill matrix; program.c says what it is told by the environment and what its
//! exit status means. The steps are those of program.c where the crate has a surface of its own: futures of values,
//! tensors, panics, iterators, actors.
use libray::{ActorOptions, Error, ObjectRef, TaskOptions, Tensor};
use std::path::PathBuf;

// ---- what workers run ----

#[libray::remote]
fn add(a: i64, b: i64) -> i64 {
    a + b
}

const LARGE: usize = 90_000; // numbers: several tensors do not fit into the store together

fn is_large(found: &[i64], seed: i64) -> bool {
    found.len() == LARGE && (seed..).zip(found).all(|(right, x)| *x == right)
}

#[libray::remote]
fn fill(seed: i64) -> Tensor<i64> {
    Tensor::from((seed..seed + LARGE as i64).collect::<Vec<_>>())
}

#[libray::remote]
fn check_fill(seed: i64, found: &[i64]) -> i64 {
    if is_large(found, seed) {
        seed
    } else {
        -1
    }
}

/// Waits for its children.
#[libray::remote]
fn fib(n: i64) -> libray::Result<i64> {
    if n < 2 {
        return Ok(n);
    }
    let (a, b) = (
        fib::with(forever()).remote(n - 1)?,
        fib::with(forever()).remote(n - 2)?,
    );
    Ok(a.get()? + b.get()?)
}

#[libray::remote]
fn count_up(n: i64, base: i64) -> impl Iterator<Item = i64> {
    base..base + n
}

#[libray::remote]
fn panics(x: i64) -> i64 {
    panic!("it is {x}")
}

struct Counter {
    n: i64,
}

#[libray::remote]
impl Counter {
    pub fn new() -> Self {
        Counter { n: 0 }
    }

    pub fn next(&mut self) -> i64 {
        self.n += 1;
        self.n
    }

    pub fn echo(&self, x: i64) -> i64 {
        x
    }
}

fn forever() -> TaskOptions {
    TaskOptions::new().retry_forever()
}

// ---- verdicts of the driver ----

/// What was not to happen, in words; it ends the program.
type Verdict<T = ()> = Result<T, String>;

const CRASHED: &str = "RAY_WORKER_CRASHED";
const DIED: &str = "RAY_ACTOR_DIED";
const RESTARTS: &str = "RAY_ACTOR_RESTARTING";
/// What the death of the node explains: it ends everything, at whatever stage it was.
const NODE_GONE: [&str; 7] = [
    "RAY_NODE_DIED",
    CRASHED,
    "RAY_OBJECT_LOST",
    "RAY_CANCELLED",
    "RAY_UNAVAILABLE",
    DIED,
    "RAY_STORE_FULL",
];

#[derive(Default)]
struct Driver {
    workers: bool,
    node: bool,
    node_died: bool,
    values: u64,
    errors: u64,
}

impl Driver {
    /// What a call gave, or nothing after an error that is allowed; `codes`: what deaths of workers may cause.
    fn allow<T>(
        &mut self,
        step: &str,
        result: libray::Result<T>,
        codes: &[&str],
    ) -> Verdict<Option<T>> {
        let error = match result {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        self.errors += 1;
        let code = error.code_name();
        if error.to_string().is_empty() {
            return Err(format!("{step}: {code} without a message"));
        }
        if self.workers && codes.contains(&code) {
            return Ok(None);
        }
        if !self.node || !NODE_GONE.contains(&code) {
            return Err(format!("{step}: {code}: {error}"));
        }
        self.node_died = true;
        Ok(None)
    }

    fn take(
        &mut self,
        step: &str,
        started: libray::Result<ObjectRef<i64>>,
        codes: &[&str],
    ) -> Verdict<Option<i64>> {
        let Some(reference) = self.allow(step, started, &[DIED])? else {
            return Ok(None);
        };
        let value = self.allow(step, reference.get(), codes)?;
        self.values += u64::from(value.is_some());
        Ok(value)
    }

    fn expect(
        &mut self,
        step: &str,
        started: libray::Result<ObjectRef<i64>>,
        right: i64,
        codes: &[&str],
    ) -> Verdict {
        match self.take(step, started, codes)? {
            Some(value) if value != right => Err(format!("{step}: {value}, not {right}")),
            _ => Ok(()),
        }
    }

    // ---- steps ----

    /// A chain through references beside loose tasks.
    fn sums(&mut self, base: i64) -> Verdict {
        let loose: Vec<_> = (0..100)
            .map(|i| add::with(forever()).remote(base, i))
            .collect();
        let mut chain = add::with(forever()).remote(base, 0);
        for _ in 0..20 {
            chain = chain.and_then(|before| add::with(forever()).remote(&before, 1));
        }
        for (i, started) in (0..).zip(loose) {
            self.expect("sums", started, base + i, &[])?;
        }
        self.expect("chain", chain, base + 20, &[])
    }

    fn without_retries(&mut self, base: i64) -> Verdict {
        let once = || TaskOptions::new().max_retries(0);
        let started: Vec<_> = (0..100)
            .map(|i| add::with(once()).remote(base, i))
            .collect();
        for (i, started) in (0..).zip(started) {
            self.expect("without retries", started, base + i, &[CRASHED])?;
        }
        Ok(())
    }

    /// More than the store holds: spilled and restored.
    fn large_objects(&mut self, base: i64) -> Verdict {
        let mut puts = Vec::new();
        for seed in base..base + 8 {
            let put = libray::put_with(&[LARGE], |out: &mut [i64]| {
                for (right, x) in (seed..).zip(out) {
                    *x = right;
                }
            });
            puts.push((seed, self.allow("put", put, &[])?));
        }
        for (seed, put) in puts {
            if let Some(put) = put {
                self.expect(
                    "large argument",
                    check_fill::with(forever()).remote(seed, &put),
                    seed,
                    &[],
                )?;
            }
            let made = fill::with(forever()).remote(seed).and_then(|r| r.get());
            if let Some(made) = self.allow("large result", made, &[])? {
                if !is_large(&made, seed) {
                    return Err("large result: damaged".into());
                }
                self.values += 1;
            }
        }
        Ok(())
    }

    fn recursion(&mut self, _: i64) -> Verdict {
        self.expect("recursion", fib::with(forever()).remote(7), 13, &[])
    }

    fn generator(&mut self, base: i64) -> Verdict {
        let stream = count_up::with(forever().stream_window(8)).remote(60, base);
        let Some(stream) = self.allow("generator", stream, &[])? else {
            return Ok(());
        };
        let mut n = 0;
        for item in stream {
            let Some(item) = self.allow("generator", item, &[])? else {
                break;
            };
            if item != base + n {
                return Err(format!("generator: {item}, not {}", base + n));
            }
            n += 1;
            self.values += 1;
        }
        if n != 60 && !self.node_died {
            return Err(format!("generator: {n} items, not 60"));
        }
        Ok(())
    }

    /// A panic is one for the caller too, whoever is killed.
    fn panics(&mut self, base: i64) -> Verdict {
        for x in base..base + 10 {
            match panics::with(forever()).remote(x).and_then(|r| r.get()) {
                Ok(_) => return Err("a function that panics gave a value".into()),
                Err(Error::Task(f)) if f.message == format!("it is {x}") => self.values += 1,
                Err(error) => {
                    self.allow::<()>("panics", Err(error), &[])?;
                }
            }
        }
        Ok(())
    }

    /// An actor and 40 calls of it, all made before the first is looked at.
    fn calls(
        &mut self,
        options: ActorOptions,
        call: impl Fn(&CounterHandle, i64) -> libray::Result<ObjectRef<i64>>,
    ) -> Verdict<Vec<libray::Result<ObjectRef<i64>>>> {
        let Some(actor) = self.allow("actor", Counter::with(options).remote(), &[])? else {
            return Ok(Vec::new());
        };
        Ok((0..40).map(|i| call(&actor, i)).collect())
    }

    /// 1, 2, 3, ..., then, if its worker is killed, errors to the end.
    fn mortal_actor(&mut self, _: i64) -> Verdict {
        let mut dead = false;
        let options = ActorOptions::new().max_task_retries(0);
        for (i, started) in (1..).zip(self.calls(options, |c, _| c.next())?) {
            match self.take("mortal actor", started, &[DIED])? {
                Some(_) if dead => return Err(format!("a dead actor answered call {i}")),
                Some(value) if value != i => return Err(format!("mortal actor: {value}, not {i}")),
                value => dead |= value.is_none(),
            }
        }
        Ok(())
    }

    /// Calls are lost, never repeated; each incarnation counts from 1.
    fn restarting_actor(&mut self, _: i64) -> Verdict {
        let mut last = 0;
        let options = ActorOptions::new()
            .max_restarts(u32::MAX)
            .max_task_retries(0);
        for started in self.calls(options, |c, _| c.next())? {
            if let Some(value) = self.take("restarting actor", started, &[RESTARTS])? {
                if value != last + 1 && !(self.workers && value == 1) {
                    return Err(format!("restarting actor: {value} after {last}"));
                }
                last = value;
            }
        }
        Ok(())
    }

    /// With restarts and retries every call is answered.
    fn immortal_actor(&mut self, base: i64) -> Verdict {
        let options = ActorOptions::new()
            .max_restarts(u32::MAX)
            .max_task_retries(u32::MAX);
        for (i, started) in (0..).zip(self.calls(options, |c, i| c.echo(base + i))?) {
            self.expect("immortal actor", started, base + i, &[])?;
        }
        Ok(())
    }

    // ---- the run ----

    const STEPS: [fn(&mut Self, i64) -> Verdict; 9] = [
        Self::sums,
        Self::without_retries,
        Self::large_objects,
        Self::recursion,
        Self::generator,
        Self::panics,
        Self::mortal_actor,
        Self::restarting_actor,
        Self::immortal_actor,
    ];

    /// Each round: every step once, in an order of its own.
    fn run(&mut self, dir: &std::path::Path, mut random: impl FnMut() -> u64) -> Verdict<u64> {
        std::fs::write(dir.join("ready"), "").map_err(|e| e.to_string())?;
        let mut rounds = 0;
        while !self.node_died && (rounds == 0 || !dir.join("stop").exists()) {
            let mut steps = Self::STEPS.map(|step| (random(), step));
            steps.sort_by_key(|(order, _)| *order);
            for (order, step) in steps {
                step(self, (order >> 20) as i64)?;
            }
            rounds += 1;
        }
        Ok(rounds)
    }
}

fn main() -> Result<(), String> {
    let text = |name: &str| std::env::var(name).unwrap_or_default();
    let (dir, victims) = (PathBuf::from(text("KILL_DIR")), text("KILL_VICTIMS"));
    let mut driver = Driver {
        workers: victims.contains("worker"),
        node: victims.contains("node"),
        ..Driver::default()
    };
    // A worker does not come back from here.
    let cluster = libray::Config::new()
        .session_dir(&dir)
        .num_cpus(2.0)
        .store_bytes(8 << 20)
        .init();
    let Some(cluster) = driver.allow("init", cluster, &[])? else {
        println!("no cluster");
        return Ok(());
    };
    let mut state = text("KILL_SEED")
        .parse::<u64>()
        .unwrap_or(1)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        | 1;
    let random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let rounds = driver.run(&dir, random)?;
    driver.allow("shutdown", cluster.shutdown(None), &[])?;
    let end = if driver.node_died {
        ", the node died"
    } else {
        ""
    };
    println!(
        "{rounds} rounds, {} values, {} errors{end}",
        driver.values, driver.errors
    );
    Ok(())
}
