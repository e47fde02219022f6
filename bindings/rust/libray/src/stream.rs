//! Results of a generator task, in order: an iterator that blocks, and a `Stream` for executors.
use crate::error::{check, Error, Result};
use crate::notify::{self, Registration};
use crate::raw::{RawRef, RawStream};
use crate::reference::ObjectRef;
use crate::runtime::Id;
use libray_sys as sys;
use serde::de::DeserializeOwned;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};
use std::time::Duration;

/// The items of a function that returns `impl Iterator`, as they are made: an [`Iterator`] that blocks, and a
/// `Stream` (of the crate `futures-core`) that an executor polls. Each item is a `Result`; a generator that fails
/// gives its error as the last one.
///
/// The producer stays at most [`stream_window`](crate::TaskOptions::stream_window) items ahead. Dropping the stream
/// cancels it.
///
/// ```
/// #[libray::remote]
/// fn count(n: u64) -> impl Iterator<Item = u64> {
///     0..n
/// }
/// # fn main() -> libray::Result<()> {
/// # let _ray = libray::init()?;
/// for item in count::remote(3)? {
///     println!("{}", item?);
/// }
/// # Ok(()) }
/// ```
#[must_use = "the producer is cancelled when its stream is dropped"]
pub struct ObjectStream<T> {
    raw: RawStream,
    waiting: Option<Registration>,
    item: Option<ObjectRef<T>>,
    /// Nothing comes any more: the iterator gave an error that would come for ever.
    ended: bool,
    value: PhantomData<fn() -> T>,
}

impl<T> ObjectStream<T> {
    pub(crate) fn from_raw(raw: RawStream) -> Self {
        Self { raw, waiting: None, item: None, ended: false, value: PhantomData }
    }

    /// Id of the generator's task.
    #[must_use]
    pub fn id(&self) -> Id {
        // SAFETY: it looks, and refuses what is stale.
        unsafe { sys::ray_stream_id(self.raw.as_ptr()) }.into()
    }

    /// The next item as a reference that is ready; `None` after the last. Blocks at most `timeout`; `None` = for ever.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::Cancelled`] in a task that was cancelled.
    pub fn next_ref(&mut self, timeout: Option<Duration>) -> Result<Option<ObjectRef<T>>> {
        self.take_next(crate::runtime::nanoseconds(timeout))
    }

    fn take_next(&self, timeout_ns: i64) -> Result<Option<ObjectRef<T>>> {
        let mut out = ptr::null_mut();
        // SAFETY: the handle is ours.
        let taken = check(|e| match unsafe { sys::ray_stream_next(self.raw.as_ptr(), timeout_ns, &mut out, e) } {
            sys::RAY_STREAM_END => sys::RAY_OK,
            code => code,
        });
        taken.map(|()| (!out.is_null()).then(|| ObjectRef::from_raw(RawRef::from_owned(out))))
    }

    /// The same for iterators, whose users ask until there is nothing: an error that lasts comes once.
    fn take_once(&mut self, timeout_ns: i64) -> Result<Option<ObjectRef<T>>> {
        if self.ended {
            return Ok(None);
        }
        let taken = self.take_next(timeout_ns);
        self.ended = matches!(&taken, Err(e) if !matches!(e, Error::TimedOut(_)));
        taken
    }

    /// Ends the producer: its next item is not made. What is there already can still be taken.
    ///
    /// # Errors
    /// [`Error::WrongState`] after the end of the runtime.
    pub fn cancel(&self) -> Result<()> {
        // SAFETY: the handle is ours.
        check(|e| unsafe { sys::ray_stream_cancel(self.raw.as_ptr(), 0, e) })
    }

    /// A reference that is ready when the generator is over: its value is nothing, or its error.
    ///
    /// # Errors
    /// [`Error::WrongState`] after the end of the runtime.
    pub fn completed(&self) -> Result<ObjectRef<()>> {
        let mut out = ptr::null_mut();
        // SAFETY: the handle is ours.
        check(|e| unsafe { sys::ray_stream_completed(self.raw.as_ptr(), &mut out, e) })?;
        Ok(ObjectRef::from_raw(RawRef::from_owned(out)))
    }
}

/// Blocks for each item.
impl<T: DeserializeOwned> Iterator for ObjectStream<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let item = match self.item.take() {
            Some(item) => Ok(Some(item)),
            None => self.take_once(-1),
        };
        item.transpose().map(|item| item?.get())
    }
}

impl<T: DeserializeOwned> futures_core::Stream for ObjectStream<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        loop {
            if let Some(item) = &mut self.item {
                let Poll::Ready(value) = Pin::new(item).poll(context) else { return Poll::Pending };
                self.item = None;
                return Poll::Ready(Some(value));
            }
            if self.waiting.as_ref().is_some_and(|w| !w.is_told(context)) {
                return Poll::Pending;
            }
            self.waiting = None;
            match self.take_once(0) {
                Ok(None) => return Poll::Ready(None),
                Ok(item) => self.item = item,
                Err(Error::TimedOut(_)) => match notify::when_next(&self.raw, context) {
                    Ok(waiting) => self.waiting = Some(waiting),
                    Err(error) => {
                        self.ended = true;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

impl<T> fmt::Debug for ObjectStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectStream({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_lasts_ends_the_iterator() {
        let nobody = ObjectStream::<u64>::from_raw(RawStream::from_owned(ptr::null_mut()));
        assert!(nobody.take_next(0).is_err() && nobody.take_next(0).is_err());
        assert_eq!(nobody.take(10).filter(Result::is_err).count(), 1);
    }
}
