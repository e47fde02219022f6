//! program.rs -- Rust's part of test_steady.py, which writes how many tasks to run, line by line, and measures; and of
//! tests/cross/test_user_code.py, which calls `ends`.
use std::io::BufRead;

#[libray::remote]
fn add_one(x: i64) -> i64 {
    x + 1
}

#[libray::remote]
fn ends(how: &str) -> i64 {
    match how {
        "throw" => panic!("no way on"),
        "exit" => std::process::exit(3),
        "segfault" => {
            // SAFETY: none: nothing lies there, which is what the test is about.
            unsafe { (std::hint::black_box(8usize) as *mut u64).write_volatile(1) }
        }
        _ => return descend(&[0; 4096], u64::MAX),
    }
    0
}

/// Until there is no stack left.
fn descend(page: &[u8; 4096], left: u64) -> i64 {
    if left == 0 {
        return 0;
    }
    let next = [page[0].wrapping_add(1); 4096];
    descend(std::hint::black_box(&next), left - 1) + i64::from(next[7])
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
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _ray = libray::Config::new().num_cpus(2.0).init()?;
    let counter = Counter::remote()?;
    let mut called = 0;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let n: i64 = line?.trim().parse()?;
        for from in (0..n).step_by(1000) {
            let tasks: Vec<_> = (from..from + 990)
                .map(add_one::remote)
                .collect::<Result<_, _>>()?;
            let calls: Vec<_> = (0..10).map(|_| counter.next()).collect::<Result<_, _>>()?;
            assert!(libray::get_all(&tasks)?
                .into_iter()
                .eq(from + 1..=from + 990));
            assert!(libray::get_all(&calls)?
                .into_iter()
                .eq(called + 1..=called + 10));
            called += 10;
        }
        println!("done {n}");
    }
    Ok(())
}
