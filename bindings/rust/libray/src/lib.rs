//! Call a function and get a future; the function runs in another process. Give futures to other functions, keep
//! state in actors, wait for whatever is ready first.
//!
//! ```
//! #[libray::remote]
//! fn square(x: i64) -> i64 {
//!     x * x
//! }
//!
//! struct Counter {
//!     total: i64,
//! }
//!
//! #[libray::remote]
//! impl Counter {
//!     pub fn new() -> Self {
//!         Counter { total: 0 }
//!     }
//!     pub fn add(&mut self, x: i64) -> i64 {
//!         self.total += x;
//!         self.total
//!     }
//! }
//!
//! fn main() -> libray::Result<()> {
//!     let _ray = libray::init()?; // a worker never gets past this line
//!     let counter = Counter::remote()?;
//!     let mut total = libray::put(&0)?;
//!     for i in 0..10 {
//!         total = counter.add(square::remote(i)?)?; // a future is an argument
//!     }
//!     println!("{}", total.get()?); // 285
//!     Ok(())
//! }
//! ```
//!
//! **The program is its own worker.** libray starts this very program again for the tasks; in that process [`init`]
//! does not return, but serves them. So call it first in `main`: what stands before it runs in each worker too.
//!
//! Functions of a library that the program only serves to others are known to it when it says `use the_library as _;`.
//!
//! **Values** are anything that is `serde::Serialize` and `Deserialize`; they travel as MessagePack, which every
//! language reads. [`ObjectRef`]s and actor handles inside them stay what they are. [`Tensor`]s are shared without a
//! copy.
//!
//! **Waiting.** An [`ObjectRef`] is a `Future` for any executor, woken by one thread of this process, and can block
//! ([`get`](ObjectRef::get), [`get_all`], [`wait`]). Whoever blocks in a task lends the processor.
//!
//! **Failure.** A panic or an `Err` of a function is [`Error::Task`] at whoever gets its result, with message, place
//! and backtrace; a process that dies is [`Error::WorkerCrashed`] after the retries.
//!
//! **Threads.** Everything here may be used from any thread.
#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(clippy::undocumented_unsafe_blocks)]

mod actor;
mod call;
mod codec;
mod cross;
mod decode;
mod encode;
mod error;
mod function;
pub mod kv;
mod notify;
mod options;
mod placement;
mod query;
mod raw;
mod reference;
mod runtime;
mod stream;
pub mod task;
mod tensor;
mod timestamp;
mod worker;

pub use actor::{ActorHandle, Method};
pub use call::Call;
pub use cross::{set_worker_code, Function, Language};
pub use error::{Error, Failure, Result};
pub use function::{Args, IntoArg};
pub use options::{ActorOptions, TaskOptions};
pub use placement::{Placement, PlacementGroup, Strategy};
pub use query::query;
pub use reference::{get_all, get_all_timeout, put, wait, ObjectRef};
pub use runtime::{context, init, is_initialized, Config, Context, Id, Runtime};
pub use stream::ObjectStream;
pub use tensor::{put_with, ArrowStream, Bytes, Element, Tensor};
pub use timestamp::Timestamp;

