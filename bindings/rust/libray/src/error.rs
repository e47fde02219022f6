//! What can go wrong, as one enum. Built from a `ray_code` and a `ray_error` of the C API; the payload of a task's
//! failure is a MessagePack map that every language writes in the same form (docs/api/errors.md), read here into
//! [`Failure`].
use crate::codec::ByteBuf;
use libray_sys as sys;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ptr;

/// The result of most calls.
pub type Result<T> = std::result::Result<T, Error>;

/// What failed, and why. A variant is for programs, its text for people: it names the task, the actor or the
/// argument, and what would help.
///
/// Errors are `Send`, `Sync` and `Clone`; the text is English and may change in any version.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The function that makes the value failed: it panicked, gave an `Err`, or threw in its language.
    Task(Box<Failure>),
    /// The process that ran the task ended, and no retry was left.
    WorkerCrashed(String),
    /// The actor is gone for good. The failure of its constructor, if that is why.
    ActorDied(String, Option<Box<Failure>>),
    /// The call was lost to a restart of its actor; the same call may succeed now.
    ActorRestarting(String),
    /// The task was cancelled, or the runtime was shut down; of a call that waits: the task that waits was cancelled.
    Cancelled(String),
    /// The time was over. The same call may succeed later.
    TimedOut(String),
    /// Every copy of the value is gone and it cannot be made again.
    ObjectLost(String),
    /// It can no longer be placed: what it was to run on is gone.
    Unschedulable(String),
    /// The placement group that it was to run in was removed.
    GroupRemoved(String),
    /// The worker knows no function, class or method of that name.
    UnknownFunction(String),
    /// Memory and disk of the object store are full.
    StoreFull(String),
    /// Memory ran out, here or on the node.
    OutOfMemory(String),
    /// A daemon cannot be reached now, or an actor takes no more calls; the same call may succeed later.
    Unavailable(String),
    /// The node is gone; the runtime can only be shut down.
    NodeDied(String),
    /// There is no such thing.
    NotFound(String),
    /// The name is taken.
    AlreadyExists(String),
    /// Another write was faster: read again.
    Conflict(String),
    /// A wrong argument.
    InvalidArgument(String),
    /// The right call at the wrong moment; most often before [`init`](crate::init).
    WrongState(String),
    /// What this version cannot do.
    Unsupported(String),
    /// A value could not be encoded, or is not what the type asks for.
    Value(String),
    /// A fault of libray.
    Internal(String),
}

/// How a task failed, as its own process told.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Failure {
    /// One line: the task, its function, its process, and what it said.
    pub text: String,
    /// `"rust"`, `"python"`, `"java"` or `"native"`; empty when it did not tell.
    pub language: String,
    /// `"panic"`, the type of the `Err`, or the class of the exception.
    pub type_name: String,
    /// What the panic, the `Err` or the exception said.
    pub message: String,
    /// The function's name.
    pub function: String,
    /// Where it happened: `src/main.rs:17:5`. Of panics alone; empty otherwise.
    pub place: String,
    /// The backtrace of the failing process, several lines; empty when there is none.
    pub stack: String,
    /// Process that it happened in; 0 when it did not tell.
    pub pid: u32,
    /// The failure that this one is a consequence of.
    pub cause: Option<Box<Failure>>,
    /// The exception itself, for readers of its own language; handed on with the rest.
    private: Option<(u32, ByteBuf)>,
}

/// The form that a failure has between processes and languages.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FailureMap {
    pub language: String,
    #[serde(rename = "type")]
    pub type_name: String,
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stack: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub function: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub place: String,
    pub pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Box<FailureMap>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private: Option<(u32, ByteBuf)>,
}

impl FailureMap {
    fn into_failure(self, text: String) -> Failure {
        Failure {
            text,
            language: self.language,
            type_name: self.type_name,
            message: self.message,
            function: self.function,
            place: self.place,
            stack: self.stack,
            pid: self.pid,
            cause: self.cause.map(|c| Box::new(c.into_failure(String::new()))),
            private: self.private,
        }
    }
}

