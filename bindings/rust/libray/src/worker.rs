//! Being a worker: what the functions of a program are registered as, and the loop that runs them.
//!
//! The loop runs on the thread that called `init`, which in a worker never returns. An actor that runs several calls
//! at once has a thread for each; nothing else does. Whatever a function does, its caller is told: a panic is caught
//! and becomes the error of its task; what ends the process is told by the node.
#![allow(missing_docs)] // what is public here is for the code that `#[remote]` makes, by way of `__private`
use crate::codec;
use crate::error::{check, Error, FailureMap, Result};
use crate::raw::Buffer;
use libray_sys as sys;
use serde::de::DeserializeOwned;
use serde::Serialize;
use std::any::{type_name, Any};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Display;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

// ---- what a program registers -------------------------------------------------------------------------------------

/// A function or a class of this program; one exists for each `#[remote]`, made before `main`.
pub struct Registration {
    path: &'static str,
    kind: Kind,
}

enum Kind {
    Function(Run),
    Class(Class),
}

/// Runs a function with the arguments of a call, and gives its results.
pub type Run = fn(&mut Call<'_>) -> Outcome;
/// Runs a method on an actor's state.
pub type Method = fn(&mut Call<'_>, State<'_>) -> Outcome;
/// What becomes of a call.
pub type Outcome = std::result::Result<(), Stop>;

#[derive(Clone, Copy)]
struct Class {
    create: fn(&mut Call<'_>) -> std::result::Result<Instance, Stop>,
    methods: &'static [(&'static str, Method)],
    /// Its concurrency groups beside the default one, and how many calls run at once in each.
    groups: &'static [(&'static str, u32)],
}

inventory::collect!(Registration);

impl Registration {
    pub const fn function(path: &'static str, run: Run) -> Self {
        Self { path, kind: Kind::Function(run) }
    }

    pub const fn class(
        path: &'static str,
        create: fn(&mut Call<'_>) -> std::result::Result<Instance, Stop>,
        methods: &'static [(&'static str, Method)],
        groups: &'static [(&'static str, u32)],
    ) -> Self {
        Self { path, kind: Kind::Class(Class { create, methods, groups }) }
    }

    /// The name for other languages: without the crate.
    fn short(&self) -> &'static str {
        self.path.split_once("::").map_or(self.path, |(_, rest)| rest)
    }
}

/// Refuses a program in which two functions have one name.
pub(crate) fn check_names() -> Result<()> {
    let mut seen = HashMap::new();
    for registration in inventory::iter::<Registration> {
        if seen.insert(registration.path, ()).is_some() {
            return Err(Error::InvalidArgument(format!(
                "two remote functions or classes are called '{}': give one another name, #[libray::remote(name = \"...\")]",
                registration.path
            )));
        }
    }
    Ok(())
}

/// By whole path, else by the path without the crate if only one has it.
fn find(name: &str) -> std::result::Result<&'static Registration, String> {
    let all = || inventory::iter::<Registration>.into_iter();
    if let Some(exact) = all().find(|r| r.path == name) {
        return Ok(exact);
    }
    let mut candidates = all().filter(|r| r.short() == name);
    match (candidates.next(), candidates.next()) {
        (Some(one), None) => Ok(one),
        (Some(one), Some(other)) => {
            Err(format!("'{name}' is '{}' or '{}' in this Rust program: say the whole path", one.path, other.path))
        }
        _ => Err(format!(
            "this Rust program has no remote function or class '{name}': mark it with #[libray::remote] (a module's is \
             'module::{name}')"
        )),
    }
}

// ---- an actor's state ---------------------------------------------------------------------------------------------

/// The state of the actor that this process is.
pub enum Instance {
    /// Its methods run one at a time, on one thread.
    Exclusive(Box<dyn Any>),
    /// Its methods run at once, on threads.
    Shared(Arc<dyn Any + Send + Sync>),
}

