//! actor_counter.rs -- an actor: a process that keeps state between calls. Tasks get its handle, and another program
//! could find it by name.

struct Counter {
    total: i64,
}

#[libray::remote]
impl Counter {
    pub fn new(start: i64) -> Self {
        Counter { total: start }
    }

    pub fn add(&mut self, x: i64) -> i64 {
        self.total += x;
        self.total
    }

    pub fn total(&self) -> i64 {
        self.total
    }
}

/// A handle is a value like any other.
#[libray::remote]
fn add_up_to(counter: CounterHandle, n: i64) -> libray::Result<()> {
    let calls: Vec<_> = (1..=n).map(|i| counter.add(i)).collect::<Result<_, _>>()?;
    libray::get_all(&calls).map(drop)
}

fn main() -> libray::Result<()> {
    let _ray = libray::init()?;
    let counter = Counter::with(libray::ActorOptions::new().name("the counter")).remote(100)?;
    let tasks: Vec<_> = (0..4)
        .map(|_| add_up_to::remote(counter.clone(), 10))
        .collect::<Result<_, _>>()?;
    libray::get_all(&tasks)?;

    let same = CounterHandle::find("the counter")?;
    println!("the total is {}", same.total()?.get()?);
    Ok(())
}
