//! The whole API against a real node, one test after the other: this program is its own worker, so it has no harness
//! of Rust's but a small one, at the end. `cargo test --test api NAME` runs those whose name holds NAME.
#![forbid(unsafe_code)] // what `#[remote]` writes into this program is safe code

use libray::{
    ActorOptions, Args, Bytes, Call, Error, Function, Language, ObjectRef, ObjectStream, TaskOptions, Tensor, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

type Test = Result<(), Box<dyn std::error::Error>>;
type Entry = (&'static str, fn() -> Test);

// ---- what runs elsewhere ------------------------------------------------------------------------------------------

/// Its documentation is that of `square::remote` too.
#[libray::remote]
fn square(x: i64) -> i64 {
    x * x
}

/// Parameters have any names, also those that the macro could have used, and the function's own.
#[libray::remote]
fn value(call: i64, value: i64, items: i64, function: i64, actor: i64, state: i64) -> Result<i64, String> {
    Ok(call + 10 * value + 100 * items + 1000 * function + 10_000 * actor + 100_000 * state)
}

#[libray::remote]
fn noop() {}

#[libray::remote]
fn pid() -> u32 {
    std::process::id()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle { radius: f64 },
    Polygon(Vec<(f64, f64)>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    name: String,
    shapes: Vec<Shape>,
    tags: BTreeMap<String, Option<i32>>,
    blob: Vec<u8>,
    big: u64,
}

fn record() -> Record {
    Record {
        name: "häuser".into(),
        shapes: vec![Shape::Point, Shape::Circle { radius: 0.5 }, Shape::Polygon(vec![(1.0, 2.0), (3.0, -4.0)])],
        tags: [("a".into(), Some(-1)), ("b".into(), None)].into(),
        blob: (0..=255).collect(),
        big: u64::MAX,
    }
}

#[libray::remote]
fn same(record: Record) -> Record {
    record
}

#[libray::remote]
fn joined(texts: Vec<String>, separator: &str, times: &u8) -> String {
    texts.join(separator).repeat(usize::from(*times))
}

#[libray::remote]
fn checked_root(x: f64) -> Result<f64, String> {
    if x < 0.0 {
        return Err(format!("{x} has no root"));
    }
    Ok(x.sqrt())
}

#[libray::remote]
fn panics(kind: u8) -> i32 {
    match kind {
        0 => panic!("on purpose"),
        1 => {
            let empty: Vec<i32> = Vec::new();
            empty[usize::from(kind)]
        }
        2 => std::panic::panic_any(17),
        _ => {
            assert_eq!(kind, 0, "they differ");
            0
        }
    }
}

#[libray::remote]
fn dies(how: u8) -> i32 {
    match how {
        0 => std::process::exit(3),
        1 => std::process::abort(),
        _ => descend(&[0; 4096], u64::MAX),
    }
}

/// Until there is no stack left.
fn descend(page: &[u8; 4096], left: u64) -> i32 {
    if left == 0 {
        return 0;
    }
    let next = [page[0].wrapping_add(1); 4096];
    descend(std::hint::black_box(&next), left - 1) + i32::from(next[7])
}

#[libray::remote]
fn asks_for_a_failure() -> libray::Result<f64> {
    checked_root::remote(-1.0)?.get()
}

#[libray::remote]
fn sum(numbers: &[f64]) -> f64 {
    numbers.iter().sum()
}

#[libray::remote]
fn ramp(rows: usize, columns: usize) -> libray::Result<Tensor<f32>> {
    Tensor::from((0..rows * columns).map(|i| i as f32).collect::<Vec<_>>()).reshape(&[rows, columns])
}

/// Where the numbers are in the worker's memory, modulo 64, and whether two of the same are one.
#[libray::remote]
fn lies_in_place(a: Tensor<u64>, b: Tensor<u64>) -> bool {
    a.as_ptr() as usize % 64 == 0 && a.as_ptr() == b.clone().as_ptr()
}

#[libray::remote]
fn count(n: u64) -> impl Iterator<Item = u64> {
    0..n
}

#[libray::remote]
fn count_and_fail(n: u64) -> impl Iterator<Item = Result<u64, String>> {
    (0..n).map(Ok).chain([Err("enough".to_owned())])
}

#[libray::remote(returns = 2)]
fn divide(a: i64, b: i64) -> Result<(i64, i64), String> {
    if b == 0 {
        return Err("by zero".into());
    }
    Ok((a / b, a % b))
}

#[libray::remote]
async fn later(x: ObjectRef<i64>) -> libray::Result<i64> {
    let one = square::remote(&x)?;
    Ok(x.await? + one.await?)
}

#[libray::remote]
fn fibonacci(n: u64) -> libray::Result<u64> {
    if n < 2 {
        return Ok(n);
    }
    let (a, b) = (fibonacci::remote(n - 1)?, fibonacci::remote(n - 2)?);
    Ok(a.get()? + b.get()?)
}

#[libray::remote]
fn waits(log: Journal) -> libray::Result<()> {
    log.0.add("began")?.get()?;
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        libray::task::check_cancelled()?;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

#[libray::remote]
fn blocks_on(r: Vec<ObjectRef<i64>>) -> libray::Result<i64> {
    r[0].get()
}

#[libray::remote]
fn fails_at_first(log: Journal) -> Result<u32, String> {
    // Waited for: the first call of a process may come behind later ones of others.
    let _ = log.0.add(format!("attempt {}", libray::task::attempt())).and_then(|added| added.get());
    match libray::task::attempt() {
        1 => Err("the first attempt".into()),
        n => Ok(n),
    }
}

#[libray::remote]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[libray::remote]
fn whoami() -> libray::Result<(String, bool)> {
    let context = libray::context()?;
    Ok((context.task.to_string(), context.is_worker))
}

#[libray::remote]
fn year_later(t: Timestamp) -> Timestamp {
    Timestamp(t.0 + Duration::from_secs(365 * 24 * 3600))
}

#[libray::remote]
fn length(data: Bytes) -> usize {
    data.len()
}

#[libray::remote(name = "another name")]
fn renamed() -> &'static str {
    "renamed"
}

mod geometry {
    #[libray::remote]
    pub fn area(a: f64, b: f64) -> f64 {
        a * b
    }
}

/// An actor that notes what happens, handed on inside other values.
struct Notes(Vec<String>);

#[libray::remote]
impl Notes {
    pub fn new() -> Self {
        Self(Vec::new())
    }
    pub fn add(&mut self, line: String) -> usize {
        self.0.push(line);
        self.0.len()
    }
    pub fn lines(&self) -> Vec<String> {
        self.0.clone()
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Journal(NotesHandle);

#[derive(Debug)]
struct Counter {
    total: i64,
    not_send: std::rc::Rc<()>,
}

#[libray::remote]
impl Counter {
    /// Starts somewhere.
    pub fn new(start: i64) -> Result<Self, String> {
        if start < 0 {
            return Err("a negative start".into());
        }
        Ok(Self { total: start, not_send: Default::default() })
    }
    /// Adds.
    pub fn add(&mut self, x: i64) -> i64 {
        self.total += x * self.helper();
        self.total
    }
    pub fn countdown(&self) -> impl Iterator<Item = i64> + '_ {
        (0..self.total).rev()
    }
    pub fn fail(&mut self) -> Result<(), std::num::ParseIntError> {
        "x".parse::<i32>().map(drop)
    }
    pub fn panic(&mut self) {
        self.total = 1000;
        panic!("a method");
    }
    pub fn crash(&mut self) {
        std::process::abort()
    }
    pub fn pid(&self) -> u32 {
        std::process::id()
    }
    pub fn leave(&mut self) -> libray::Result<i64> {
        libray::task::exit_actor("it had enough")?;
        Ok(self.total)
    }
    pub fn name_of_self(&self) -> libray::Result<String> {
        Ok(libray::task::actor()?.id().to_string())
    }
    fn helper(&self) -> i64 {
        1 + std::rc::Rc::strong_count(&self.not_send) as i64 - 1
    }
}

/// Two calls that wait for each other: they end only if they run at once.
struct Meeting(std::sync::Barrier);

#[libray::remote(concurrent)]
impl Meeting {
    pub fn new(n: usize) -> Self {
        Self(std::sync::Barrier::new(n))
    }
    pub fn meet(&self) -> bool {
        self.0.wait().is_leader()
    }
    pub fn threads(&self) -> usize {
        let names = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let name = |t: std::fs::DirEntry| std::fs::read_to_string(t.path().join("comm")).unwrap_or_default();
        names.map(name).filter(|n| n.starts_with("libray-call")).count()
    }
}

// ---- tests --------------------------------------------------------------------------------------------------------

fn tasks() -> Test {
    assert_eq!(square(7), 49); // it stays a function
    let refs: Vec<_> = (0..100).map(square::remote).collect::<Result<_, _>>()?;
    assert_eq!(libray::get_all(&refs)?, (0..100).map(|i| i * i).collect::<Vec<_>>());
    assert_ne!(pid::remote()?.get()?, std::process::id());
    noop::remote()?.get()?;
    assert_eq!(value::remote(1, 2, 3, 4, 5, 6)?.get()?, 654_321);
    let four = square::remote(2)?;
    assert_eq!(square::remote(&four)?.get()?, 16);
    assert_eq!(square::remote(four)?.get()?, 16);
    assert_eq!(geometry::area::remote(2.0, 3.5)?.get()?, 7.0);
    assert_eq!(joined::remote(vec!["a".into(), "b".into()], "-", 2)?.get()?, "a-ba-b");
    assert_eq!(renamed::remote()?.cast::<String>().get()?, "renamed");
    Ok(())
}

fn values() -> Test {
    assert_eq!(same::remote(record())?.get()?, record());
    let put = libray::put(&record())?;
    assert_eq!(put.get()?, record());
    assert_eq!(same::remote(&put)?.get()?, record());
    let wrong = put.clone().cast::<i64>().get();
    assert!(matches!(&wrong, Err(Error::Value(t)) if t.contains("i64")), "{wrong:?}");
    let now = Timestamp(SystemTime::now());
    assert_eq!(year_later::remote(now)?.get()?.0, now.0 + Duration::from_secs(365 * 24 * 3600));
    let nested = libray::put(&vec![libray::put(&5i64)?, square::remote(4)?])?;
    let inner = nested.get()?;
    drop(nested);
    assert_eq!((inner[0].get()?, inner[1].get()?), (5, 16));
    assert_eq!(length::remote(Bytes::from(vec![7; 100_000]))?.get()?, 100_000);
    assert_eq!(libray::put(&())?.get()?, ());
    assert_eq!(libray::put(&u64::MAX)?.get()?, u64::MAX);
    assert!(libray::put(&-1i64)?.cast::<u64>().get().is_err());
    Ok(())
}

fn tensors() -> Test {
    let numbers = Tensor::from((0..300_000).map(f64::from).collect::<Vec<_>>());
    let total = numbers.iter().sum::<f64>();
    let put = libray::put(&numbers)?;
    let (one, two) = (put.get()?, put.get()?);
    assert_eq!(one, numbers);
    assert_eq!(one.as_ptr(), two.as_ptr(), "both are views of the store");
    assert_eq!(one.as_ptr() as usize % 64, 0);
    assert_eq!(sum::remote(&put)?.get()?, total);
    assert_eq!(sum::remote(vec![1.0, 2.0])?.get()?, 3.0);
    assert_eq!(sum::remote(libray::put(&vec![1.0, 2.5])?)?.get()?, 3.5);
    drop(put);
    assert_eq!(one.iter().sum::<f64>(), total, "a view keeps its memory");
    let made = ramp::remote(3, 1000)?.get()?;
    assert_eq!((made.shape(), made[2999]), (&[3, 1000][..], 2999.0));
    let built = libray::put_with(&[100, 100], |out: &mut [u64]| {
        for (i, x) in out.iter_mut().enumerate() {
            *x = i as u64;
        }
    })?;
    assert!(lies_in_place::remote(&built, &built)?.get()?);
    assert_eq!(built.get()?.iter().sum::<u64>(), 9999 * 10_000 / 2);
    assert!(libray::put_with(&[usize::MAX, 2], |_: &mut [u8]| ()).is_err());
    let wrong = built.cast::<Tensor<f32>>().get();
    assert!(matches!(&wrong, Err(Error::Value(t)) if t.contains("<u8") && t.contains("<f4")), "{wrong:?}");
    let empty = libray::put(&Tensor::<i16>::default())?.get()?;
    assert_eq!((empty.shape(), empty.len()), (&[0][..], 0));
    let panicked = std::panic::catch_unwind(|| libray::put_with(&[1000], |_: &mut [u8]| panic!("while it fills")));
    assert!(panicked.is_err());
    Ok(())
}

#[cfg(feature = "ndarray")]
fn arrays() -> Test {
    let array = ndarray::Array2::from_shape_fn((200, 300), |(i, j)| i as f64 - j as f64);
    let tensor = libray::put(&Tensor::from(array.clone()))?.get()?;
    assert_eq!(tensor.view(), array.view().into_dyn());
    let turned = Tensor::from(array.clone().reversed_axes());
    assert_eq!(turned.view(), array.t().into_dyn());
    Ok(())
}

fn errors() -> Test {
    assert_eq!(checked_root::remote(4.0)?.get()?, 2.0);
    let error = checked_root::remote(-4.0)?.get().unwrap_err();
    let failure = error.failure().ok_or("no failure")?;
    assert_eq!((&*failure.language, &*failure.message), ("rust", "-4 has no root"));
    assert!(failure.function.ends_with("checked_root") && failure.type_name.contains("String"), "{failure:?}");
    assert!(error.to_string().contains("checked_root") && error.to_string().contains("-4 has no root"), "{error}");
    assert_eq!((error.code_name(), error.is_retryable()), ("RAY_TASK_FAILED", false));

    let error = asks_for_a_failure::remote()?.get().unwrap_err();
    let failure = error.failure().ok_or("no failure")?;
    assert_eq!(failure.message, "-1 has no root", "it goes through as it is");
    assert!(failure.function.ends_with("checked_root") && error.to_string().contains("asks_for_a_failure"), "{error}");

    let failed = checked_root::remote(-4.0)?;
    assert!(matches!(sum::remote(failed.cast::<Tensor<f64>>())?.get(), Err(Error::Task(_))), "of an argument");
    let missing = Function::new(Language::Rust, "", "no_such_function").call::<()>(Args::new())?.get();
    assert!(matches!(&missing, Err(Error::UnknownFunction(t)) if t.contains("no_such_function")), "{missing:?}");
    let few = Function::new(Language::Rust, "", "square").call::<i64>(Args::new())?.get().unwrap_err();
    assert!(few.to_string().contains("takes 1 argument"), "{few}");
    let wrong =
        Function::new(Language::Rust, "", "square").call::<i64>(Args::new().value("three")?)?.get().unwrap_err();
    assert!(wrong.to_string().contains("argument 'x'"), "{wrong}");
    let by_name = Function::new(Language::Rust, "geometry", "area").call::<f64>(Args::new().value(2.0)?.value(4.0)?)?;
    assert_eq!(by_name.get()?, 8.0);
    Ok(())
}

fn panics_are_errors() -> Test {
    let here = file!();
    for (kind, says) in [(0, "on purpose"), (1, "index out of bounds"), (2, "no text"), (3, "they differ")] {
        let before = pid::remote()?.get()?;
        let error = panics::remote(kind)?.get().unwrap_err();
        let failure = error.failure().ok_or("no failure")?;
        assert_eq!(failure.type_name, "panic");
        assert!(failure.message.contains(says), "{failure:?}");
        let text = error.to_string();
        let file = std::path::Path::new(here).file_name().and_then(|f| f.to_str()).unwrap_or(here);
        assert!(text.contains("panics") && text.contains("Rust") && text.contains(file), "{text}");
        assert!(failure.place.contains(':') && failure.stack.contains("panics"), "{failure:?}");
        let _ = before; // the worker lives on: the next task may run there
    }
    Ok(())
}

fn deaths_are_errors() -> Test {
    for how in 0..3 {
        let error = dies::with(TaskOptions::new().max_retries(0)).remote(how)?.get().unwrap_err();
        assert!(matches!(&error, Error::WorkerCrashed(t) if t.contains("dies")), "{how}: {error:?}");
        assert_eq!(square::remote(3)?.get()?, 9, "nobody else is hurt");
    }
    Ok(())
}

fn options() -> Test {
    let notes = Notes::remote()?;
    let tried = fails_at_first::with(TaskOptions::new().retry_on_error().max_retries(2));
    assert_eq!(tried.remote(Journal(notes.clone()))?.get()?, 2);
    assert_eq!(notes.lines()?.get()?, ["attempt 1", "attempt 2"]);
    let not_tried = fails_at_first::remote(Journal(notes))?.get();
    assert!(matches!(&not_tried, Err(Error::Task(f)) if f.message == "the first attempt"), "{not_tried:?}");
    let with_env = environment::with(TaskOptions::new().env_var("LIBRAY_RUST_TEST", "set"));
    assert_eq!(with_env.remote("LIBRAY_RUST_TEST")?.get()?.as_deref(), Some("set"));
    assert_eq!(environment::remote("LIBRAY_RUST_TEST")?.get()?, None);
    let named = checked_root::with(TaskOptions::new().name("a name for people")).remote(-1.0)?.get().unwrap_err();
    assert!(named.to_string().contains("a name for people"), "{named}");
    let waiting = pid::with(TaskOptions::new().resource("unobtainium", 1.0)).remote()?;
    assert!(matches!(waiting.get_timeout(Duration::from_millis(50)), Err(Error::TimedOut(_))));
    waiting.cancel()?;
    assert!(matches!(waiting.get(), Err(Error::Cancelled(_))));
    Ok(())
}

fn several_results() -> Test {
    let (quotient, rest) = divide::remote(17, 5)?;
    assert_eq!((quotient.get()?, rest.get()?), (3, 2));
    let (quotient, rest) = divide::remote(1, 0)?;
    assert!(quotient.get().is_err() && rest.get().is_err());
    let together = Function::new(Language::Rust, "", "divide").call::<(i64, i64)>(Args::new().value(17)?.value(5)?)?;
    assert_eq!(together.get()?, (3, 2));
    Ok(())
}

fn waiting() -> Test {
    let quick = libray::put(&1i64)?;
    let slow = pid::with(TaskOptions::new().resource("unobtainium", 1.0)).remote()?.cast::<i64>();
    assert!(quick.is_ready()? && !slow.is_ready()?);
    assert_eq!((quick.try_get()?, slow.try_get()?), (Some(1), None));
    let (ready, rest) = libray::wait(vec![slow.clone(), quick.clone()], 1, None)?;
    assert_eq!((ready, rest), (vec![quick.clone()], vec![slow.clone()]));
    let (ready, rest) = libray::wait(vec![slow.clone(), quick.clone()], 2, Some(Duration::ZERO))?;
    assert_eq!((ready.len(), rest.len()), (1, 1));
    assert!(matches!(libray::wait(vec![quick.clone(), quick], 1, None), Err(Error::InvalidArgument(_))));
    slow.cancel()?;
    Ok(())
}

fn streams() -> Test {
    let items: Result<Vec<_>, _> = count::remote(200)?.collect();
    assert_eq!(items?, (0..200).collect::<Vec<_>>());
    let mut failing = count_and_fail::remote(2)?;
    assert_eq!((failing.next().ok_or("")??, failing.next().ok_or("")??), (0, 1));
    assert!(matches!(failing.next(), Some(Err(Error::Task(f))) if f.message == "enough"));
    assert!(failing.next().is_none());
    let mut first: ObjectStream<u64> = count::with(TaskOptions::new().stream_window(2)).remote(u64::MAX)?;
    let reference = first.next_ref(None)?.ok_or("no item")?;
    assert_eq!(reference.get()?, 0);
    first.cancel()?;
    assert!(matches!(first.completed()?.get(), Err(Error::Cancelled(_))));
    let all = Function::new(Language::Rust, "", "count").call::<Vec<u64>>(Args::new().value(3)?)?;
    assert_eq!(all.get()?, [0, 1, 2], "a generator that is asked for one value gives a list");
    Ok(())
}

// A small executor: what tokio and the like do, in forty lines, so that the waker is seen at work on one thread and
// on many.

struct Signal(thread::Thread, std::sync::atomic::AtomicUsize);
impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.0.unpark();
    }
}

/// Polls all until they are done; how often it was woken.
fn run_all<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T>>>>) -> (Vec<T>, usize) {
    let signal = Arc::new(Signal(thread::current(), Default::default()));
    let waker = Waker::from(signal.clone());
    let mut context = Context::from_waker(&waker);
    let mut done = Vec::new();
    while !futures.is_empty() {
        let mut left = Vec::new();
        for mut future in futures {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(value) => done.push(value),
                Poll::Pending => left.push(future),
            }
        }
        futures = left;
        if !futures.is_empty() {
            thread::park();
        }
    }
    (done, signal.1.load(std::sync::atomic::Ordering::SeqCst))
}