impl Instance {
    pub fn exclusive<A: 'static>(actor: A) -> Self {
        Self::Exclusive(Box::new(actor))
    }

    pub fn shared<A: Send + Sync + 'static>(actor: A) -> Self {
        Self::Shared(Arc::new(actor))
    }
}

/// It, as a method sees it.
pub enum State<'a> {
    Exclusive(&'a mut dyn Any),
    Shared(&'a (dyn Any + Send + Sync)),
}

impl<'a> State<'a> {
    pub fn exclusive<A: 'static>(self) -> &'a mut A {
        match self {
            Self::Exclusive(actor) => actor.downcast_mut().expect("the class of this process's actor"),
            Self::Shared(_) => unreachable!("the class is not concurrent"),
        }
    }

    pub fn shared<A: 'static>(self) -> &'a A {
        match self {
            Self::Shared(actor) => actor.downcast_ref().expect("the class of this process's actor"),
            Self::Exclusive(_) => unreachable!("the class is concurrent"),
        }
    }
}

// ---- one call -----------------------------------------------------------------------------------------------------

/// Why a call ends without a result.
pub struct Stop {
    code: sys::ray_code,
    type_name: String,
    message: String,
    place: String,
    stack: String,
    cause: Option<Box<FailureMap>>,
    /// A failure that came from another task, and goes on as it is.
    passed: Option<Box<FailureMap>>,
}

impl Stop {
    fn new(code: sys::ray_code, type_name: &str, message: String) -> Self {
        Self {
            code,
            type_name: type_name.to_owned(),
            message,
            place: String::new(),
            stack: String::new(),
            cause: None,
            passed: None,
        }
    }

    /// What libray itself refused, in the name of the function. That a task was cancelled which this one waited for
    /// is a failure like others: only a cancellation of its own ends it as cancelled.
    fn of(error: &Error) -> Self {
        let cancelled = matches!(error, Error::Cancelled(_)) && crate::task::is_cancelled();
        let code = if cancelled { sys::RAY_CANCELLED } else { sys::RAY_TASK_FAILED };
        let stop = Self::new(code, "libray::Error", error.to_string());
        match error {
            Error::Task(failure) => {
                let map: FailureMap = (&**failure).into();
                let (type_name, message) = (map.type_name.clone(), map.message.clone());
                Self { type_name, message, passed: Some(Box::new(map)), ..stop }
            }
            _ => Self { cause: error.failure().map(|f| Box::new(f.into())), ..stop },
        }
    }

    /// Of a generator: that nobody wants more ends it as cancelled.
    fn of_stream(error: &Error) -> Self {
        let stop = Self::of(error);
        if let Error::Cancelled(_) = error {
            return Self { code: sys::RAY_CANCELLED, ..stop };
        }
        stop
    }

    /// An `Err` of the user's.
    fn of_err<E: Display + 'static>(error: &E) -> Self {
        let any: &dyn Any = error;
        let boxed = any.downcast_ref::<Box<dyn std::error::Error>>().map(|b| &**b as &dyn std::error::Error);
        let sent =
            any.downcast_ref::<Box<dyn std::error::Error + Send + Sync>>().map(|b| &**b as &dyn std::error::Error);
        let ours = any.downcast_ref::<Error>().or_else(|| boxed.or(sent)?.downcast_ref());
        if let Some(error) = ours {
            return Self::of(error);
        }
        let behind = std::iter::successors(boxed.or(sent), |e| e.source());
        let behind = behind.filter_map(|e| e.downcast_ref::<Error>()).find_map(Error::failure);
        let cause = behind.map(|f| Box::new(f.into()));
        Self { cause, ..Self::new(sys::RAY_TASK_FAILED, type_name::<E>(), format!("{error:#}")) }
    }
}

/// A task that this process runs, as the code that `#[remote]` makes sees it.
pub struct Call<'a> {
    task: *mut sys::ray_task,
    info: &'a sys::ray_task_info,
    args: &'a [sys::ray_buffer],
}

