//! The runtime of this process: there is one at a time, kept in a global, so that functions need no handle of it. A
//! handle of the C API is a tagged number that is never used again, so whoever still has an old one is told so by the
//! library, whatever the thread.
use crate::error::{check, Error, Result};
use crate::options::Resources;
use crate::worker;
use libray_sys as sys;
use std::ffi::{CString, OsString};
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::Mutex;
use std::time::Duration;

static CURRENT: AtomicPtr<sys::ray_runtime> = AtomicPtr::new(ptr::null_mut());
static STARTING: Mutex<()> = Mutex::new(());

/// The handle of the runtime that runs.
pub(crate) fn handle() -> Result<*mut sys::ray_runtime> {
    let runtime = CURRENT.load(Ordering::Acquire);
    if runtime.is_null() {
        return Err(Error::not_started());
    }
    Ok(runtime)
}

/// Nanoseconds as the C API counts them; `None` = for ever.
pub(crate) fn nanoseconds(timeout: Option<Duration>) -> i64 {
    timeout.map_or(-1, |t| i64::try_from(t.as_nanos()).unwrap_or(i64::MAX))
}

/// Starts libray in this process with the defaults: [`Config::init`] of [`Config::new`].
///
/// In a process that libray started as a worker this **does not return**: it serves tasks until the node ends the
/// worker, then exits. So call it first in `main`.
///
/// # Errors
/// See [`Config::init`].
pub fn init() -> Result<Runtime> {
    Config::new().init()
}

/// Whether [`init`] was called in this process and its [`Runtime`] is alive. Any thread.
#[must_use]
pub fn is_initialized() -> bool {
    !CURRENT.load(Ordering::Acquire).is_null()
}

/// How to start or join a cluster. All settings are optional.
///
/// ```
/// let ray = libray::Config::new().num_cpus(4.0).resource("disk", 2.0).init()?;
/// assert!(ray.session_dir().is_dir());
/// # Ok::<(), libray::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Config {
    address: String,
    namespace: String,
    session_dir: PathBuf,
    num_cpus: f64,
    resources: Resources,
    store_bytes: u64,
    spill_bytes: u64,
    job_name: String,
    worker_arguments: Vec<String>,
}

impl Config {
    /// The defaults: a private node that ends with this process, or the one that `LIBRAY_ADDRESS` names.
    pub fn new() -> Self {
        Self::default()
    }

    /// Joins the cluster whose session directory this is, instead of starting one.
    pub fn address(mut self, session_dir: impl Into<String>) -> Self {
        self.address = session_dir.into();
        self
    }

    /// The namespace of named actors; else this job has one of its own.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = name.into();
        self
    }

    /// Where the session's folder is made; else `LIBRAY_TMPDIR`, else a folder of this user below `/tmp`.
    pub fn session_dir(mut self, parent: impl Into<PathBuf>) -> Self {
        self.session_dir = parent.into();
        self
    }

    /// Processors of the node; else those that this process may use.
    pub fn num_cpus(mut self, n: f64) -> Self {
        self.num_cpus = n;
        self
    }

    /// A further resource of the node, such as `"GPU"` or one of your own.
    pub fn resource(mut self, name: impl Into<String>, amount: f64) -> Self {
        self.resources.set(name, amount);
        self
    }

    /// Capacity of the object store in memory; else 30 % of the machine's.
    pub fn store_bytes(mut self, bytes: u64) -> Self {
        self.store_bytes = bytes;
        self
    }

    /// How much may be spilled to disk; else as much as there is.
    pub fn spill_bytes(mut self, bytes: u64) -> Self {
        self.spill_bytes = bytes;
        self
    }

    /// A name for people and tools.
    pub fn job_name(mut self, name: impl Into<String>) -> Self {
        self.job_name = name.into();
        self
    }

    /// Command line arguments with which this program is started as a worker; none by default. A program that calls
    /// [`init`] only with certain arguments gives them here; so does a test of the standard harness, which is its own
    /// worker: `worker_arguments(["tests::squares", "--exact", "--nocapture"])`, and calls [`Config::init`] before
    /// anything else.
    pub fn worker_arguments<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.worker_arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// Starts or joins, and blocks until the node takes work. In a worker it does not return (see [`init`]).
    ///
    /// What the process needs lives as long as the [`Runtime`] that is handed out. Any thread may call it; the
    /// runtime is for all threads of the process.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it runs already; [`Error::Unavailable`] when the node does not start, with the name
    /// of its log; [`Error::Unsupported`] when the loaded library does not fit; [`Error::InvalidArgument`].
    pub fn init(self) -> Result<Runtime> {
        let starting = STARTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if is_initialized() {
            return Err(Error::WrongState(
                "libray runs in this process already: keep its Runtime, or drop it first".into(),
            ));
        }
        sys::check().map_err(Error::Unsupported)?;
        worker::check_names()?;
        let runtime = self.start()?;
        // SAFETY: a handle of this library, of which this function has a count.
        if unsafe { sys::ray_runtime_mode(runtime) } == sys::RAY_MODE_WORKER {
            CURRENT.store(runtime, Ordering::Release);
            drop(starting); // a task that calls init is told that it runs already
            worker::serve(runtime);
        }
        CURRENT.store(runtime, Ordering::Release);
        Ok(Runtime { handle: runtime })
    }

    fn start(&self) -> Result<*mut sys::ray_runtime> {
        let command = self.worker_command()?;
        let mut argv: Vec<_> = command.iter().map(|a| a.as_ptr()).collect();
        argv.push(ptr::null());
        let session_dir = self.session_dir.to_string_lossy();
        let resources = self.resources.encode();
        let options = sys::ray_runtime_options {
            address: sys::text(&self.address),
            ns: sys::text(&self.namespace),
            session_dir: sys::text(&session_dir),
            num_cpus: self.num_cpus,
            resources_msgpack: sys::bytes(&resources),
            store_bytes: self.store_bytes,
            spill_bytes: self.spill_bytes,
            language: sys::RAY_LANG_RUST,
            worker_argv: argv.as_ptr(),
            job_name: sys::text(&self.job_name),
            ..Default::default()
        };
        let mut runtime = ptr::null_mut();
        // SAFETY: all views outlive the call, which copies them.
        check(|e| unsafe { sys::ray_init(&options, &mut runtime, e) })?;
        Ok(runtime)
    }

    /// This very program, and the arguments asked for.
    fn worker_command(&self) -> Result<Vec<CString>> {
        let program = std::env::current_exe()
            .map_err(|e| Error::Unavailable(format!("the path of this program, which is to be its own worker: {e}")))?;
        let arguments = self.worker_arguments.iter().map(OsString::from);
        let c_string = |s: OsString| {
            CString::new(s.into_vec())
                .map_err(|_| Error::InvalidArgument("a worker argument contains a zero byte".into()))
        };
        std::iter::once(program.into_os_string()).chain(arguments).map(c_string).collect()
    }
}

