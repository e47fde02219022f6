//! Submitting: arguments, functions of this program and of others, by name.
use crate::codec::{self, Encoded};
use crate::error::{check, Error, Result};
use crate::options::{Groups, TaskOptions};
use crate::raw::{RawRef, RawStream};
use crate::reference::ObjectRef;
use crate::runtime::handle;
use crate::stream::ObjectStream;
use crate::tensor::{Element, Tensor};
use libray_sys as sys;
use serde::Serialize;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// An argument on its way: a value, or a reference whose value the task will see.
#[doc(hidden)]
#[allow(missing_docs)]
pub struct Arg(Kind);

enum Kind {
    Value(Encoded),
    Reference(RawRef),
}

/// What can be given where a remote function takes a `T`: a `T`, or an [`ObjectRef<T>`] (by value or `&`) that the
/// task waits for; for a `String` also a `&str`, for a `Vec<T>` a `&[T]`, for a `Tensor<T>` a `Vec<T>` or a reference
/// to one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be given where the remote function takes a `{T}`",
    note = "give a `{T}` (it must be serde::Serialize) or an `ObjectRef<{T}>`"
)]
pub trait IntoArg<T> {
    #[doc(hidden)]
    fn into_arg(self) -> Result<Arg>;
}

impl<T: Serialize> IntoArg<T> for T {
    fn into_arg(self) -> Result<Arg> {
        Ok(Arg(Kind::Value(codec::encode(&self)?)))
    }
}

impl<T> IntoArg<T> for ObjectRef<T> {
    fn into_arg(self) -> Result<Arg> {
        Ok(Arg(Kind::Reference(self.raw().clone())))
    }
}

impl<T> IntoArg<T> for &ObjectRef<T> {
    fn into_arg(self) -> Result<Arg> {
        Ok(Arg(Kind::Reference(self.raw().clone())))
    }
}

impl IntoArg<String> for &str {
    fn into_arg(self) -> Result<Arg> {
        Ok(Arg(Kind::Value(codec::encode(self)?)))
    }
}

impl<T: Serialize> IntoArg<Vec<T>> for &[T] {
    fn into_arg(self) -> Result<Arg> {
        Ok(Arg(Kind::Value(codec::encode(self)?)))
    }
}

impl<T: Element> IntoArg<Tensor<T>> for Vec<T> {
    fn into_arg(self) -> Result<Arg> {
        Tensor::from(self).into_arg()
    }
}

impl<T: Element> IntoArg<Tensor<T>> for ObjectRef<Vec<T>> {
    fn into_arg(self) -> Result<Arg> {
        Ok(Arg(Kind::Reference(self.raw().clone())))
    }
}

/// Encodes an argument; the error names it.
#[doc(hidden)]
pub fn argument<T>(function: &str, name: &str, value: impl IntoArg<T>) -> Result<Arg> {
    value.into_arg().map_err(|error| match error {
        Error::Value(text) => Error::Value(format!("argument '{name}' of '{function}': {text}")),
        other => other,
    })
}

