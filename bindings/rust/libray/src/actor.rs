//! Handles of actors. What `#[remote]` makes of an `impl` block is a typed handle around [`ActorHandle`].
use crate::codec::{self, EXT_ACTOR};
use crate::error::{check, Result};
use crate::function::{call, Arg, Args, Target};
use crate::options::{ActorOptions, Groups, TaskOptions};
use crate::raw::{RawActor, RawRef};
use crate::reference::ObjectRef;
use crate::runtime::{handle, Id};
use crate::stream::ObjectStream;
use libray_sys as sys;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ptr;

/// A handle of an actor of any class and language. Clones, and copies inside values, are handles of the same actor;
/// it ends with the last one, after its pending calls, unless it is detached.
#[derive(Clone)]
pub struct ActorHandle {
    raw: RawActor,
}

impl ActorHandle {
    pub(crate) fn from_raw(raw: RawActor) -> Self {
        Self { raw }
    }

    /// A living actor by the name that [`ActorOptions::name`] gave it, in the namespace of this runtime.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub fn find(name: &str) -> Result<Self> {
        Self::find_in(name, "")
    }

    /// A living actor by its name in a namespace.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    pub fn find_in(name: &str, namespace: &str) -> Result<Self> {
        let runtime = handle()?;
        let mut out = ptr::null_mut();
        // SAFETY: the views outlive the call.
        check(|e| unsafe { sys::ray_actor_find(runtime, sys::text(name), sys::text(namespace), &mut out, e) })?;
        Ok(Self::from_raw(RawActor::from_owned(out)))
    }

    /// The actor's id.
    #[must_use]
    pub fn id(&self) -> Id {
        // SAFETY: it looks, and refuses what is stale.
        unsafe { sys::ray_actor_id(self.raw.as_ptr()) }.into()
    }

    /// Kills its process at once and for good; calls that are not done fail with
    /// [`Error::ActorDied`](crate::Error::ActorDied).
    ///
    /// # Errors
    /// [`Error::WrongState`](crate::Error::WrongState) after the end of the runtime.
    pub fn kill(&self) -> Result<()> {
        // SAFETY: the handle is ours.
        check(|e| unsafe { sys::ray_actor_kill(self.raw.as_ptr(), false, e) })
    }

    /// Kills its process at once; it starts again if [`ActorOptions::max_restarts`] allows.
    ///
    /// # Errors
    /// [`Error::WrongState`](crate::Error::WrongState) after the end of the runtime.
    pub fn restart(&self) -> Result<()> {
        // SAFETY: the handle is ours.
        check(|e| unsafe { sys::ray_actor_kill(self.raw.as_ptr(), true, e) })
    }

    /// A call of a method by its name, of a class of any language.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::Error::Unavailable): more calls wait than [`ActorOptions::max_pending_calls`]
    /// allows.
    pub fn call<R>(&self, method: &str, args: Args) -> Result<ObjectRef<R>> {
        call::method(self.raw.as_ptr(), method, (&[], 0), None, &args.0)
    }

    /// A call of a generator method by its name.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn stream<R>(&self, method: &str, args: Args) -> Result<ObjectStream<R>> {
        call::stream(self.raw.as_ptr(), method, (&[], 0), None, &args.0)
    }

    /// A method by its name, of a class of any language, for calls with options or several results.
    #[must_use]
    pub fn method(&self, name: impl Into<String>) -> Method {
        self.__method(name, (&[], 0))
    }

    #[doc(hidden)]
    pub fn __method(&self, name: impl Into<String>, groups: Groups) -> Method {
        Method { actor: self.clone(), name: name.into(), groups, options: None }
    }

    #[doc(hidden)]
    pub fn __call<R>(
        &self,
        method: &str,
        groups: Groups,
        options: Option<&TaskOptions>,
        args: &[Arg],
    ) -> Result<ObjectRef<R>> {
        call::method(self.raw.as_ptr(), method, groups, options, args)
    }

    #[doc(hidden)]
    pub fn __stream<R>(
        &self,
        method: &str,
        groups: Groups,
        options: Option<&TaskOptions>,
        args: &[Arg],
    ) -> Result<ObjectStream<R>> {
        call::stream(self.raw.as_ptr(), method, groups, options, args)
    }

    #[doc(hidden)]
    pub fn __create(
        target: &Target,
        class: &str,
        concurrent: bool,
        options: &ActorOptions,
        args: &[Arg],
    ) -> Result<Self> {
        if options.max_concurrency > 1 && !concurrent {
            return Err(crate::Error::InvalidArgument(format!(
                "max_concurrency of {class}: its methods may change it, so they run one at a time; mark the impl block with \
                 #[libray::remote(concurrent)] and take &self"
            )));
        }
        #[derive(Serialize)]
        struct Metadata<'a> {
            language: &'a str,
            class: &'a str,
        }
        let metadata = Metadata { language: "rust", class };
        let metadata = rmp_serde::to_vec_named(&metadata).unwrap_or_default(); // two strings: it does not fail
        call::create(target, options, &metadata, args).map(Self::from_raw)
    }
}