fn futures() -> Test {
    let threads = || std::fs::read_dir("/proc/self/task").map(|d| d.count()).unwrap_or(0);
    let before = threads();
    let boxed = |i: i64| -> libray::Result<Pin<Box<dyn Future<Output = libray::Result<i64>>>>> {
        Ok(Box::pin(square::remote(i)?))
    };
    let (mut all, _) = run_all((0..2000).map(boxed).collect::<Result<_, _>>()?);
    all.sort_by_key(|r| *r.as_ref().unwrap_or(&-1));
    assert_eq!(all.into_iter().collect::<Result<Vec<_>, _>>()?, (0..2000).map(|i| i * i).collect::<Vec<_>>());
    assert!(threads() <= before + 2, "no thread per call");
    assert_eq!(later::remote(libray::put(&3i64)?)?.get()?, 12);

    // Given up before it is there: nothing is told to whoever is gone, and the next waits as if nothing had been.
    let slow = pid::with(TaskOptions::new().resource("unobtainium", 1.0)).remote()?;
    let waker = Waker::noop();
    let mut context = Context::from_waker(waker);
    let mut given_up = Box::pin(slow.clone());
    assert!(given_up.as_mut().poll(&mut context).is_pending());
    drop(given_up);
    let waits: Pin<Box<dyn Future<Output = libray::Result<u32>>>> = Box::pin(slow.clone());
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            slow.cancel()
        });
        let (ended, woken) = run_all(vec![waits]);
        assert!(matches!(&ended[..], [Err(Error::Cancelled(_))]) && woken >= 1, "{ended:?} {woken}");
    });
    Ok(())
}

