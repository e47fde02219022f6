//! Functions and classes of any language, by name.
use crate::actor::ActorHandle;
use crate::error::{check, Result};
use crate::function::{call, Args, Target};
use crate::options::{ActorOptions, TaskOptions};
use crate::reference::ObjectRef;
use crate::runtime::handle;
use crate::stream::ObjectStream;
use libray_sys as sys;

/// The languages that functions are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Language {
    /// C and C++: what a native program registered.
    Native,
    /// Python: a module and a name in it.
    Python,
    /// Java: a class and a static method of it.
    Java,
    /// Rust: what a Rust program marked with `#[libray::remote]`.
    Rust,
}

impl Language {
    fn number(self) -> i32 {
        match self {
            Self::Native => sys::RAY_LANG_NATIVE,
            Self::Python => sys::RAY_LANG_PYTHON,
            Self::Java => sys::RAY_LANG_JAVA,
            Self::Rust => sys::RAY_LANG_RUST,
        }
    }
}

/// A function or an actor class of any language by its name. It is looked up when a worker runs it: a wrong name is
/// [`Error::UnknownFunction`](crate::Error::UnknownFunction) then.
///
/// ```no_run
/// use libray::{Function, Language};
/// let hypot = Function::new(Language::Python, "math", "hypot");
/// let five: libray::ObjectRef<f64> = hypot.call(libray::Args::new().value(3.0)?.value(4.0)?)?;
/// assert_eq!(five.get()?, 5.0);
/// # Ok::<(), libray::Error>(())
/// ```
pub struct Function {
    target: Target,
    options: Option<TaskOptions>,
}

impl Function {
    /// `container`: Python's module, Java's class; empty for Rust and native code, whose `member` is the whole name.
    #[must_use]
    pub fn new(language: Language, container: impl Into<String>, member: impl Into<String>) -> Self {
        Self { target: Target::named(language.number(), container.into(), member.into()), options: None }
    }

    /// Any symbol of a shared library, called through libffi in a native worker: no code has to be written for it.
    /// `library`: a path or a soname, empty = the C library. A wrong signature is an error of the first call, which
    /// points at the place.
    ///
    /// ```
    /// use libray::{Args, Function};
    /// # let _ray = libray::init()?;
    /// let pow = Function::of_library("libm.so.6", "pow", "f64(f64,f64)");
    /// let root: f64 = pow.call(Args::new().value(2.0)?.value(0.5)?)?.get()?;
    /// assert_eq!(root, std::f64::consts::SQRT_2);
    /// # Ok::<(), libray::Error>(())
    /// ```
    #[must_use]
    pub fn of_library(library: impl Into<String>, symbol: impl Into<String>, signature: impl Into<String>) -> Self {
        Self { target: Target::symbol(library.into(), symbol.into(), signature.into()), options: None }
    }

    /// Options of the tasks that it makes from now on.
    #[must_use]
    pub fn with(mut self, options: TaskOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// Submits a task; the result is read as an `R`.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported): nothing says how to start workers of that language, or a
    /// value cannot be read there.
    pub fn call<R>(&self, args: Args) -> Result<ObjectRef<R>> {
        self.target.submit(self.options.as_ref(), &args.0)
    }

    /// Submits a task with this many results, each of which is read as an `R`; 0 = nobody will look at them.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn call_many<R>(&self, results: u32, args: Args) -> Result<Vec<ObjectRef<R>>> {
        self.target.submit_many(self.options.as_ref(), results, &args.0)
    }

    /// Submits a generator.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn stream<R>(&self, args: Args) -> Result<ObjectStream<R>> {
        self.target.submit_stream(self.options.as_ref(), &args.0)
    }

    /// Creates an actor of the class that it names. Its methods: [`ActorHandle::method`].
    ///
    /// # Errors
    /// As [`call`](Self::call); [`Error::AlreadyExists`](crate::Error::AlreadyExists): the name is taken.
    pub fn create(&self, options: &ActorOptions, args: Args) -> Result<ActorHandle> {
        call::create(&self.target, options, &[], &args.0).map(ActorHandle::from_raw)
    }
}

/// Tells where code of another language lies: Java's class path, Python's directories (':' between them), the path of
/// a native or Rust program that is its own worker. Call it before the first function of that language is called.
///
/// # Errors
/// [`Error::WrongState`](crate::Error::WrongState) before [`init`](crate::init).
pub fn set_worker_code(language: Language, code: &str) -> Result<()> {
    let runtime = handle()?;
    // SAFETY: the view outlives the call.
    check(|e| unsafe { sys::ray_worker_code(runtime, language.number(), sys::text(code), e) })
}