impl From<&Failure> for FailureMap {
    fn from(f: &Failure) -> Self {
        Self {
            language: f.language.clone(),
            type_name: f.type_name.clone(),
            message: f.message.clone(),
            stack: f.stack.clone(),
            function: f.function.clone(),
            place: f.place.clone(),
            pid: f.pid,
            cause: f.cause.as_deref().map(|c| Box::new(c.into())),
            private: f.private.clone(),
        }
    }
}

impl Error {
    /// The number that the C API gives to this error (`RAY_*` in `ray.h`), by name: `"RAY_TASK_FAILED"`.
    #[must_use]
    pub fn code_name(&self) -> &'static str {
        // SAFETY: static storage, ASCII.
        unsafe { std::ffi::CStr::from_ptr(sys::ray_code_name(self.code())) }.to_str().unwrap_or("RAY_UNKNOWN")
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        // SAFETY: any number will do.
        unsafe { sys::ray_code_is_retryable(self.code()) }
    }

    /// How the task failed; for [`Error::Task`], and for [`Error::ActorDied`] when the constructor failed.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Task(f) => Some(f),
            Self::ActorDied(_, f) => f.as_deref(),
            _ => None,
        }
    }

    pub(crate) fn code(&self) -> sys::ray_code {
        match self {
            Self::Task(_) => sys::RAY_TASK_FAILED,
            Self::WorkerCrashed(_) => sys::RAY_WORKER_CRASHED,
            Self::ActorDied(..) => sys::RAY_ACTOR_DIED,
            Self::ActorRestarting(_) => sys::RAY_ACTOR_RESTARTING,
            Self::Cancelled(_) => sys::RAY_CANCELLED,
            Self::TimedOut(_) => sys::RAY_TIMED_OUT,
            Self::ObjectLost(_) => sys::RAY_OBJECT_LOST,
            Self::Unschedulable(_) => sys::RAY_UNSCHEDULABLE,
            Self::GroupRemoved(_) => sys::RAY_GROUP_REMOVED,
            Self::UnknownFunction(_) => sys::RAY_UNKNOWN_FUNCTION,
            Self::StoreFull(_) => sys::RAY_STORE_FULL,
            Self::OutOfMemory(_) => sys::RAY_OUT_OF_MEMORY,
            Self::Unavailable(_) => sys::RAY_UNAVAILABLE,
            Self::NodeDied(_) => sys::RAY_NODE_DIED,
            Self::NotFound(_) => sys::RAY_NOT_FOUND,
            Self::AlreadyExists(_) => sys::RAY_ALREADY_EXISTS,
            Self::Conflict(_) => sys::RAY_CONFLICT,
            Self::InvalidArgument(_) | Self::Value(_) => sys::RAY_INVALID_ARGUMENT,
            Self::WrongState(_) => sys::RAY_WRONG_STATE,
            Self::Unsupported(_) => sys::RAY_UNSUPPORTED,
            Self::Internal(_) => sys::RAY_INTERNAL,
        }
    }

    pub(crate) fn new(code: sys::ray_code, text: String, failure: Option<FailureMap>) -> Self {
        match code {
            sys::RAY_TASK_FAILED => Self::Task(Box::new(failure.unwrap_or_default().into_failure(text))),
            sys::RAY_WORKER_CRASHED => Self::WorkerCrashed(text),
            sys::RAY_ACTOR_DIED => {
                let failure = failure.map(|f| Box::new(f.into_failure(text.clone())));
                Self::ActorDied(text, failure)
            }
            sys::RAY_ACTOR_RESTARTING => Self::ActorRestarting(text),
            sys::RAY_CANCELLED => Self::Cancelled(text),
            sys::RAY_TIMED_OUT => Self::TimedOut(text),
            sys::RAY_OBJECT_LOST => Self::ObjectLost(text),
            sys::RAY_UNSCHEDULABLE => Self::Unschedulable(text),
            sys::RAY_GROUP_REMOVED => Self::GroupRemoved(text),
            sys::RAY_UNKNOWN_FUNCTION => Self::UnknownFunction(text),
            sys::RAY_STORE_FULL => Self::StoreFull(text),
            sys::RAY_OUT_OF_MEMORY => Self::OutOfMemory(text),
            sys::RAY_UNAVAILABLE => Self::Unavailable(text),
            sys::RAY_NODE_DIED => Self::NodeDied(text),
            sys::RAY_NOT_FOUND => Self::NotFound(text),
            sys::RAY_ALREADY_EXISTS => Self::AlreadyExists(text),
            sys::RAY_CONFLICT => Self::Conflict(text),
            sys::RAY_INVALID_ARGUMENT => Self::InvalidArgument(text),
            sys::RAY_WRONG_STATE => Self::WrongState(text),
            sys::RAY_UNSUPPORTED => Self::Unsupported(text),
            _ => Self::Internal(text),
        }
    }

    /// From what a call of the C API answered; takes over `error`, which may be null.
    pub(crate) fn take(code: sys::ray_code, error: *mut sys::ray_error) -> Self {
        // SAFETY: `error` is a handle that this function owns; views of it are copied before it is released.
        unsafe {
            let view = sys::ray_error_message(error);
            let text = String::from_utf8_lossy(slice(view.data.cast(), view.size)).into_owned();
            let mut format = 0;
            let payload = sys::ray_error_payload(error, &mut format);
            let payload = slice(payload.data.cast(), payload.size);
            let failure =
                if format == sys::RAY_FMT_MSGPACK { rmp_serde::from_slice::<FailureMap>(payload).ok() } else { None };
            sys::ray_error_release(error);
            Self::new(code, text, failure)
        }
    }

    pub(crate) fn not_started() -> Self {
        Self::WrongState("libray is not running in this process: call libray::init() first".into())
    }
}