/// On an executor of others: timers and tasks of libray in one select, and a future that is given up.
fn tokio_runs_it() -> Test {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let squares: Vec<_> = (0..100).map(square::remote).collect::<Result<_, _>>()?;
        let spawned: Vec<_> = squares.into_iter().map(tokio::spawn).collect();
        let mut sum = 0;
        for task in spawned {
            sum += task.await??;
        }
        assert_eq!(sum, 328_350);
        let slow = pid::with(TaskOptions::new().resource("unobtainium", 1.0)).remote()?;
        assert!(tokio::time::timeout(Duration::from_millis(20), &slow).await.is_err());
        slow.cancel()?;
        assert!(matches!((&slow).await, Err(Error::Cancelled(_))));
        Ok(())
    })
}

struct Next<'a>(&'a mut ObjectStream<u64>);
impl Future for Next<'_> {
    type Output = Option<libray::Result<u64>>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        futures_core::Stream::poll_next(Pin::new(&mut *self.0), context)
    }
}

fn async_streams() -> Test {
    let sum_of = |n: u64| async move {
        let mut stream = count::with(TaskOptions::new().stream_window(8)).remote(n)?;
        let mut sum = 0;
        while let Some(item) = Next(&mut stream).await {
            sum += item?;
        }
        Ok::<u64, Error>(sum)
    };
    let (sums, _) = run_all(vec![Box::pin(sum_of(100)), Box::pin(sum_of(1000))]);
    let mut sums = sums.into_iter().collect::<Result<Vec<_>, _>>()?;
    sums.sort_unstable();
    assert_eq!(sums, [4950, 499_500]);
    Ok(())
}

