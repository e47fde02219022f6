//! Functions and methods that take whatever they are given: their one parameter is the [`Call`] itself. Lives on the
//! thread that runs the task; made by the code that `#[remote]` writes, when the task has been taken.
use crate::codec;
use crate::error::{check, Error, Result};
use crate::raw::Buffer;
use libray_sys as sys;
use serde::de::DeserializeOwned;
use serde::Serialize;
use std::sync::Arc;

/// A call with any number of arguments, results or items: what a function sees whose one parameter is
/// `call: &mut Call<'_>`. For interpreters, gateways and other code that learns at run time what it is asked to do.
///
/// Such a function returns `()` or a `Result<(), E>`: its results are what it gave through the call, and when it fails
/// all of them are the error. `f::function()` is what submits it, with [`Function::call_many`](crate::Function::call_many)
/// and its like. A method can have this parameter too, beside `&self`: `handle.method()` is then a
/// [`Method`](crate::Method); and a constructor: `Class::class()` is then a [`Function`](crate::Function).
///
/// ```
/// use libray::{Args, Call};
///
/// /// Sum and product of all arguments.
/// #[libray::remote]
/// fn both(call: &mut Call<'_>) -> libray::Result<()> {
///     let numbers = (0..call.len()).map(|i| call.arg::<i64>(i)).collect::<libray::Result<Vec<_>>>()?;
///     call.give(0, &numbers.iter().sum::<i64>())?;
///     call.give(1, &numbers.iter().product::<i64>())
/// }
/// # fn main() -> libray::Result<()> {
/// # let _ray = libray::init()?;
/// let args = Args::new().value(2)?.value(3)?.value(4)?;
/// let results = both::function().call_many::<i64>(2, args)?;
/// assert_eq!(libray::get_all(&results)?, [9, 24]);
/// # Ok(()) }
/// ```
pub struct Call<'a> {
    task: *mut sys::ray_task,
    info: &'a sys::ray_task_info,
    args: &'a [sys::ray_buffer],
    /// Arguments that may be kept longer than the call: each is taken from the task once.
    taken: Vec<Option<Arc<Buffer>>>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(task: *mut sys::ray_task, info: &'a sys::ray_task_info, args: &'a [sys::ray_buffer]) -> Self {
        Self { task, info, args, taken: vec![None; args.len()] }
    }

    /// How many arguments it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.args.is_empty()
    }

    /// How many results its caller asked for.
    #[must_use]
    pub fn results(&self) -> u32 {
        self.info.num_returns
    }

    /// Whether its caller reads items, as of a generator: [`yield_item`](Self::yield_item).
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.info.is_stream
    }

    /// The argument of this index, read as a `T`; as often as it is asked for.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: there are fewer; [`Error::Value`]: it is not a `T`.
    pub fn arg<T: DeserializeOwned>(&mut self, index: usize) -> Result<T> {
        let Some(buffer) = self.args.get(index) else {
            return Err(Error::InvalidArgument(format!("there is no argument {index}, but {}", self.args.len())));
        };
        let value = if let Some(taken) = &self.taken[index] {
            codec::decode_shared(taken)
        } else if buffer.n_oob > 0 || buffer.size > 4096 {
            let mut own = Buffer::empty();
            // SAFETY: this thread runs the task.
            check(|e| unsafe { sys::ray_task_take_arg(self.task, index, own.as_mut(), e) })?;
            codec::decode_shared(self.taken[index].insert(Arc::new(own)))
        } else {
            // SAFETY: arguments stay until the task is finished, and small ones have nothing that could be kept.
            unsafe { codec::decode_borrowed(buffer) }
        };
        value.map_err(|error| match error {
            Error::Value(text) => Error::Value(format!("argument {index}: {text}")),
            other => other,
        })
    }

    /// Gives the result of this index, once; those that are not given are nothing (`()`, `None`).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: its caller asked for fewer; [`Error::WrongState`]: it was given; [`Error::Value`];
    /// [`Error::StoreFull`].
    pub fn give<T: Serialize>(&mut self, index: u32, value: &T) -> Result<()> {
        let (task, encoded) = (self.task, codec::encode(value)?);
        // SAFETY: this thread runs the task; the value's views are good during the call.
        check(|e| encoded.with_value(|v| unsafe { sys::ray_task_return(task, index, v, e) }))
    }

    /// Makes the result of this index an [`Error::Task`] of its own; the others have their values.
    ///
    /// # Errors
    /// As [`give`](Self::give).
    pub fn give_error(&mut self, index: u32, message: &str) -> Result<()> {
        let (code, text) = (sys::RAY_TASK_FAILED, sys::text(message));
        // SAFETY: this thread runs the task; the view outlives the call.
        check(|e| unsafe { sys::ray_task_return_error(self.task, index, code, text, std::ptr::null(), e) })
    }

    /// Gives the next item of a stream; waits while as many as its window holds were not taken.
    ///
    /// # Errors
    /// [`Error::Cancelled`]: nobody wants more, so the function is to return it; [`Error::WrongState`]: its caller
    /// reads no items.
    pub fn yield_item<T: Serialize>(&mut self, value: &T) -> Result<()> {
        let (task, encoded) = (self.task, codec::encode(value)?);
        // SAFETY: this thread runs the task; the value's views are good during the call.
        check(|e| encoded.with_value(|v| unsafe { sys::ray_task_yield(task, v, -1, e) }))
    }
}
