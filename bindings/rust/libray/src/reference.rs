//! References: put, get, wait, await, cancel. A reference holds one count of an object of the C API.
use crate::codec::{self, EXT_REFERENCE};
use crate::error::{check, Error, Result};
use crate::notify::{self, Registration};
use crate::raw::{Buffer, RawRef};
use crate::runtime::{handle, nanoseconds, Id};
use libray_sys as sys;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};
use std::time::Duration;

/// A value that exists or will exist, somewhere: the result of a task, or what was [`put`].
///
/// It is a [`Future`]: `.await` it on any executor, by value or by reference; or block in [`get`](Self::get). It can
/// be cloned, sent to other threads, given to tasks as an argument (the task waits for it and sees its value) and put
/// inside other values (there it stays a reference). The last one in the last process that is dropped frees the
/// object.
///
/// ```
/// # #[libray::remote] fn square(x: i64) -> i64 { x * x }
/// # fn main() -> libray::Result<()> {
/// # let _ray = libray::init()?;
/// let nine = square::remote(3)?;
/// let eighty_one = square::remote(&nine)?; // a reference as an argument
/// assert_eq!(eighty_one.get()?, 81);
///
/// let sum = async {
///     libray::Result::Ok((&nine).await? + eighty_one.await?)
/// };
/// # drop(sum);
/// # Ok(()) }
/// ```
#[must_use = "the task runs all the same, but nobody learns how it ends"]
pub struct ObjectRef<T> {
    raw: RawRef,
    waiting: Option<Box<Registration>>,
    value: PhantomData<fn() -> T>,
}

impl<T> ObjectRef<T> {
    pub(crate) fn from_raw(raw: RawRef) -> Self {
        Self { raw, waiting: None, value: PhantomData }
    }

    pub(crate) fn raw(&self) -> &RawRef {
        &self.raw
    }

    /// Its object's id.
    #[must_use]
    pub fn id(&self) -> Id {
        // SAFETY: it looks, and refuses what is stale.
        unsafe { sys::ray_ref_id(self.raw.as_ptr()) }.into()
    }

    /// The same object as one of another type; nothing is looked at, a `get` will say if it does not fit.
    pub fn cast<U>(self) -> ObjectRef<U> {
        ObjectRef::from_raw(self.raw)
    }

    /// Cancels the task that makes the value: if it has not started it never runs, and `get` gives
    /// [`Error::Cancelled`]; if it runs, its calls of libray that wait end with [`Error::Cancelled`] and
    /// [`crate::task::is_cancelled`] turns true: the function is to end, best with that error
    /// ([`crate::task::check_cancelled`]). What it gives all the same is kept. Returns at once.
    ///
    /// # Errors
    /// [`Error::WrongState`] after the end of the runtime.
    pub fn cancel(&self) -> Result<()> {
        self.cancel_with(0)
    }

    /// Cancels by killing the worker that runs it: `get` gives [`Error::WorkerCrashed`]. The worker's other tasks run
    /// elsewhere.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for calls of actors.
    pub fn cancel_by_force(&self) -> Result<()> {
        self.cancel_with(sys::RAY_CANCEL_FORCE)
    }

    /// Cancels it and the tasks that it started.
    ///
    /// # Errors
    /// [`Error::WrongState`] after the end of the runtime.
    pub fn cancel_with_children(&self) -> Result<()> {
        self.cancel_with(sys::RAY_CANCEL_RECURSIVE)
    }

    fn cancel_with(&self, flags: u32) -> Result<()> {
        // SAFETY: the handle is ours.
        check(|e| unsafe { sys::ray_cancel(self.raw.as_ptr(), flags, e) })
    }

    /// Whether a value or an error is there. Never blocks.
    ///
    /// # Errors
    /// [`Error::WrongState`] after the end of the runtime.
    pub fn is_ready(&self) -> Result<bool> {
        let (runtime, raw) = (handle()?, self.raw.as_ptr());
        let (mut ready, mut n) = (0u8, 0);
        // SAFETY: one reference, one flag.
        check(|e| unsafe { sys::ray_wait(runtime, &raw, 1, 1, 0, &mut ready, &mut n, e) })?;
        Ok(ready == 1)
    }
}

impl<T: DeserializeOwned> ObjectRef<T> {
    /// Blocks until the value is there. In a task it lends the processor to others meanwhile.
    ///
    /// Nothing is copied but what serde makes of the bytes; a [`Tensor`](crate::Tensor) in it is a view of shared
    /// memory.
    ///
    /// # Errors
    /// How the task failed: see [`Error`]. [`Error::Value`] when it is not a `T`.
    pub fn get(&self) -> Result<T> {
        codec::decode(self.fetch(-1)?)
    }