impl Call<'_> {
    /// For a function that takes the whole call.
    pub fn whole(&mut self) -> crate::Call<'_> {
        crate::Call::new(self.task, self.info, self.args)
    }

    /// Refuses another number of arguments.
    pub fn takes(&self, n: usize) -> Outcome {
        if self.args.len() == n {
            return Ok(());
        }
        let (s, are) = (if n == 1 { "" } else { "s" }, if self.args.len() == 1 { "was" } else { "were" });
        let message = format!("it takes {n} argument{s}, {} {are} given", self.args.len());
        Err(Stop::new(sys::RAY_TASK_FAILED, "arguments", message))
    }

    /// The argument of this index.
    pub fn arg<T: DeserializeOwned>(&mut self, index: usize, name: &str) -> std::result::Result<T, Stop> {
        let buffer = &self.args[index];
        let value = if buffer.n_oob > 0 || buffer.size > 4096 {
            let mut own = Buffer::empty();
            // SAFETY: this thread runs the task, and takes each argument once.
            check(|e| unsafe { sys::ray_task_take_arg(self.task, index, own.as_mut(), e) })
                .and_then(|()| codec::decode(own))
        } else {
            // SAFETY: arguments stay until the task is finished, and small ones have nothing that could be kept.
            unsafe { codec::decode_borrowed(buffer) }
        };
        value.map_err(|e| Stop::new(sys::RAY_TASK_FAILED, "arguments", format!("argument '{name}': {e}")))
    }

    /// Its one result.
    pub fn give<T: Serialize>(&mut self, value: &T) -> Outcome {
        if self.info.is_stream {
            return self.offer(value);
        }
        if size_of::<T>() == 0 && type_name::<T>() == "()" {
            return Ok(()); // a result that is not given is nil
        }
        if self.info.num_returns > 1 {
            let message = format!("its caller wants {} results, it gives one", self.info.num_returns);
            return Err(Stop::new(sys::RAY_TASK_FAILED, "results", message));
        }
        self.give_nth(0, value)
    }

    /// One of several results.
    pub fn give_nth<T: Serialize>(&mut self, index: u32, value: &T) -> Outcome {
        let task = self.task;
        let encoded = codec::encode(value).map_err(|e| Stop::of(&e))?;
        // SAFETY: this thread runs the task; the value's views are good during the call.
        check(|e| encoded.with_value(|v| unsafe { sys::ray_task_return(task, index, v, e) })).map_err(|e| Stop::of(&e))
    }

    /// Whether the caller wants the results apart.
    pub fn wants(&self, results: u32) -> bool {
        self.info.num_returns == results && !self.info.is_stream
    }

    /// The value, or the end of the call.
    pub fn ok<T, E: Display + 'static>(&self, result: std::result::Result<T, E>) -> std::result::Result<T, Stop> {
        result.map_err(|e| Stop::of_err(&e))
    }

    /// The items of a generator, each made when there is room for it.
    pub fn give_all<T: Serialize>(&mut self, items: impl Iterator<Item = T>) -> Outcome {
        if !self.info.is_stream {
            return self.give(&items.collect::<Vec<_>>());
        }
        self.offer_all(items.map(Ok))
    }

    /// The items of a generator that may fail.
    pub fn give_all_ok<T: Serialize, E: Display + 'static>(
        &mut self,
        items: impl Iterator<Item = std::result::Result<T, E>>,
    ) -> Outcome {
        let mut items = items.map(|item| item.map_err(|e| Stop::of_err(&e)));
        if !self.info.is_stream {
            let all = items.collect::<std::result::Result<Vec<_>, _>>()?;
            return self.give(&all);
        }
        self.offer_all(&mut items)
    }

    fn offer_all<T: Serialize>(&mut self, mut items: impl Iterator<Item = std::result::Result<T, Stop>>) -> Outcome {
        loop {
            // SAFETY: this thread runs the task.
            check(|e| unsafe { sys::ray_task_await_room(self.task, -1, e) }).map_err(|e| Stop::of_stream(&e))?;
            match items.next() {
                Some(item) => self.offer(&item?)?,
                None => return Ok(()),
            }
        }
    }

    fn offer<T: Serialize>(&mut self, value: &T) -> Outcome {
        let task = self.task;
        let encoded = codec::encode(value).map_err(|e| Stop::of(&e))?;
        // SAFETY: this thread runs the task; the value's views are good during the call.
        check(|e| encoded.with_value(|v| unsafe { sys::ray_task_yield(task, v, -1, e) }))
            .map_err(|e| Stop::of_stream(&e))
    }
}