/// Values that were spilled to disk are awaited without stopping others.
fn spilled_values_are_awaited() -> Test {
    let large: Vec<_> =
        (0..12u8).map(|i| libray::put_with(&[8 << 20], |out: &mut [u8]| out.fill(i))).collect::<Result<_, _>>()?;
    let ask = |(i, r): (usize, ObjectRef<Tensor<u8>>)| -> Pin<Box<dyn Future<Output = libray::Result<bool>>>> {
        Box::pin(async move {
            let t = r.await?;
            Ok(usize::from(t[0]) == i && usize::from(t[t.len() - 1]) == i)
        })
    };
    let (all, _) = run_all(large.into_iter().enumerate().map(ask).collect());
    assert!(all.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().all(|right| right));
    Ok(())
}

fn recursion() -> Test {
    assert_eq!(fibonacci::remote(10)?.get()?, 55);
    Ok(())
}

fn cancelling() -> Test {
    let notes = Notes::remote()?;
    let running = waits::remote(Journal(notes.clone()))?;
    while notes.lines()?.get()?.is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    running.cancel()?;
    assert!(matches!(running.get(), Err(Error::Cancelled(_))));
    let never = pid::with(TaskOptions::new().resource("unobtainium", 1.0)).remote()?.cast::<i64>();
    let blocked = blocks_on::remote(vec![never.clone()])?;
    blocked.cancel()?; // its get ends
    assert!(matches!(blocked.get(), Err(Error::Cancelled(_))));
    let forced = blocks_on::with(TaskOptions::new().max_retries(3)).remote(vec![never.clone()])?;
    thread::sleep(Duration::from_millis(20));
    forced.cancel_by_force()?;
    assert!(matches!(forced.get(), Err(Error::WorkerCrashed(_) | Error::Cancelled(_))));
    never.cancel()?;
    let told = blocks_on::remote(vec![never])?.get(); // of another task's cancellation
    assert!(matches!(&told, Err(Error::Task(f)) if f.message.contains("cancelled")), "{told:?}");
    Ok(())
}

