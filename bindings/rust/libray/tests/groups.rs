//! Concurrency groups of actors, against a node. This program is its own worker.
use libray::{ActorOptions, Args, Error, TaskOptions};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Counts who is in, and lets nobody out until it is open.
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    inside: AtomicUsize,
    most: AtomicUsize,
    ready: AtomicBool,
}

#[libray::remote(concurrent, groups(slow = 2, quick = 1))]
impl Gate {
    pub fn new() -> Self {
        Self {
            open: Mutex::new(false),
            opened: Condvar::new(),
            inside: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            ready: AtomicBool::new(true),
        }
    }
    #[group(slow)]
    pub fn pass(&self) -> usize {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
        self.inside.fetch_sub(1, Ordering::SeqCst);
        inside
    }
    #[group(slow)]
    pub fn numbers(&self) -> impl Iterator<Item = usize> + '_ {
        (0..3).map(|i| i + self.inside.load(Ordering::SeqCst))
    }
    /// Of the default group.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }
    #[group(quick)]
    pub fn open(&self) -> usize {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
        self.most.load(Ordering::SeqCst)
    }
    #[group(quick)]
    pub fn any(&self, call: &mut libray::Call<'_>) -> libray::Result<()> {
        call.give(0, &self.ready.load(Ordering::SeqCst))
    }
}

#[test]
fn groups() {
    let config = libray::Config::new().num_cpus(1.0).store_bytes(64 << 20);
    let _ray = config.worker_arguments(["groups", "--exact", "--nocapture"]).init().unwrap();
    for options in [ActorOptions::new(), ActorOptions::new().max_concurrency(3)] {
        a_full_group_stops_no_other(&options).unwrap();
    }
    let gate = Gate::remote().unwrap();
    assert_eq!(gate.numbers().unwrap().collect::<Result<Vec<_>, _>>().unwrap(), [0, 1, 2]);
    let refused = gate.with(TaskOptions::new().concurrency_group("fast")).inside();
    assert!(matches!(&refused, Err(Error::InvalidArgument(t)) if t.contains("slow, quick")), "{refused:?}");
    let by_name = gate.method("inside").with(TaskOptions::new().concurrency_group("slow")).call::<usize>(Args::new());
    assert!(matches!(&by_name, Err(Error::InvalidArgument(_))), "{by_name:?}");
}

fn a_full_group_stops_no_other(options: &ActorOptions) -> libray::Result<()> {
    let gate = Gate::with(options.clone()).remote()?;
    let waiting: Vec<_> = (0..5).map(|_| gate.pass()).collect::<Result<_, _>>()?;
    while gate.inside()?.get()? < 2 {
        std::thread::sleep(Duration::from_millis(1)); // both threads of the group are taken
    }
    assert!(gate.any().call::<bool>(Args::new())?.get()?);
    // One call in another group than its method's.
    assert_eq!(gate.with(TaskOptions::new().concurrency_group("quick")).inside()?.get()?, 2);
    assert_eq!(gate.open()?.get()?, 2);
    assert!(libray::get_all(&waiting)?.iter().all(|inside| *inside <= 2));
    Ok(())
}