/// Makes a function, or the methods of an actor, callable in other processes.
///
/// # On a function
///
/// The function stays what it is. Beside it comes a type of the same name with
///
/// * `f::remote(...)`, which submits a task and returns `Result<ObjectRef<T>>` at once. Each parameter takes a value
///   or a reference ([`IntoArg`]);
/// * `f::with(options).remote(...)`, the same with [`TaskOptions`].
///
/// | the function returns | `remote` gives | |
/// |---|---|---|
/// | `T` | `ObjectRef<T>` | |
/// | `Result<T, E>` | `ObjectRef<T>` | an `Err` is the error of the task; `E: Display` |
/// | `impl Iterator<Item = T>` | [`ObjectStream<T>`](ObjectStream) | made as they are consumed; `Item = Result<T, E>` too |
/// | `(A, B)` with `#[remote(returns = 2)]` | `(ObjectRef<A>, ObjectRef<B>)` | |
///
/// An `async fn` is run to its end on the worker's thread. A parameter `&[f64]` sees a [`Tensor`](struct@Tensor) in
/// place, in shared memory; `&str` and `&T` are borrowed from what was decoded. Functions with type parameters cannot
/// be remote: a worker is told a name. A function whose one parameter is `&mut Call<'_>` takes what it is given, and
/// gives as many results as are asked for: see [`Call`].
///
/// # On an `impl` block
///
/// `new` is the constructor; each `pub fn` with `&self` or `&mut self` is a method. For a type `Counter`
///
/// * `Counter::remote(...)` creates an actor and gives a `CounterHandle`, `Counter::with(options).remote(...)` with
///   [`ActorOptions`];
/// * `handle.method(...)` calls, `handle.with(options).method(...)` with [`TaskOptions`]; it dereferences to an
///   [`ActorHandle`];
/// * `CounterHandle::find("name")` finds one by name.
///
/// Calls run one at a time, in the order in which a process made them. With `#[remote(concurrent)]` all methods take
/// `&self`, the type is `Send + Sync`, and [`max_concurrency`](ActorOptions::max_concurrency) of them run at once, on
/// threads.
///
/// # Concurrency groups
///
/// `#[remote(concurrent, groups(io = 2))]` names groups of calls that stop no other group when they are busy: of each so
/// many run at once, beside those of the default group. `#[group(io)]` before a method puts its calls there,
/// [`TaskOptions::concurrency_group`] one call; the class is what knows the names, so calls by name from elsewhere
/// ([`ActorHandle::call`], other languages) run in the default group.
///
/// ```
/// # use std::sync::atomic::{AtomicU64, Ordering};
/// struct Store(AtomicU64);
/// #[libray::remote(concurrent, groups(io = 2))]
/// impl Store {
///     pub fn new() -> Self { Self(AtomicU64::new(0)) }
///     #[group(io)]
///     pub fn load(&self) -> u64 { self.0.fetch_add(1, Ordering::Relaxed) } // as slow as it may be,
///     pub fn loaded(&self) -> u64 { self.0.load(Ordering::Relaxed) } // this is answered at once
/// }
/// # fn main() -> libray::Result<()> {
/// # let _ray = libray::init()?;
/// let store = Store::remote()?;
/// store.load()?.get()?;
/// assert_eq!(store.loaded()?.get()?, 1);
/// # Ok(()) }
/// ```
///
/// # Names
///
/// `#[remote(name = "area")]` is the name for other languages; else it is the path without the crate: `geometry::area`.
///
/// What cannot travel does not compile:
///
/// ```compile_fail,E0277
/// #[libray::remote]
/// fn f(x: std::sync::MutexGuard<'static, i32>) {}
/// ```
///
/// nor does an argument of a wrong type:
///
/// ```compile_fail,E0277
/// #[libray::remote]
/// fn square(x: i64) -> i64 { x * x }
/// let nine = square::remote("three");
/// ```
///
/// nor a reference of a wrong type:
///
/// ```compile_fail,E0277
/// #[libray::remote]
/// fn square(x: i64) -> i64 { x * x }
/// fn f(text: libray::ObjectRef<String>) {
///     let nine = square::remote(text);
/// }
/// ```
///
/// nor an actor that is not `Sync` and runs several calls at once:
///
/// ```compile_fail,E0277
/// struct Cache(std::cell::RefCell<u32>);
/// #[libray::remote(concurrent)]
/// impl Cache {
///     pub fn new() -> Self { Cache(Default::default()) }
///     pub fn get(&self) -> u32 { *self.0.borrow() }
/// }
/// ```
pub use libray_macros::remote;

/// What the code that `#[remote]` makes uses. No part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::function::{argument, Arg, Target};
    pub use crate::options::Groups;
    pub use crate::worker::{block_on, Call, Instance, Method, Outcome, Registration, State, Stop};
    pub use inventory;
    pub use serde;

    /// What a parameter of type `&Self` is decoded as.
    #[diagnostic::on_unimplemented(
        message = "a remote function cannot take `&{Self}`",
        note = "it takes `&str`, `&[number]` and `&T` of any T: DeserializeOwned"
    )]
    pub trait Borrowed {
        type Owned: std::borrow::Borrow<Self>;
    }
    impl Borrowed for str {
        type Owned = String;
    }
    impl<T: crate::Element> Borrowed for [T] {
        type Owned = crate::Tensor<T>;
    }
    impl<T: serde::de::DeserializeOwned> Borrowed for T {
        type Owned = T;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    fn is_shared<T: Send + Sync>() {}

    /// What a reference refers to is made where it is got: the reference itself may go anywhere.
    #[test]
    fn handles_go_to_any_thread() {
        is_shared::<ObjectRef<Rc<i32>>>();
        is_shared::<ObjectStream<Rc<i32>>>();
        is_shared::<ActorHandle>();
        is_shared::<Tensor<f64>>();
        is_shared::<Bytes>();
        is_shared::<Runtime>();
        is_shared::<Function>();
        is_shared::<Args>();
        is_shared::<Error>();
    }
}