fn actors() -> Test {
    let counter = Counter::remote(10)?;
    let refs: Vec<_> = (1..=100).map(|i| counter.add(i)).collect::<Result<_, _>>()?;
    assert_eq!(refs[99].get()?, 10 + 5050);
    assert_eq!(libray::get_all(&refs)?[0], 11, "calls run in their order");
    assert_eq!(counter.add(square::remote(3)?)?.get()?, 5069);
    let small = Counter::remote(3)?;
    assert_eq!(small.countdown()?.collect::<Result<Vec<_>, _>>()?, [2, 1, 0]);
    let failed = counter.fail()?.get();
    assert!(matches!(&failed, Err(Error::Task(f)) if f.type_name.contains("ParseIntError")), "{failed:?}");
    assert!(counter.panic()?.get().is_err());
    assert_eq!(counter.add(1)?.get()?, 1001, "it lives after a panic");
    let unknown = counter.call::<()>("no_such_method", Args::new())?.get();
    assert!(matches!(&unknown, Err(Error::UnknownFunction(t)) if t.contains("countdown")), "{unknown:?}");
    assert_eq!(counter.name_of_self()?.get()?, counter.id().to_string());
    let negative = Counter::remote(-1)?.add(1)?.get();
    assert!(matches!(&negative, Err(Error::ActorDied(_, Some(f))) if f.message == "a negative start"), "{negative:?}");
    counter.kill()?;
    assert!(matches!(counter.add(1)?.get(), Err(Error::ActorDied(..))));
    let leaving = Counter::remote(5)?;
    assert_eq!(leaving.leave()?.get()?, 5);
    assert!(matches!(leaving.add(1)?.get(), Err(Error::ActorDied(t, _)) if t.contains("it had enough")));
    Ok(())
}