/// Drives a future on this thread: the functions that are `async`.
pub fn block_on<F: std::future::Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => thread::park(),
        }
    }
}

// ---- panics -------------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Panic {
    place: String,
    stack: String,
}

thread_local! {
    static LAST_PANIC: RefCell<Option<Panic>> = const { RefCell::new(None) };
    static RUNNING: Cell<*mut sys::ray_task> = const { Cell::new(ptr::null_mut()) };
}

/// The task that this thread runs; null if it runs none.
pub(crate) fn running() -> *mut sys::ray_task {
    RUNNING.get()
}

/// Notes where each panic is, before the program's own hook says it on standard error.
fn note_panics() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let stack = Backtrace::force_capture().to_string();
        LAST_PANIC.set(Some(Panic { place, stack }));
        before(info);
    }));
}

fn stop_of_panic(payload: &(dyn Any + Send)) -> Stop {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let message =
        text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a value of no text".into());
    let Panic { place, stack } = LAST_PANIC.take().unwrap_or_default();
    Stop { place, stack, ..Stop::new(sys::RAY_TASK_FAILED, "panic", message) }
}

/// Runs the user's code; a panic ends the call and nothing else.
fn guarded<R>(f: impl FnOnce() -> std::result::Result<R, Stop>) -> std::result::Result<R, Stop> {
    panic::catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        let stop = stop_of_panic(&*payload);
        // The payload is the user's, and its end may panic as well.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(payload)));
        Err(stop)
    })
}

// ---- running ------------------------------------------------------------------------------------------------------

/// A text of the task, borrowed from it.
///
/// # Safety
/// The view is one that the library handed out for a task that is not finished.
unsafe fn view<'a>(text: sys::ray_str) -> &'a str {
    // SAFETY: the caller's promise; texts are UTF-8, what is not is empty.
    std::str::from_utf8(unsafe { crate::error::slice(text.data.cast(), text.size) }).unwrap_or_default()
}

/// A task that was taken and is to be finished.
struct Task(*mut sys::ray_task);
// SAFETY: a task may be finished on another thread than the one that took it, if they do not overlap; it is moved.
unsafe impl Send for Task {}

impl Task {
    fn info(&self) -> sys::ray_task_info {
        let mut info = sys::ray_task_info::default();
        // SAFETY: the task is ours; a failure leaves zeros.
        unsafe { sys::ray_task_get_info(self.0, &mut info) };
        info
    }

