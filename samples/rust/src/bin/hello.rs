//! hello.rs -- a task, and its result. The program is its own worker: libray starts it again, and then `init` does
//! not return.

#[libray::remote]
fn greet(name: &str) -> String {
    format!("hello, {name}")
}

fn main() -> libray::Result<()> {
    let _ray = libray::init()?;
    let greeting = greet::remote("world")?; // returns at once, with a future
    println!("{}", greeting.get()?);
    Ok(())
}