fn named_actors() -> Test {
    let service = Counter::with(ActorOptions::new().name("counter").detached()).remote(1)?;
    service.add(1)?.get()?;
    let found = CounterHandle::find("counter")?;
    assert_eq!((found.id(), found.add(1)?.get()?), (service.id(), 3));
    assert!(matches!(Counter::with(ActorOptions::new().name("counter")).remote(1), Err(Error::AlreadyExists(_))));
    let same = Counter::with(ActorOptions::new().name("counter").get_if_exists()).remote(1)?;
    assert_eq!(same.id(), service.id());
    drop((service, found, same));
    let found = CounterHandle::find("counter")?;
    assert_eq!(found.add(0)?.get()?, 3, "it is detached");
    found.kill()?;
    let end = Instant::now() + Duration::from_secs(20);
    while CounterHandle::find("counter").is_ok() && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(matches!(CounterHandle::find("counter"), Err(Error::NotFound(_))));
    let by_name = Function::new(Language::Rust, "", "Counter").create(&ActorOptions::new(), Args::new().value(20)?)?;
    assert_eq!(by_name.call::<i64>("add", Args::new().value(2)?)?.get()?, 22);
    Ok(())
}

fn restarts() -> Test {
    let counter = Counter::with(ActorOptions::new().max_restarts(1).max_task_retries(3)).remote(7)?;
    let first = counter.pid()?.get()?;
    let _ = counter.with(TaskOptions::new().max_retries(0)).crash()?.get();
    assert_ne!(counter.pid()?.get()?, first);
    assert_eq!(counter.add(0)?.get()?, 7, "its state begins anew");
    let _ = counter.with(TaskOptions::new().max_retries(0)).crash()?.get();
    assert!(matches!(counter.add(0)?.get(), Err(Error::ActorDied(..))));
    Ok(())
}

fn concurrent_actors() -> Test {
    let meeting = Meeting::with(ActorOptions::new().max_concurrency(4)).remote(4)?;
    for _ in 0..3 {
        let refs: Vec<_> = (0..4).map(|_| meeting.meet()).collect::<Result<_, _>>()?;
        assert_eq!(libray::get_all(&refs)?.into_iter().filter(|leader| *leader).count(), 1);
    }
    for _ in 0..50 {
        libray::get_all(&(0..20).map(|_| meeting.threads()).collect::<Result<Vec<_>, _>>()?)?;
    }
    assert_eq!(meeting.threads()?.get()?, 3, "beside the main thread: one for each call that may run, and no more");
    let refused = Counter::with(ActorOptions::new().max_concurrency(2)).remote(1);
    assert!(matches!(&refused, Err(Error::InvalidArgument(t)) if t.contains("concurrent")), "{refused:?}");
    Ok(())
}

fn groups() -> Test {
    use libray::{Placement, PlacementGroup, Strategy};
    let group = PlacementGroup::create(&[&[("CPU", 1.0)], &[("disk", 1.0)]], Strategy::Pack)?;
    group.wait(None)?;
    let inside = TaskOptions::new().placement(group.bundle(0));
    assert_eq!(square::with(inside).remote(3)?.get()?, 9);
    let node = TaskOptions::new().placement(Placement::node(libray::context()?.node).soft());
    assert_eq!(square::with(node).remote(3)?.get()?, 9);
    group.remove()?;
    assert!(matches!(group.wait(Some(Duration::ZERO)), Err(Error::NotFound(_))));
    let late = square::with(TaskOptions::new().placement(group.any_bundle())).remote(3).and_then(|r| r.get());
    assert!(late.is_err(), "{late:?}");
    Ok(())
}

fn key_value() -> Test {
    use libray::kv;
    assert_eq!(kv::get("test", b"k")?, None);
    let first = kv::put("test", b"k", b"1")?;
    assert_eq!(kv::get("test", b"k")?, Some((b"1".to_vec(), first)));
    let second = kv::put_if("test", b"k", b"2", first)?;
    assert!(second > first && matches!(kv::put_if("test", b"k", b"3", first), Err(Error::Conflict(_))));
    kv::put("test", b"other", b"")?;
    assert_eq!(kv::list("test", b"k")?, [b"k"]);
    assert!(
        matches!(kv::delete_if("test", b"k", first), Err(Error::Conflict(_))) && kv::delete_if("test", b"k", second)?
    );
    assert!(!kv::delete("test", b"k")? && kv::get("test", b"k")?.is_none());
    assert!(kv::delete("test", b"other")?);
    Ok(())
}