/// What keeps libray running in this process. Dropping it ends the job: what is not finished is cancelled; a cluster
/// that this process started ends with it. References and values that came before can still be held, read and
/// dropped.
#[derive(Debug)]
#[must_use = "libray stops when this is dropped"]
pub struct Runtime {
    handle: *mut sys::ray_runtime,
}

// SAFETY: any function of the C API may be called from any thread.
unsafe impl Send for Runtime {}
// SAFETY: as above.
unsafe impl Sync for Runtime {}

impl Runtime {
    /// Directory of this session's logs, journal and sockets.
    #[must_use]
    pub fn session_dir(&self) -> PathBuf {
        // SAFETY: the view is borrowed from the runtime, which lives as long as self, and copied here.
        let bytes = unsafe {
            let view = sys::ray_runtime_session_dir(self.handle);
            crate::error::slice(view.data.cast(), view.size)
        };
        PathBuf::from(OsString::from_vec(bytes.to_vec()))
    }

    /// Ends the job like a drop, but waits first for what was submitted, at most this long. `None` = as long as it
    /// takes.
    ///
    /// # Errors
    /// [`Error::WrongState`] in a task.
    pub fn shutdown(self, drain: Option<Duration>) -> Result<()> {
        // SAFETY: the handle is ours until drop.
        check(|e| unsafe { sys::ray_shutdown(self.handle, nanoseconds(drain), e) })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _ = CURRENT.compare_exchange(self.handle, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed);
        // SAFETY: the one count that ray_init gave. What still uses the number is told that it is stale.
        unsafe { sys::ray_runtime_release(self.handle) }
    }
}

/// Id of a task, object, actor, node, job or placement group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Id(pub(crate) [u8; sys::RAY_ID_SIZE]);

impl Id {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the id of nothing.
    #[must_use]
    pub fn is_nil(&self) -> bool {
        self.0.iter().all(|b| *b == 0)
    }
}

impl From<sys::ray_id> for Id {
    fn from(id: sys::ray_id) -> Self {
        Self(id.b)
    }
}

/// 48 hexadecimal digits.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

/// Where the calling thread stands: see [`context`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Context {
    /// The job that this process works for.
    pub job: Id,
    /// The node that it is on.
    pub node: Id,
    /// The task that this thread runs, or the driver's.
    pub task: Id,
    /// The actor that this process is; nil if it is none.
    pub actor: Id,
    /// The process's number.
    pub pid: u32,
    /// Index of this process on its node.
    pub worker: u32,
    /// Whether this process is a worker.
    pub is_worker: bool,
}

/// Where the calling thread stands: its job, node, task and actor.
///
/// # Errors
/// [`Error::WrongState`] before [`init`].
pub fn context() -> Result<Context> {
    let runtime = handle()?;
    let mut c = sys::ray_context::default();
    // SAFETY: `c` outlives the call.
    check(|e| unsafe { sys::ray_runtime_context(runtime, &mut c, e) })?;
    Ok(Context {
        job: c.job.into(),
        node: c.node.into(),
        task: c.task.into(),
        actor: c.actor.into(),
        pid: c.pid,
        worker: c.worker,
        // SAFETY: a number, checked by the library.
        is_worker: unsafe { sys::ray_runtime_mode(runtime) } == sys::RAY_MODE_WORKER,
    })
}
