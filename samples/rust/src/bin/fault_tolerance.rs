//! fault_tolerance.rs -- what a caller sees of a panic, a crash, a retry and a restart.
use libray::{ActorOptions, Error, TaskOptions};

#[libray::remote]
fn divide(a: i64, b: i64) -> i64 {
    a / b // panics for 0
}

/// Ends its whole process, but only the first time.
#[libray::remote]
fn dies_once() -> u32 {
    if libray::task::attempt() == 1 {
        std::process::abort();
    }
    libray::task::attempt()
}

struct Account {
    balance: i64,
}

#[libray::remote]
impl Account {
    /// Its state is in the cluster's key-value store, so that a restart finds it.
    pub fn new() -> libray::Result<Self> {
        let saved = libray::kv::get("bank", b"balance")?;
        let balance = saved
            .and_then(|(bytes, _)| String::from_utf8(bytes).ok()?.parse().ok())
            .unwrap_or(0);
        Ok(Account { balance })
    }

    pub fn deposit(&mut self, amount: i64) -> libray::Result<i64> {
        self.balance += amount;
        libray::kv::put("bank", b"balance", self.balance.to_string().as_bytes())?;
        Ok(self.balance)
    }

    pub fn crash(&self) {
        std::process::abort();
    }
}

fn main() -> libray::Result<()> {
    let _ray = libray::init()?;

    match divide::remote(1, 0)?.get() {
        Err(Error::Task(failure)) => println!("{}: {}", failure.type_name, failure.message),
        other => println!("unexpected: {other:?}"),
    }
    println!("attempt {} came through", dies_once::remote()?.get()?);

    let never = dies_once::with(TaskOptions::new().max_retries(0)).remote()?;
    println!(
        "without retries: {}",
        never.get().map_or_else(|e| e.code_name(), |_| "?")
    );

    let account =
        Account::with(ActorOptions::new().max_restarts(1).max_task_retries(1)).remote()?;
    account.deposit(70)?.get()?;
    let _ = account
        .with(TaskOptions::new().max_retries(0))
        .crash()?
        .get();
    println!("after the crash: {}", account.deposit(30)?.get()?);
    Ok(())
}