/// Gives back its arguments, as many results or items as are wanted, and the number of arguments for what is missing.
#[libray::remote]
fn echoes(call: &mut Call<'_>) -> Result<(), String> {
    for i in 0..call.len() {
        let (first, again) = (call.arg::<Vec<i64>>(i), call.arg::<Vec<i64>>(i));
        let value = first.map_err(|e| e.to_string())?;
        assert_eq!(Ok(&value), again.as_ref().map_err(ToString::to_string));
        let given = if call.is_stream() { call.yield_item(&value) } else { call.give(i as u32, &value) };
        given.map_err(|e| format!("{} of {}: {}", i, call.results(), e.code_name()))?;
    }
    Ok(())
}

/// Its second result is an error.
#[libray::remote]
fn half_good(call: &mut Call<'_>) {
    call.give(0, &1).unwrap();
    call.give_error(1, "this one is bad").unwrap();
    assert!(matches!(call.give(0, &2), Err(Error::WrongState(_))));
    assert!(matches!(call.arg::<i64>(call.len()), Err(Error::InvalidArgument(_))));
}

struct Anything(i64);

#[libray::remote]
impl Anything {
    pub fn new(call: &mut Call<'_>) -> Result<Self, Error> {
        Ok(Self((0..call.len()).map(|i| call.arg::<i64>(i)).sum::<Result<i64, _>>()?))
    }
    /// What it was made of, and each argument more, one after the other.
    pub fn sums(&mut self, call: &mut Call<'_>) -> libray::Result<()> {
        for i in 0..call.len() {
            self.0 += call.arg::<i64>(i)?;
            if call.is_stream() {
                call.yield_item(&self.0)?;
            } else {
                call.give(i as u32, &self.0)?;
            }
        }
        Ok(())
    }
}

fn calls_of_any_shape() -> Test {
    let long: Vec<i64> = (0..20_000).collect();
    let (short, stored) = (vec![1, 2], libray::put(&long)?);
    let args = || Args::new().value(&short)?.reference(&stored).value(&long);
    let all = echoes::function().with(TaskOptions::new().name("echo")).call_many::<Vec<i64>>(3, args()?)?;
    assert_eq!(libray::get_all(&all)?, [&short, &long, &long].map(Clone::clone));
    let items = echoes::function().stream::<Vec<i64>>(args()?)?.collect::<libray::Result<Vec<_>>>()?;
    assert_eq!(items, [&short, &long, &long].map(Clone::clone));
    assert!(echoes::function().call_many::<()>(0, args()?)?.is_empty());
    let error = echoes::function().call::<Vec<i64>>(args()?)?.get().unwrap_err();
    assert!(error.to_string().contains("1 of 1: RAY_INVALID_ARGUMENT"), "{error}");

    let both = half_good::function().call_many::<i64>(2, Args::new())?;
    assert_eq!(both[0].get()?, 1);
    assert!(matches!(both[1].get(), Err(Error::Task(f)) if f.text.contains("this one is bad")));

    let actor = Anything::class().create(&ActorOptions::new(), Args::new().value(1)?.value(2)?)?;
    let sums = AnythingHandle::from(actor).with(TaskOptions::new().name("sums")).sums();
    assert_eq!(libray::get_all(&sums.call_many::<i64>(2, Args::new().value(10)?.value(20)?)?)?, [13, 33]);
    assert_eq!(sums.call::<i64>(Args::new().value(0)?)?.get()?, 33);
    let items = sums.stream::<i64>(Args::new().value(1)?.value(1)?)?.collect::<libray::Result<Vec<_>>>()?;
    assert_eq!(items, [34, 35]);
    Ok(())
}

fn context_and_queries() -> Test {
    let here = libray::context()?;
    assert!(!here.is_worker && here.pid == std::process::id() && here.actor.is_nil());
    let task = whoami::remote()?;
    let (id, is_worker) = task.get()?;
    assert!(is_worker && id.len() == 48 && id != here.task.to_string());
    let resources: BTreeMap<String, f64> = libray::query("resources")?;
    assert_eq!((resources.get("CPU"), resources.get("disk")), (Some(&2.0), Some(&1.0)));
    assert!(matches!(libray::query::<()>("nonsense"), Err(Error::InvalidArgument(_))));
    assert!(libray::task::gpus().is_empty() && libray::task::attempt() == 1 && !libray::task::is_cancelled());
    assert!(matches!(libray::task::actor(), Err(Error::WrongState(_))));
    Ok(())
}

fn c_functions() -> Test {
    let pow = Function::of_library("libm.so.6", "pow", "f64(f64,f64)");
    let root = pow.call::<f64>(Args::new().value(2.0)?.value(0.5)?)?;
    assert_eq!(root.get()?, std::f64::consts::SQRT_2);
    let wrong = Function::of_library("libm.so.6", "pow", "f64(f65)").call::<f64>(Args::new());
    assert!(matches!(&wrong, Err(Error::InvalidArgument(t)) if t.contains("f65")), "{wrong:?}");
    Ok(())
}

