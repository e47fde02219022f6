//! streaming.rs -- a generator's items are used while the next ones are made; one that fails says so after its last
//! item.
use libray::TaskOptions;

#[libray::remote]
fn collatz(start: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(start), |n| match n {
        1 => None,
        n if n % 2 == 0 => Some(n / 2),
        n => Some(3 * n + 1),
    })
}

#[libray::remote]
fn lines(text: String) -> impl Iterator<Item = Result<i64, String>> {
    text.lines()
        .map(|line| line.parse().map_err(|e| format!("'{line}': {e}")))
        .collect::<Vec<_>>()
        .into_iter()
}

fn main() -> libray::Result<()> {
    let _ray = libray::init()?;

    let mut highest = 0;
    let mut steps = 0;
    // The producer stays at most 16 items ahead.
    for item in collatz::with(TaskOptions::new().stream_window(16)).remote(27)? {
        highest = highest.max(item?);
        steps += 1;
    }
    println!("27 takes {steps} numbers to 1, the highest is {highest}");

    for line in lines::remote("1\n2\nthree")? {
        match line {
            Ok(number) => println!("a number: {number}"),
            Err(error) => println!(
                "an error: {}",
                error.failure().map_or("?", |f| f.message.as_str())
            ),
        }
    }
    Ok(())
}