/// A method of one actor, as [`Function`](crate::Function) is a function: made by [`ActorHandle::method`].
///
/// ```no_run
/// use libray::{ActorHandle, Args, TaskOptions};
/// let counter = ActorHandle::find("counter")?;
/// let both = counter.method("minmax").with(TaskOptions::new().max_retries(1)).call_many::<i64>(2, Args::new())?;
/// println!("{:?}", libray::get_all(&both)?);
/// # Ok::<(), libray::Error>(())
/// ```
#[derive(Clone)]
pub struct Method {
    actor: ActorHandle,
    name: String,
    groups: Groups,
    options: Option<TaskOptions>,
}

impl Method {
    /// Options of the calls that it makes from now on.
    #[must_use]
    pub fn with(mut self, options: TaskOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// Calls it; the result is read as an `R`.
    ///
    /// # Errors
    /// As [`ActorHandle::call`].
    pub fn call<R>(&self, args: Args) -> Result<ObjectRef<R>> {
        call::method(self.actor.raw.as_ptr(), &self.name, self.groups, self.options.as_ref(), &args.0)
    }

    /// Calls it for this many results, each of which is read as an `R`; 0 = nobody will look at them.
    ///
    /// # Errors
    /// As [`ActorHandle::call`].
    pub fn call_many<R>(&self, results: u32, args: Args) -> Result<Vec<ObjectRef<R>>> {
        call::method_many(self.actor.raw.as_ptr(), &self.name, self.groups, self.options.as_ref(), results, &args.0)
    }

    /// Calls a generator method.
    ///
    /// # Errors
    /// As [`ActorHandle::call`].
    pub fn stream<R>(&self, args: Args) -> Result<ObjectStream<R>> {
        call::stream(self.actor.raw.as_ptr(), &self.name, self.groups, self.options.as_ref(), &args.0)
    }
}

impl fmt::Debug for ActorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorHandle({})", self.id())
    }
}

/// Inside a value it is a handle at the other side too. Fails outside of the values that libray sends or puts.
impl Serialize for ActorHandle {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut out = ptr::null_mut();
        // SAFETY: the handle is ours.
        check(|e| unsafe { sys::ray_actor_to_ref(self.raw.as_ptr(), &mut out, e) })
            .map_err(serde::ser::Error::custom)?;
        let index = codec::push_ref("an actor handle", RawRef::from_owned(out))?;
        codec::serialize_ext(serializer, EXT_ACTOR, &index.to_be_bytes())
    }
}

impl<'de> Deserialize<'de> for ActorHandle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let ext = codec::read_ext(deserializer, "an actor handle")?;
        let index = ext.index(EXT_ACTOR, "an actor handle")?;
        let reference = codec::reference_at("an actor handle", index)?;
        let mut out = ptr::null_mut();
        // SAFETY: the reference is ours.
        check(|e| unsafe { sys::ray_actor_from_ref(reference.as_ptr(), &mut out, e) })
            .map_err(serde::de::Error::custom)?;
        Ok(Self::from_raw(RawActor::from_owned(out)))
    }
}