fn threads_share_it() -> Test {
    thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|t| {
                scope.spawn(move || -> libray::Result<i64> {
                    let refs: Vec<_> = (0..200).map(|i| square::remote(i + t)).collect::<Result<_, _>>()?;
                    Ok(libray::get_all(&refs)?.iter().sum())
                })
            })
            .collect();
        for (t, run) in (0i64..).zip(runs) {
            let sum = run.join().map_err(|_| "a thread panicked")??;
            assert_eq!(sum, (0..200).map(|i| (i + t) * (i + t)).sum::<i64>());
        }
        Ok(())
    })
}

/// Memory of this process that is not shared, in KB, and its open descriptors.
fn taken() -> Result<(u64, usize), Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let own = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    Ok((own.trim().trim_end_matches(" kB").parse()?, std::fs::read_dir("/proc/self/fd")?.count()))
}

/// Each way to be told, thousands of times, some of them given up: nothing stays.
fn nothing_piles_up() -> Test {
    let round = || -> Test {
        for _ in 0..20 {
            let refs: Vec<_> = (0..1000).map(square::remote).collect::<Result<_, _>>()?;
            libray::get_all(&refs)?;
        }
        let futures = (0..1000).map(|i| -> libray::Result<Pin<Box<dyn Future<Output = _>>>> {
            let mut given_up = Box::pin(square::remote(i)?);
            let _ = given_up.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            Ok(Box::pin(square::remote(i)?))
        });
        run_all(futures.collect::<Result<Vec<_>, _>>()?);
        for i in 0..100 {
            let _ = count::remote(3)?.collect::<Result<Vec<_>, _>>()?;
            let _unread = count::remote(1000)?;
            let boxed = libray::put(&vec![libray::put(&Tensor::from(vec![i as u8; 10_000]))?])?;
            assert_eq!(usize::from(boxed.get()?[0].get()?[9_999]), i);
            assert!(checked_root::remote(-1.0)?.get().is_err());
        }
        Ok(())
    };
    for _ in 0..3 {
        round()?;
    }
    let before = taken()?;
    for _ in 0..6 {
        round()?;
    }
    let after = taken()?;
    assert!(after.0 < before.0 + 600 && after.1 <= before.1, "{before:?} -> {after:?}");
    Ok(())
}

/// A second runtime in this process, after the first; handles of the first say that they are of no use.
fn again(first: libray::Runtime) -> Test {
    let old = libray::put(&1i64)?;
    let tensor = libray::put(&Tensor::from(vec![7u8; 100_000]))?.get()?;
    assert!(matches!(libray::init(), Err(Error::WrongState(_))), "one at a time");
    let session = first.session_dir();
    assert!(session.is_dir());
    first.shutdown(Some(Duration::from_secs(10)))?;
    assert!(!libray::is_initialized() && matches!(libray::put(&1), Err(Error::WrongState(_))));
    let second = libray::Config::new().num_cpus(1.0).store_bytes(64 << 20).init()?;
    assert_eq!(square::remote(5)?.get()?, 25);
    assert!(old.get().is_err());
    assert_eq!(tensor[99_999], 7, "what was got can still be read");
    let (ended, _) = run_all::<libray::Result<u32>>(vec![Box::pin(pid::remote()?)]);
    assert!(ended[0].is_ok());
    drop(second);
    Ok(())
}

fn main() {
    let wanted = std::env::args().nth(1).filter(|a| !a.starts_with('-'));
    let config = libray::Config::new().num_cpus(2.0).resource("disk", 1.0).store_bytes(64 << 20).job_name("rust tests");
    let ray = config.init().unwrap_or_else(|e| panic!("{e}"));
    let tests: &[Entry] = &[
        ("tasks", tasks),
        ("values", values),
        ("tensors", tensors),
        #[cfg(feature = "ndarray")]
        ("arrays", arrays),
        ("errors", errors),
        ("panics_are_errors", panics_are_errors),
        ("deaths_are_errors", deaths_are_errors),
        ("options", options),
        ("several_results", several_results),
        ("waiting", waiting),
        ("streams", streams),
        ("futures", futures),
        ("tokio_runs_it", tokio_runs_it),
        ("async_streams", async_streams),
        ("spilled_values_are_awaited", spilled_values_are_awaited),
        ("recursion", recursion),
        ("cancelling", cancelling),
        ("actors", actors),
        ("named_actors", named_actors),
        ("restarts", restarts),
        ("concurrent_actors", concurrent_actors),
        ("groups", groups),
        ("key_value", key_value),
        ("calls_of_any_shape", calls_of_any_shape),
        ("context_and_queries", context_and_queries),
        ("c_functions", c_functions),
        ("threads_share_it", threads_share_it),
        ("nothing_piles_up", nothing_piles_up),
    ];
    let (mut passed, mut failed) = (0, 0);
    let mut run = |name: &str, test: &mut dyn FnMut() -> Test| {
        if wanted.as_ref().is_some_and(|w| !name.contains(w.as_str())) {
            return;
        }
        let began = Instant::now();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
        let verdict = match outcome {
            Ok(Ok(())) => "ok".to_owned(),
            Ok(Err(error)) => format!("FAILED: {error}"),
            Err(_) => "FAILED: it panicked".to_owned(),
        };
        *(if verdict == "ok" { &mut passed } else { &mut failed }) += 1;
        println!("test {name} ... {verdict} ({} ms)", began.elapsed().as_millis());
    };
    for (name, test) in tests {
        run(name, &mut || test());
    }
    let mut ray = Some(ray);
    run("again", &mut || ray.take().map_or(Ok(()), again));
    drop(ray);
    println!("{passed} passed, {failed} failed, 0 skipped");
    std::process::exit(i32::from(failed > 0));
}