    /// Runs `f` on the arguments, and finishes the task by what came of it.
    fn run(self, info: &sys::ray_task_info, f: impl FnOnce(&mut Call<'_>) -> Outcome) {
        let mut args = ptr::null();
        // SAFETY: this thread runs the task; its arguments stay until it is finished.
        let args = unsafe {
            let n = sys::ray_task_args(self.0, &mut args);
            if n == 0 {
                &[][..]
            } else {
                std::slice::from_raw_parts(args, n)
            }
        };
        RUNNING.set(self.0);
        let outcome = guarded(|| f(&mut Call { task: self.0, info, args }));
        RUNNING.set(ptr::null_mut());
        let code = match outcome {
            Ok(()) => sys::RAY_OK,
            Err(stop) => self.fail(info, stop),
        };
        // SAFETY: it is consumed here.
        unsafe { sys::ray_task_finish(self.0, code) };
    }

    /// Says why; the code to finish with.
    fn fail(&self, info: &sys::ray_task_info, stop: Stop) -> sys::ray_code {
        // SAFETY: the info is this task's.
        let (function, method) = unsafe { (view(info.function), view(info.method)) };
        let function = if method.is_empty() { function.to_owned() } else { format!("{function}.{method}") };
        let one_line = stop.message.lines().map(str::trim).collect::<Vec<_>>().join(", ");
        let place = if stop.place.is_empty() { String::new() } else { format!(" at {}", stop.place) };
        let text = format!("{}: {one_line} (Rust function '{function}'{place})", stop.type_name);
        let own = || FailureMap {
            language: "rust".into(),
            type_name: stop.type_name,
            message: stop.message,
            stack: stop.stack,
            function,
            place: stop.place,
            pid: std::process::id(),
            cause: stop.cause,
            private: None,
        };
        let payload = stop.passed.map_or_else(own, |map| *map);
        let payload = rmp_serde::to_vec_named(&payload).unwrap_or_default(); // strings and numbers: it does not fail
        let value = sys::ray_value {
            data: payload.as_ptr().cast(),
            size: payload.len(),
            format: sys::RAY_FMT_MSGPACK,
            ..Default::default()
        };
        // SAFETY: the views outlive the call.
        unsafe { sys::ray_task_fail(self.0, sys::text(&text), &value) };
        stop.code
    }
}

/// Keys of functions are digests already.
#[derive(Default)]
struct Digest(u64);
impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = self.0 << 8 | u64::from(*b));
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

struct Worker {
    runtime: *mut sys::ray_runtime,
    /// What the functions of these keys are, resolved once.
    functions: HashMap<u64, std::result::Result<&'static Registration, String>, BuildHasherDefault<Digest>>,
    actor: Option<(Class, Instance)>,
    /// How many calls of the actor run at once.
    at_once: u32,
}

/// The next task; `None` when the node ends this worker.
fn next(runtime: *mut sys::ray_runtime) -> Result<Option<Task>> {
    next_in(runtime, 0)
}

/// The next call of a concurrency group.
fn next_in(runtime: *mut sys::ray_runtime, group: u32) -> Result<Option<Task>> {
    let mut task = ptr::null_mut();
    let mut error = ptr::null_mut();
    // SAFETY: the runtime is this process's.
    match unsafe { sys::ray_worker_next_in(runtime, group, -1, &mut task, &mut error) } {
        sys::RAY_OK => Ok(Some(Task(task))),
        code => match Error::take(code, error) {
            Error::Cancelled(_) => Ok(None),
            other => Err(other),
        },
    }
}

impl Worker {
    /// Runs tasks until the node ends this worker.
    fn run(&mut self) -> Result<()> {
        while let Some(task) = next(self.runtime)? {
            self.execute(task);
            if let Some((class, Instance::Shared(actor))) = &self.actor {
                if self.at_once > 1 || !class.groups.is_empty() {
                    return Calls::serve(self.runtime, *class, actor, self.at_once);
                }
            }
        }
        Ok(())
    }