/// Hands the C form of the arguments to `f`.
fn with_args<R>(args: &[Arg], f: impl FnOnce(*const sys::ray_arg, usize) -> R) -> R {
    if args.is_empty() {
        return f(ptr::null(), 0);
    }
    let views: Vec<_> = args
        .iter()
        .map(|arg| match &arg.0 {
            Kind::Value(value) => value.views(),
            Kind::Reference(_) => Default::default(),
        })
        .collect();
    let raw: Vec<_> = args
        .iter()
        .zip(&views)
        .map(|(arg, views)| match &arg.0 {
            Kind::Value(value) => sys::ray_arg { r#ref: ptr::null_mut(), value: value.value(views) },
            Kind::Reference(r) => sys::ray_arg { r#ref: r.as_ptr(), value: sys::ray_value::default() },
        })
        .collect();
    f(raw.as_ptr(), raw.len())
}

/// A function or class of some language by its name; resolved once per runtime. Of these, one static exists for each
/// remote function of this program, and one value for each that was looked up by name.
#[doc(hidden)]
#[allow(missing_docs)]
pub struct Target {
    language: i32,
    container: Text,
    member: Text,
    /// Of a C symbol, whose library is the container.
    signature: Option<String>,
    resolved: AtomicPtr<Resolved>,
}

enum Text {
    Static(&'static str),
    Owned(String),
}

impl Text {
    fn as_str(&self) -> &str {
        match self {
            Self::Static(s) => s,
            Self::Owned(s) => s,
        }
    }
}

struct Resolved {
    runtime: *mut sys::ray_runtime,
    function: *mut sys::ray_function,
}

// SAFETY: handles are numbers that any thread may use; `resolved` is replaced atomically and what it pointed at is
// kept.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// A function of this program, by the path that it is registered under.
    #[must_use]
    pub const fn new(path: &'static str) -> Self {
        Self {
            language: sys::RAY_LANG_RUST,
            container: Text::Static(""),
            member: Text::Static(path),
            signature: None,
            resolved: AtomicPtr::new(ptr::null_mut()),
        }
    }

    pub(crate) fn named(language: i32, container: String, member: String) -> Self {
        Self {
            language,
            container: Text::Owned(container),
            member: Text::Owned(member),
            signature: None,
            resolved: AtomicPtr::new(ptr::null_mut()),
        }
    }

    pub(crate) fn symbol(library: String, symbol: String, signature: String) -> Self {
        Self { signature: Some(signature), ..Self::named(sys::RAY_LANG_NATIVE, library, symbol) }
    }

    pub(crate) fn resolve(&self, runtime: *mut sys::ray_runtime) -> Result<*mut sys::ray_function> {
        // SAFETY: null, or a Resolved that is never freed: there is one per target and runtime, of some bytes.
        if let Some(resolved) = unsafe { self.resolved.load(Ordering::Acquire).as_ref() } {
            if resolved.runtime == runtime {
                return Ok(resolved.function);
            }
        }
        let function = self.look_up(runtime)?;
        let resolved = Box::into_raw(Box::new(Resolved { runtime, function }));
        self.resolved.store(resolved, Ordering::Release);
        Ok(function)
    }

    fn look_up(&self, runtime: *mut sys::ray_runtime) -> Result<*mut sys::ray_function> {
        let (container, member) = (self.container.as_str(), self.member.as_str());
        let mut function = ptr::null_mut();
        if let Some(signature) = &self.signature {
            let (library, symbol) = (sys::text(container), sys::text(member));
            // SAFETY: the views outlive the call.
            check(|e| unsafe {
                sys::ray_define_symbol(runtime, symbol, library, symbol, sys::text(signature), &mut function, e)
            })?;
            return Ok(function);
        }
        // SAFETY: the views outlive the call.
        check(|e| unsafe {
            sys::ray_function_named(runtime, self.language, sys::text(container), sys::text(member), &mut function, e)
        })?;
        Ok(function)
    }

    /// The defaults need no struct; several results do.
    fn with_options<R>(
        options: Option<&TaskOptions>,
        results: u32,
        group: u32,
        f: impl FnOnce(*const sys::ray_task_options) -> R,
    ) -> R {
        match options {
            Some(options) => options.with_raw(results, group, |o| f(o)),
            None if results == 1 && group == 0 => f(ptr::null()),
            None => f(&sys::ray_task_options { num_returns: results, group, ..Default::default() }),
        }
    }

    /// The function, for a task with these options.
    fn of_task(&self, runtime: *mut sys::ray_runtime, options: Option<&TaskOptions>) -> Result<*mut sys::ray_function> {
        TaskOptions::group_of(options, self.member.as_str(), (&[], 0))?;
        self.resolve(runtime)
    }

    pub fn submit<R>(&self, options: Option<&TaskOptions>, args: &[Arg]) -> Result<ObjectRef<R>> {
        let [reference] = self.submit_raw(options, args)?;
        Ok(reference.cast())
    }

    /// A task with N results.
    pub fn submit_raw<const N: usize>(
        &self,
        options: Option<&TaskOptions>,
        args: &[Arg],
    ) -> Result<[ObjectRef<()>; N]> {
        let runtime = handle()?;
        let function = self.of_task(runtime, options)?;
        let mut out = [ptr::null_mut(); N];
        with_args(args, |args, n| {
            Self::with_options(options, N as u32, 0, |options| {
                // SAFETY: all views outlive the call; N results, N places.
                check(|e| unsafe { sys::ray_submit(runtime, function, args, n, options, out.as_mut_ptr(), e) })
            })
        })?;
        Ok(out.map(|raw| ObjectRef::from_raw(RawRef::from_owned(raw))))
    }

    /// A task with as many results as are wanted.
    pub(crate) fn submit_many<R>(
        &self,
        options: Option<&TaskOptions>,
        results: u32,
        args: &[Arg],
    ) -> Result<Vec<ObjectRef<R>>> {
        let runtime = handle()?;
        let function = self.of_task(runtime, options)?;
        let mut out = vec![ptr::null_mut(); results as usize];
        with_args(args, |args, n| {
            Self::with_options(options, results, 0, |options| {
                // SAFETY: all views outlive the call; as many places as results.
                check(|e| unsafe { sys::ray_submit(runtime, function, args, n, options, out.as_mut_ptr(), e) })
            })
        })?;
        Ok(out.into_iter().map(|raw| ObjectRef::from_raw(RawRef::from_owned(raw))).collect())
    }

    pub fn submit_stream<R>(&self, options: Option<&TaskOptions>, args: &[Arg]) -> Result<ObjectStream<R>> {
        let runtime = handle()?;
        let function = self.of_task(runtime, options)?;
        let mut out = ptr::null_mut();
        with_args(args, |args, n| {
            Self::with_options(options, 1, 0, |options| {
                // SAFETY: all views outlive the call.
                check(|e| unsafe { sys::ray_submit_stream(runtime, function, args, n, options, &mut out, e) })
            })
        })?;
        Ok(ObjectStream::from_raw(RawStream::from_owned(out)))
    }
}

/// Calls of actors, which have a handle instead of a function.
pub(crate) mod call {
    use super::{
        check, ptr, sys, with_args, Arg, Groups, ObjectRef, ObjectStream, RawRef, RawStream, Result, Target,
        TaskOptions,
    };

    pub(crate) fn method<R>(
        actor: *mut sys::ray_actor,
        method: &str,
        groups: Groups,
        options: Option<&TaskOptions>,
        args: &[Arg],
    ) -> Result<ObjectRef<R>> {
        let mut out = ptr::null_mut();
        submit(actor, method, groups, options, args, std::slice::from_mut(&mut out))?;
        Ok(ObjectRef::from_raw(RawRef::from_owned(out)))
    }

    pub(crate) fn method_many<R>(
        actor: *mut sys::ray_actor,
        method: &str,
        groups: Groups,
        options: Option<&TaskOptions>,
        results: u32,
        args: &[Arg],
    ) -> Result<Vec<ObjectRef<R>>> {
        let mut out = vec![ptr::null_mut(); results as usize];
        submit(actor, method, groups, options, args, &mut out)?;
        Ok(out.into_iter().map(|raw| ObjectRef::from_raw(RawRef::from_owned(raw))).collect())
    }

    /// A call with as many results as `out` has places.
    fn submit(
        actor: *mut sys::ray_actor,
        method: &str,
        groups: Groups,
        options: Option<&TaskOptions>,
        args: &[Arg],
        out: &mut [*mut sys::ray_ref],
    ) -> Result<()> {
        let results = u32::try_from(out.len()).unwrap_or(u32::MAX);
        let group = TaskOptions::group_of(options, method, groups)?;
        with_args(args, |args, n| {
            Target::with_options(options, results, group, |options| {
                // SAFETY: all views outlive the call; as many places as results.
                check(|e| unsafe {
                    sys::ray_actor_call(actor, sys::text(method), args, n, options, out.as_mut_ptr(), e)
                })
            })
        })
    }

    pub(crate) fn stream<R>(
        actor: *mut sys::ray_actor,
        method: &str,
        groups: Groups,
        options: Option<&TaskOptions>,
        args: &[Arg],
    ) -> Result<ObjectStream<R>> {
        let mut out = ptr::null_mut();
        let group = TaskOptions::group_of(options, method, groups)?;
        with_args(args, |args, n| {
            Target::with_options(options, 1, group, |options| {
                // SAFETY: all views outlive the call.
                check(|e| unsafe {
                    sys::ray_actor_call_stream(actor, sys::text(method), args, n, options, &mut out, e)
                })
            })
        })?;
        Ok(ObjectStream::from_raw(RawStream::from_owned(out)))
    }

    pub(crate) fn create(
        target: &Target,
        options: &crate::ActorOptions,
        metadata: &[u8],
        args: &[Arg],
    ) -> Result<crate::raw::RawActor> {
        let runtime = crate::runtime::handle()?;
        let class = target.resolve(runtime)?;
        let mut out = ptr::null_mut();
        with_args(args, |args, n| {
            options.with_raw(metadata, |options| {
                // SAFETY: all views outlive the call.
                check(|e| unsafe { sys::ray_actor_create(runtime, class, args, n, options, &mut out, e) })
            })
        })?;
        Ok(crate::raw::RawActor::from_owned(out))
    }
}

/// What a call by name is given: values and references, in their order.
#[derive(Default)]
#[must_use]
pub struct Args(pub(crate) Vec<Arg>);

impl Args {
    /// No arguments.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more: a value.
    ///
    /// # Errors
    /// [`Error::Value`] when it cannot be encoded; the error tells which argument it is.
    pub fn value<T: Serialize>(mut self, value: T) -> Result<Self> {
        let index = self.0.len();
        let encoded = codec::encode(&value).map_err(|e| Error::Value(format!("argument {index}: {e}")))?;
        self.0.push(Arg(Kind::Value(encoded)));
        Ok(self)
    }

    /// One more: what this refers to.
    pub fn reference<T>(mut self, reference: &ObjectRef<T>) -> Self {
        self.0.push(Arg(Kind::Reference(reference.raw().clone())));
        self
    }
}
