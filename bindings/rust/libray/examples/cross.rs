//! What the tests of calls between languages use (tests/cross/test_rust.py): functions and an actor for other
//! languages, and, with the argument `drive`, a driver that calls Python's.
#![forbid(unsafe_code)]
use libray::{ActorOptions, Args, Error, Function, Language, Tensor, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, UNIX_EPOCH};

/// Any plain value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Value {
    Nothing,
    Truth(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
}

#[libray::remote]
fn area(a: f64, b: f64) -> f64 {
    a * b
}

#[libray::remote]
fn echo(value: Value) -> Value {
    value
}

#[libray::remote]
fn reversed(data: Vec<u8>) -> Vec<u8> {
    data.into_iter().rev().collect()
}

#[libray::remote]
fn day_later(t: Timestamp) -> Timestamp {
    Timestamp(t.0 + Duration::from_secs(86400))
}

#[derive(Serialize, Deserialize)]
struct Point {
    x: i64,
    y: Option<f64>,
}

#[libray::remote]
fn mirrored(p: Point, by: (i64, i64)) -> Point {
    Point { x: p.x * by.0, y: p.y.map(|y| y * by.1 as f64) }
}

/// File and offset of what lies at this address: the same in every process that sees the same memory.
fn place_of(address: usize) -> (u64, usize) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let found = maps.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (begin, end) = words.next()?.split_once('-')?;
        let (begin, end) = (usize::from_str_radix(begin, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        let offset = usize::from_str_radix(words.nth(1)?, 16).ok()?;
        let inode = words.nth(1)?.parse().ok()?;
        (begin..end).contains(&address).then(|| (inode, offset + address - begin))
    });
    found.unwrap_or_default()
}

#[libray::remote]
fn sum_and_place(numbers: Tensor<f64>) -> (f64, u64, usize, Vec<usize>) {
    let (inode, offset) = place_of(numbers.as_ptr() as usize);
    (numbers.iter().sum(), inode, offset, numbers.shape().to_vec())
}

#[libray::remote]
fn ones(n: usize) -> Tensor<f64> {
    vec![1.0; n].into()
}

#[libray::remote]
fn same_table(table: libray::ArrowStream) -> libray::ArrowStream {
    table
}

#[libray::remote]
fn count(n: u64) -> impl Iterator<Item = u64> {
    0..n
}

#[libray::remote(returns = 2)]
fn both(x: i64) -> (i64, String) {
    (x, x.to_string())
}

#[libray::remote]
fn breaks(text: &str) {
    panic!("{text}");
}

/// An error of Python that comes through Rust.
#[libray::remote]
fn through(text: &str) -> libray::Result<()> {
    Function::new(Language::Python, "cross_functions", "fail").call::<()>(Args::new().value(text)?)?.get()
}

struct Counter(i64);

#[libray::remote]
impl Counter {
    pub fn new(start: i64) -> Self {
        Self(start)
    }
    pub fn add(&mut self, x: i64) -> i64 {
        self.0 += x;
        self.0
    }
    pub fn up_to(&self) -> impl Iterator<Item = i64> + '_ {
        0..self.0
    }
}

#[libray::remote]
fn add_to(counter: CounterHandle, boxed: Vec<libray::ObjectRef<i64>>) -> libray::Result<i64> {
    counter.add(&boxed[0])?.get()
}

fn python(name: &str) -> Function {
    Function::new(Language::Python, "cross_functions", name)
}

fn drive() -> Result<(), Box<dyn std::error::Error>> {
    let greeting = python("greet").call::<String>(Args::new().value("Rust")?)?;
    assert_eq!(greeting.get()?, "Hello, Rust!");
    let sum = python("add").call::<i64>(Args::new().value(1)?.reference(&libray::put(&2)?))?;
    assert_eq!(sum.get()?, 3);
    let when = Timestamp(UNIX_EPOCH + Duration::from_micros(1_234_567_890_123));
    assert_eq!(python("echo").call::<Timestamp>(Args::new().value(when)?)?.get()?, when);
    assert_eq!(python("echo").call::<Vec<u8>>(Args::new().value(vec![0u8, 16, 19])?)?.get()?, [0, 16, 19]);
    assert_eq!(python("kind").call::<String>(Args::new().value(vec![1u8])?)?.get()?, "builtins.bytes");
    let pair = python("pair").call::<(i64, String)>(Args::new())?;
    assert_eq!(pair.get()?, (1, "two".to_owned()));

    let array = libray::put(&Tensor::from(vec![0.5f64; 100_000]))?;
    let there = python("sum_and_place").call::<(f64, u64, usize, bool)>(Args::new().reference(&array))?.get()?;
    let (inode, offset) = place_of(array.get()?.as_ptr() as usize);
    assert_eq!(there, (50_000.0, inode, offset, false), "numpy reads it where Rust does");
    assert_ne!(inode, 0);

    let items: Result<Vec<u64>, Error> = python("count_to").stream(Args::new().value(5)?)?.collect();
    assert_eq!(items?, [0, 1, 2, 3, 4]);
    let error = python("fail").call::<()>(Args::new().value("on purpose")?)?.get().unwrap_err();
    let failure = error.failure().ok_or("no failure")?;
    assert_eq!((&*failure.language, &*failure.message), ("python", "on purpose"));
    assert!(failure.type_name.ends_with("OwnError") && failure.stack.contains("cross_functions"), "{failure:?}");
    assert!(failure.cause.is_some(), "{failure:?}");
    let missing = python("no_such_name").call::<()>(Args::new())?.get();
    assert!(matches!(&missing, Err(Error::UnknownFunction(t)) if t.contains("no_such_name")), "{missing:?}");
    let counter = python("Counter").create(&ActorOptions::new(), Args::new().value(5)?)?;
    assert_eq!(counter.call::<i64>("add", Args::new().value(3)?)?.get()?, 8);
    println!("all of it");
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _ray = libray::Config::new().num_cpus(2.0).store_bytes(64 << 20).init()?;
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("drive") {
        libray::set_worker_code(Language::Python, &arguments.next().ok_or("drive where?")?)?;
        drive()?;
    }
    Ok(())
}