    fn execute(&mut self, task: Task) {
        let info = task.info();
        if info.kind == sys::RAY_KIND_ACTOR_CALL {
            return self.call(task, &info);
        }
        let key = info.function_key;
        let found = match self.functions.get(&key) {
            Some(found) => found,
            None => match definition(task.0) {
                Ok(definition) => self.functions.entry(key).or_insert_with(|| resolve(&definition)),
                // Of this task alone: it was cancelled meanwhile, or the node did not answer. The next one asks again.
                Err(error) => return task.run(&info, |_| Err(Stop::of(&error))),
            },
        };
        match found {
            Ok(Registration { kind: Kind::Function(run), .. }) if info.kind == sys::RAY_KIND_TASK => {
                let run = *run;
                task.run(&info, run);
            }
            Ok(Registration { kind: Kind::Class(class), .. }) if info.kind == sys::RAY_KIND_ACTOR_CREATE => {
                let class = *class;
                let (mut made, runtime) = (None, self.runtime);
                self.at_once = info.max_concurrency.max(1);
                task.run(&info, |call| {
                    let instance = (class.create)(call)?;
                    class.set_groups(runtime, info.max_concurrency.max(1)).map_err(|e| Stop::of(&e))?;
                    made = Some(instance);
                    Ok(())
                });
                self.actor = made.map(|instance| (class, instance));
            }
            Ok(registration) => {
                let (is, wanted) = match registration.kind {
                    Kind::Function(_) => ("a function", "an actor class"),
                    Kind::Class(_) => ("an actor class", "a function"),
                };
                let message =
                    format!("'{}' is {is} of this Rust program, and {wanted} was asked for", registration.path);
                unknown(task, &info, message);
            }
            Err(message) => {
                let message = message.clone();
                unknown(task, &info, message);
            }
        }
    }

    fn call(&mut self, task: Task, info: &sys::ray_task_info) {
        let Some((class, instance)) = &mut self.actor else {
            return unknown(task, info, "this worker is no actor".into());
        };
        match (class.method(info), instance) {
            (Err(message), _) => unknown(task, info, message),
            (Ok(method), Instance::Shared(actor)) => task.run(info, |call| method(call, State::Shared(&**actor))),
            (Ok(method), Instance::Exclusive(actor)) => {
                task.run(info, |call| method(call, State::Exclusive(&mut **actor)));
            }
        }
    }
}

impl Class {
    /// Tells the node how many calls of each group run at once; in the constructor.
    fn set_groups(&self, runtime: *mut sys::ray_runtime, at_once: u32) -> Result<()> {
        if self.groups.is_empty() {
            return Ok(());
        }
        let limits: Vec<u32> = std::iter::once(at_once).chain(self.groups.iter().map(|(_, limit)| *limit)).collect();
        // SAFETY: the runtime is this process's, and the limits outlive the call.
        check(|e| unsafe { sys::ray_worker_set_groups(runtime, limits.as_ptr(), limits.len(), e) })
    }

    /// The method that a call is for.
    fn method(&self, info: &sys::ray_task_info) -> std::result::Result<Method, String> {
        // SAFETY: the info is that of a task that is not finished.
        let name = unsafe { view(info.method) };
        self.methods.iter().find(|(n, _)| *n == name).map(|(_, method)| *method).ok_or_else(|| {
            let names: Vec<_> = self.methods.iter().map(|(n, _)| *n).collect();
            format!("the actor has no method '{name}'; it has {}", names.join(", "))
        })
    }
}

/// What the task's function was defined as; may ask the node.
fn definition(task: *mut sys::ray_task) -> Result<Buffer> {
    let mut buffer = Buffer::empty();
    // SAFETY: this thread runs the task.
    check(|e| unsafe { sys::ray_task_definition(task, buffer.as_mut(), e) })?;
    Ok(buffer)
}

/// The function that a definition names.
fn resolve(definition: &Buffer) -> std::result::Result<&'static Registration, String> {
    let name: std::result::Result<(String, String, String), _> = rmp_serde::from_slice(definition.data());
    match name {
        Ok((mark, container, member)) if mark == "libray-name" && container.is_empty() => find(&member),
        Ok((mark, container, member)) if mark == "libray-name" => find(&format!("{container}::{member}")),
        _ => Err("its definition is not a name, and Rust functions are called by name".into()),
    }
}

fn unknown(task: Task, info: &sys::ray_task_info, message: String) {
    task.run(info, |_| Err(Stop::new(sys::RAY_UNKNOWN_FUNCTION, "unknown function", message)));
}

// ---- several calls at once ----------------------------------------------------------------------------------------