/// A view of the C API; empty for a null pointer.
///
/// # Safety
/// `data` is null, or `size` bytes there stay as they are for `'a`.
pub(crate) unsafe fn slice<'a>(data: *const u8, size: usize) -> &'a [u8] {
    if data.is_null() || size == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(data, size) }
}

/// Runs a call whose last argument is `&mut error`; `Err` unless it answered `RAY_OK`.
pub(crate) fn check(call: impl FnOnce(*mut *mut sys::ray_error) -> sys::ray_code) -> Result<()> {
    let mut error = ptr::null_mut();
    match call(&mut error) {
        sys::RAY_OK => Ok(()),
        code => Err(Error::take(code, error)),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(failure) => fmt::Display::fmt(failure, f),
            Self::ActorDied(text, _)
            | Self::WorkerCrashed(text)
            | Self::ActorRestarting(text)
            | Self::Cancelled(text)
            | Self::TimedOut(text)
            | Self::ObjectLost(text)
            | Self::Unschedulable(text)
            | Self::GroupRemoved(text)
            | Self::UnknownFunction(text)
            | Self::StoreFull(text)
            | Self::OutOfMemory(text)
            | Self::Unavailable(text)
            | Self::NodeDied(text)
            | Self::NotFound(text)
            | Self::AlreadyExists(text)
            | Self::Conflict(text)
            | Self::InvalidArgument(text)
            | Self::WrongState(text)
            | Self::Unsupported(text)
            | Self::Value(text)
            | Self::Internal(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let cause = self.failure()?.cause.as_deref()?;
        Some(cause)
    }
}

/// The line [`Failure::text`], or type and message of a cause. `{:#}` adds the backtrace.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.is_empty() {
            write!(f, "{}: {}", self.type_name, self.message)?;
        } else {
            f.write_str(&self.text)?;
        }
        if f.alternate() && !self.stack.is_empty() {
            write!(f, "\n{}", self.stack)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let cause = self.cause.as_deref()?;
        Some(cause)
    }
}