    /// [`get`](Self::get) for at most this long.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; else as [`get`](Self::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
        codec::decode(self.fetch(nanoseconds(Some(timeout)))?)
    }

    /// The value if it is there and in memory, else `None`. Never blocks.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn try_get(&self) -> Result<Option<T>> {
        self.try_fetch()?.map(codec::decode).transpose()
    }

    fn fetch(&self, timeout_ns: i64) -> Result<Buffer> {
        let (runtime, raw) = (handle()?, self.raw.as_ptr());
        let mut buffer = Buffer::empty();
        // SAFETY: one reference, one buffer.
        check(|e| unsafe { sys::ray_get(runtime, &raw, 1, timeout_ns, buffer.as_mut(), e) })?;
        Ok(buffer)
    }

    fn try_fetch(&self) -> Result<Option<Buffer>> {
        let mut buffer = Buffer::empty();
        let mut error = ptr::null_mut();
        // SAFETY: the handle is ours.
        match unsafe { sys::ray_try_get(self.raw.as_ptr(), buffer.as_mut(), &mut error) } {
            sys::RAY_OK => Ok(Some(buffer)),
            code => match Error::take(code, error) {
                Error::TimedOut(_) => Ok(None),
                other => Err(other),
            },
        }
    }

    fn poll_buffer(&mut self, context: &Context<'_>) -> Poll<Result<Buffer>> {
        if let Some(waiting) = &self.waiting {
            if !waiting.is_told(context) {
                return Poll::Pending;
            }
            if let Some(fetched) = waiting.take_fetched() {
                return Poll::Ready(fetched);
            }
        }
        match self.try_fetch() {
            Ok(Some(buffer)) => return Poll::Ready(Ok(buffer)),
            Ok(None) => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
        match &self.waiting {
            Some(waiting) => waiting.fetch(self.raw.clone(), context), // it is ready, and on disk
            None => match notify::when_ready(&self.raw, context) {
                Ok(waiting) => self.waiting = Some(Box::new(waiting)),
                Err(error) => return Poll::Ready(Err(error)),
            },
        }
        Poll::Pending
    }
}

/// The value, or how the task failed. Cancel-safe: dropping the future drops one reference, and cancels no task.
impl<T: DeserializeOwned> Future for ObjectRef<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.poll_buffer(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(buffer) => {
                self.waiting = None;
                Poll::Ready(buffer.and_then(codec::decode))
            }
        }
    }
}

impl<T: DeserializeOwned> IntoFuture for &ObjectRef<T> {
    type Output = Result<T>;
    type IntoFuture = ObjectRef<T>;

    fn into_future(self) -> ObjectRef<T> {
        self.clone()
    }
}

/// One more count of the same object.
impl<T> Clone for ObjectRef<T> {
    fn clone(&self) -> Self {
        Self::from_raw(self.raw.clone())
    }
}

impl<T> fmt::Debug for ObjectRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectRef({})", self.id())
    }
}

/// Two references are equal when they refer to the same object.
impl<T> PartialEq for ObjectRef<T> {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}
impl<T> Eq for ObjectRef<T> {}
impl<T> std::hash::Hash for ObjectRef<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

/// Inside a value it stays a reference. Fails outside of the values that libray sends or puts.
impl<T> Serialize for ObjectRef<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let index = codec::push_ref("an ObjectRef", self.raw.clone())?;
        codec::serialize_ext(serializer, EXT_REFERENCE, &index.to_be_bytes())
    }
}

impl<'de, T> Deserialize<'de> for ObjectRef<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let ext = codec::read_ext(deserializer, "an ObjectRef")?;
        let index = ext.index(EXT_REFERENCE, "an ObjectRef")?;
        Ok(Self::from_raw(codec::reference_at("an ObjectRef", index)?))
    }
}

/// Puts a value into the object store, with one copy. Any thread.
///
/// # Errors
/// [`Error::Value`] when it cannot be encoded; [`Error::StoreFull`] after some time without room.
pub fn put<T: Serialize>(value: &T) -> Result<ObjectRef<T>> {
    let runtime = handle()?;
    let encoded = codec::encode(value)?;
    let mut out = ptr::null_mut();
    // SAFETY: the C form is good during the call.
    check(|e| encoded.with_value(|v| unsafe { sys::ray_put(runtime, v, &mut out, e) }))?;
    Ok(ObjectRef::from_raw(RawRef::from_owned(out)))
}

/// Blocks until all values are there, in one call. Cheaper than one by one.
///
/// # Errors
/// As soon as one has failed, the error of the first that has; else as [`ObjectRef::get`].
pub fn get_all<T: DeserializeOwned>(references: &[ObjectRef<T>]) -> Result<Vec<T>> {
    get_all_timeout(references, None)
}

/// [`get_all`] for at most this long; `None` = for ever.
///
/// # Errors
/// [`Error::TimedOut`]; else as [`get_all`].
pub fn get_all_timeout<T: DeserializeOwned>(references: &[ObjectRef<T>], timeout: Option<Duration>) -> Result<Vec<T>> {
    let runtime = handle()?;
    let raw: Vec<_> = references.iter().map(|r| r.raw.as_ptr()).collect();
    let mut buffers: Vec<Buffer> = raw.iter().map(|_| Buffer::empty()).collect();
    // SAFETY: a Buffer is a ray_buffer (repr(transparent)); as many as references.
    check(|e| unsafe {
        sys::ray_get(runtime, raw.as_ptr(), raw.len(), nanoseconds(timeout), buffers.as_mut_ptr().cast(), e)
    })?;
    buffers.into_iter().map(codec::decode).collect()
}

/// Blocks until `want` of the references are ready (with a value or an error), or the time is over, and parts them:
/// those that are ready, at most `want`, and the rest, both in the order given. Fetches nothing.
///
/// # Errors
/// [`Error::InvalidArgument`]: `want` is more than there are, or a reference is there twice.
#[allow(clippy::type_complexity)] // two lists of the same
pub fn wait<T>(
    references: Vec<ObjectRef<T>>,
    want: usize,
    timeout: Option<Duration>,
) -> Result<(Vec<ObjectRef<T>>, Vec<ObjectRef<T>>)> {
    let runtime = handle()?;
    let raw: Vec<_> = references.iter().map(|r| r.raw.as_ptr()).collect();
    let mut ready = vec![0u8; raw.len()];
    let mut n = 0;
    // SAFETY: as many flags as references.
    check(|e| unsafe {
        sys::ray_wait(runtime, raw.as_ptr(), raw.len(), want, nanoseconds(timeout), ready.as_mut_ptr(), &mut n, e)
    })?;
    let mut flags = ready.into_iter();
    Ok(references.into_iter().partition(|_| flags.next() == Some(1)))
}