/// The calls of one concurrency group of an actor that runs several at once. Each of its threads takes calls for itself,
/// so that one that has ended its call is there for the next; whoever takes one starts another thread if nobody else waits
/// for calls.
struct Calls {
    runtime: usize,
    group: u32,
    class: Class,
    actor: Arc<dyn Any + Send + Sync>,
    /// Threads at most, the main thread not counted.
    limit: usize,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    /// Threads that wait for a call.
    free: AtomicUsize,
}

impl Calls {
    /// Runs calls, those of the default group on this thread too, until the node ends this worker and none runs any more.
    fn serve(
        runtime: *mut sys::ray_runtime,
        class: Class,
        actor: &Arc<dyn Any + Send + Sync>,
        at_once: u32,
    ) -> Result<()> {
        let limits = std::iter::once(at_once - 1).chain(class.groups.iter().map(|(_, limit)| *limit));
        let groups: Vec<_> = (0..)
            .zip(limits)
            .map(|(group, limit)| {
                Arc::new(Self {
                    runtime: runtime as usize,
                    group,
                    class,
                    actor: actor.clone(),
                    limit: limit as usize,
                    threads: Mutex::default(),
                    free: AtomicUsize::new(0),
                })
            })
            .collect();
        for calls in &groups[1..] {
            calls.add_thread().map_err(|e| Error::Internal(format!("no thread for a concurrency group: {e}")))?;
        }
        let result = groups[0].run();
        groups.iter().for_each(|calls| calls.join());
        result
    }

    fn join(&self) {
        loop {
            // One that is joined may have started another before.
            let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
            if threads.is_empty() {
                return;
            }
            threads.into_iter().for_each(|thread| drop(thread.join()));
        }
    }

    fn run(self: &Arc<Self>) -> Result<()> {
        loop {
            self.free.fetch_add(1, Ordering::AcqRel);
            let task = next_in(self.runtime as *mut _, self.group);
            let others = self.free.fetch_sub(1, Ordering::AcqRel) - 1;
            let Some(task) = task? else { return Ok(()) };
            if others == 0 {
                let _ = self.add_thread(); // without memory for one, calls wait for those that there are
            }
            let info = task.info();
            match self.class.method(&info) {
                Ok(method) => task.run(&info, |call| method(call, State::Shared(&*self.actor))),
                Err(message) => unknown(task, &info, message),
            }
        }
    }

    /// Unless there are as many as calls may run.
    fn add_thread(self: &Arc<Self>) -> std::io::Result<()> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.len() >= self.limit {
            return Ok(());
        }
        let calls = self.clone();
        threads.push(thread::Builder::new().name("libray-call".into()).stack_size(8 << 20).spawn(move || {
            if let Err(error) = calls.run() {
                eprintln!("libray worker: {error}");
            }
        })?);
        Ok(())
    }
}

// ---- the process --------------------------------------------------------------------------------------------------

/// Serves tasks until the node ends this worker, then ends the process.
pub(crate) fn serve(runtime: *mut sys::ray_runtime) -> ! {
    note_panics();
    let mut worker = Worker { runtime, functions: HashMap::default(), actor: None, at_once: 1 };
    let result = worker.run();
    if let Some((_, instance)) = worker.actor.take() {
        // SAFETY: the runtime is this process's. From here on the node's time for an actor's end runs.
        unsafe { sys::ray_worker_exit(runtime, sys::text("it has ended by its own will"), ptr::null_mut()) };
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(instance)));
    }
    if let Err(error) = &result {
        eprintln!("libray worker: {error}");
    }
    // SAFETY: the last use of it.
    unsafe { sys::ray_runtime_release(runtime) };
    std::process::exit(i32::from(result.is_err()));
}

/// A handle of the actor that this process is.
pub(crate) fn this_actor() -> Result<crate::ActorHandle> {
    let runtime = crate::runtime::handle()?;
    let mut out = ptr::null_mut();
    // SAFETY: the runtime is this process's.
    check(|e| unsafe { sys::ray_worker_actor(runtime, &mut out, e) })?;
    Ok(crate::ActorHandle::from_raw(crate::raw::RawActor::from_owned(out)))
}
