//! bench_rust: the Rust rows of ./dev bench; each is measured as bench/c measures its own. Prints progress; writes
//! its rows as JSON.
//!   libray-bench [--json FILE] [--filter TEXT] [--quick]
use libray::{ObjectRef, Result, TaskOptions};
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

const BATCH: usize = 1000;

#[libray::remote]
fn noop() {}

#[libray::remote]
fn add(a: i64, b: i64) -> i64 {
    a + b
}

struct Idle;

#[libray::remote]
impl Idle {
    pub fn new() -> Self {
        Idle
    }
    pub fn noop(&mut self) {}
}

struct Bench {
    filter: String,
    quick: bool,
    rows: String,
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    fn rounds(&self) -> usize {
        if self.quick {
            2
        } else {
            5
        }
    }

    /// A row: the median of the rounds, and their standard deviation.
    fn add(&mut self, name: &str, unit: &str, mut values: Vec<f64>) {
        if values.is_empty() || !self.wants(name) {
            return;
        }
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let median = (values[n / 2] + values[(n - 1) / 2]) / 2.0;
        let mean = values.iter().sum::<f64>() / n as f64;
        let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        let deviation = if n > 1 {
            (square / (n - 1) as f64).sqrt()
        } else {
            0.0
        };
        eprintln!("  {name:<34} {median:>14.6} {unit}");
        let comma = if self.rows.is_empty() { "" } else { "," };
        let _ = write!(
            self.rows,
            "{comma}\n {{\"name\": \"{name}\", \"language\": \"rust\", \"value\": {median}, \"unit\": \"{unit}\", \
             \"deviation\": {deviation}}}"
        );
    }

    /// Operations per second, of a step that does `per_step`; the first round warms up.
    fn rate(
        &mut self,
        name: &str,
        unit: &str,
        per_step: usize,
        mut step: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        if !self.wants(name) {
            return Ok(());
        }
        let round = Duration::from_millis(if self.quick { 200 } else { 1000 });
        let mut values = Vec::new();
        for i in 0..=self.rounds() {
            let (began, mut n) = (Instant::now(), 0);
            while began.elapsed() < round {
                step()?;
                n += per_step;
            }
            if i > 0 {
                values.push(n as f64 / began.elapsed().as_secs_f64());
            }
        }
        self.add(name, unit, values);
        Ok(())
    }

    /// Percentiles of one operation at a time, in microseconds.
    fn latencies(&mut self, name: &str, mut once: impl FnMut() -> Result<()>) -> Result<()> {
        let [p50, p99] = ["p50", "p99"].map(|p| format!("{name}_{p}"));
        if !self.wants(&p50) && !self.wants(&p99) {
            return Ok(());
        }
        let n = if self.quick { 2000 } else { 20_000 };
        let (mut middle, mut high) = (Vec::new(), Vec::new());
        for i in 0..=self.rounds() {
            let mut samples = Vec::with_capacity(n);
            for _ in 0..n {
                let began = Instant::now();
                once()?;
                samples.push(began.elapsed().as_nanos() as f64 / 1e3);
            }
            samples.sort_by(f64::total_cmp);
            if i > 0 {
                middle.push(samples[n / 2]);
                high.push(samples[n * 99 / 100]);
            }
        }
        self.add(&p50, "us", middle);
        self.add(&p99, "us", high);
        Ok(())
    }
}

fn tasks(b: &mut Bench) -> Result<()> {
    let mut refs: Vec<ObjectRef<()>> = Vec::with_capacity(BATCH);
    b.rate("tasks_batch_1000", "tasks/s", BATCH, || {
        for _ in 0..BATCH {
            refs.push(noop::remote()?);
        }
        libray::get_all(&refs)?;
        refs.clear();
        Ok(())
    })?;
    let mut sums: Vec<ObjectRef<i64>> = Vec::with_capacity(BATCH);
    b.rate("tasks_with_values_batch_1000", "tasks/s", BATCH, || {
        for i in 0..BATCH {
            sums.push(add::remote(i as i64, 1)?);
        }
        black_box(libray::get_all(&sums)?);
        sums.clear();
        Ok(())
    })?;
    b.latencies("task_latency", || noop::remote()?.get())
}

fn actors(b: &mut Bench) -> Result<()> {
    let actor = Idle::remote()?;
    let mut refs: Vec<ObjectRef<()>> = Vec::with_capacity(BATCH);
    b.rate("actor_calls_batch_1000", "calls/s", BATCH, || {
        for _ in 0..BATCH {
            refs.push(actor.noop()?);
        }
        libray::get_all(&refs)?;
        refs.clear();
        Ok(())
    })?;
    b.latencies("actor_latency", || actor.noop()?.get())
}

fn objects(b: &mut Bench) -> Result<()> {
    b.rate("put_get_small", "/s", BATCH, || {
        for i in 0..BATCH {
            black_box(libray::put(&(i as i64))?.get()?);
        }
        Ok(())
    })?;
    let kept = libray::put(&1i64)?;
    b.rate("get_small", "/s", BATCH, || {
        for _ in 0..BATCH {
            black_box(kept.get()?);
        }
        Ok(())
    })
}

/// From the submission of a task that no worker can run yet (its environment is new) to its result: the start of a
/// worker.
fn worker_start(b: &mut Bench) -> Result<()> {
    if !b.wants("worker_start") {
        return Ok(());
    }
    let mut took = Vec::new();
    for i in 0..if b.quick { 5 } else { 20 } {
        let options = TaskOptions::new().env_var("LIBRAY_BENCH_START", i.to_string());
        let began = Instant::now();
        noop::with(options).remote()?.get()?;
        took.push(began.elapsed().as_secs_f64());
    }
    b.add("worker_start", "s", took);
    Ok(())
}

fn run(b: &mut Bench, runtime: libray::Runtime) -> Result<()> {
    tasks(b)?;
    actors(b)?;
    objects(b)?;
    worker_start(b)?;
    runtime.shutdown(None)?;
    if b.wants("init_to_first_result") {
        let mut took = Vec::new();
        for _ in 0..if b.quick { 3 } else { 9 } {
            let began = Instant::now();
            let runtime = libray::Config::new().job_name("bench").init()?;
            noop::remote()?.get()?;
            took.push(began.elapsed().as_secs_f64());
            runtime.shutdown(None)?;
        }
        b.add("init_to_first_result", "s", took);
    }
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let runtime = libray::Config::new().job_name("bench").init()?;
    let (mut json, mut b) = (
        None,
        Bench {
            filter: String::new(),
            quick: false,
            rows: String::new(),
        },
    );
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => b.quick = true,
            "--json" => json = arguments.next(),
            "--filter" => b.filter = arguments.next().unwrap_or_default(),
            other => {
                return Err(format!(
                    "'{other}': usage: libray-bench [--json FILE] [--filter TEXT] [--quick]"
                )
                .into())
            }
        }
    }
    run(&mut b, runtime)?;
    if let Some(path) = json {
        std::fs::write(path, format!("[{}\n]\n", b.rows))?;
    }
    Ok(())
}
