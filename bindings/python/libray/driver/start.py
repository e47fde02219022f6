"""Start and end of the runtime in this process: `init`, `shutdown`, what the end of the program and a fork do to it.

`init` and `shutdown` are called by programs on any thread, one at a time (`_starting`); `ensure` by the extension, when
a call needs a runtime and none runs; `adopt_worker` by a worker's main program. What others need to know of the result
lies in core/process.py."""

from __future__ import annotations

import _thread
import atexit
import math
import os
import sys
from typing import Any, Dict, Iterator, List, Mapping, Optional

from .. import _libray, exceptions
from ..core import accelerators, import_ray, process, runtime_env as _runtime_env, sessions

PATH = "LIBRAY_PYTHON_PATH"  # sys.path of the driver, for its workers
_PRELOAD = "LIBRAY_PYTHON_PRELOAD"  # modules that the zygote may import when it is idle
_context: Optional["RayContext"] = None
_log_monitor: Any = None  # shows what the workers print (driver)
_starting = _thread.RLock()  # held while a thread starts the runtime


class RayContext(Mapping):  # type: ignore[type-arg]
    """What init returns: also a dict and a context manager that shuts down at its end."""

    def __init__(self, address: str) -> None:
        self.address_info: Dict[str, Any] = {
            "address": address,
            "session_dir": address,
            "node_id": _libray.context()["node"],
            "gcs_address": address,
            "node_ip_address": "127.0.0.1",
            "raylet_socket_name": os.path.join(address, "node.sock"),
            "object_store_address": os.path.join(address, "store.sock"),
            # What libray does not have: redis, a dashboard and open ports.
            "redis_address": None,
            "webui_url": "",
            "metrics_export_port": 0,
            "dashboard_agent_listen_port": 0,
        }
        self.dashboard_url = ""
        self.python_version = sys.version.split()[0]
        self.ray_version = import_ray.RAY_VERSION
        self.ray_commit = _libray.build_info()

    def __getitem__(self, key: str) -> Any:
        return self.address_info[key]

    def __len__(self) -> int:
        return len(self.address_info)

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __enter__(self) -> "RayContext":
        return self

    def __exit__(self, *exc: Any) -> None:
        shutdown()

    def disconnect(self) -> None:
        shutdown()

    def __repr__(self) -> str:
        return (
            f"RayContext(dashboard_url={self.dashboard_url!r}, python_version={self.python_version!r}, "
            f"ray_version={self.ray_version!r}, ray_commit={self.ray_commit!r})"
        )


def running_context() -> Optional[RayContext]:
    """What init returned; None when no runtime runs."""
    return _context


def is_initialized() -> bool:
    """Whether this process is connected to a node (inside a task: always)."""
    return bool(_libray.is_initialized())


def worker_argv() -> List[str]:
    """Command of the warm process from which workers are forked. A path, not -m: that would let a
    module beside the script stand in for one of the standard library."""
    return [
        sys.executable or "python3",
        os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_zygote.py"),
    ]


def _driver_path() -> str:
    return os.pathsep.join(os.path.abspath(p) if p else os.getcwd() for p in sys.path)


def _check_quantity(name: str, amount: Any) -> None:
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise TypeError(f"the quantity of resource {name!r} must be a number, got {type(amount)}")
    if amount < 0:
        raise ValueError(f"Resource quantities must be nonnegative. Violated by {name!r}: {amount}")
    if not amount <= 1e13:  # also what is no number
        raise ValueError(f"Resource quantities must be at most 1e13. Violated by {name!r}: {amount}")


def _store_bytes(wanted: Any) -> int:
    if wanted is None:
        return 0
    if isinstance(wanted, bool) or not isinstance(wanted, (int, float)):
        raise TypeError(f"object_store_memory must be a number of bytes, got {type(wanted)}")
    if wanted < _MIN_STORE:
        raise ValueError(
            f"Attempting to cap object store memory usage at {wanted} bytes, but the minimum allowed is "
            f"{_MIN_STORE} bytes."
        )
    return int(wanted)


_MIN_STORE = 256 << 10  # what the daemon accepts


def _parent_folder(wanted: Optional[str]) -> str:
    """Where the session's folder goes. One that others may write to, such as /tmp, holds a folder of this user."""
    import stat

    if not wanted:
        return ""
    folder = os.path.abspath(os.path.expanduser(os.fspath(wanted)))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    status = os.stat(folder)
    if status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return folder
    own = os.path.join(folder, f"libray-{os.getuid()}")
    os.makedirs(own, mode=0o700, exist_ok=True)
    return own


def _usual_resources(memory: Optional[float], store_bytes: int) -> Dict[str, float]:
    """What every node of Ray has: memory that tasks may ask for, and resources that name the node."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    store = store_bytes or int(0.3 * total)
    return {
        "memory": float(math.floor(memory) if memory is not None else max(total - store, 0)),
        "object_store_memory": float(store),
        "node:127.0.0.1": 1.0,
        "node:__internal_head__": 1.0,
    }


def _further_resources(
    resources: Optional[Dict[str, float]],
    gpus: Optional[float],
    usual: Dict[str, float],
    no_cpus: bool,
) -> bytes:
    """What the node has besides CPUs, as MessagePack."""
    if resources is not None and not isinstance(resources, dict):
        raise TypeError(f"resources must be a dict of name -> number, got {type(resources)}")
    further = {**usual, **(resources or {})}
    for reserved in ("CPU", "GPU"):
        if reserved in further:
            raise ValueError(
                f"Use the 'num_cpus' and 'num_gpus' keyword instead of '{reserved}' in resources"
            )
    if gpus is None:
        gpus = accelerators.of_this_machine()
    else:
        accelerators.check(gpus)
    if gpus:
        further["GPU"] = gpus
    if no_cpus:  # the option num_cpus takes 0 for "as many as there are"
        further["CPU"] = 0
    for name, amount in further.items():
        _check_quantity(name, amount)
    return bytes(_libray.encode({k: float(v) for k, v in further.items()}, False)[1])


def init(
    address: Optional[str] = None,
    *,
    num_cpus: Optional[float] = None,
    num_gpus: Optional[float] = None,
    resources: Optional[Dict[str, float]] = None,
    object_store_memory: Optional[int] = None,
    namespace: Optional[str] = None,
    ignore_reinit_error: bool = False,
    job_name: str = "",
    spill_bytes: int = 0,
    gcs_shards: int = 0,
    java_classpath: Optional[str] = None,
    rust_binary: Optional[str] = None,
    native_binary: Optional[str] = None,
    _temp_dir: Optional[str] = None,
    **ignored: Any,
) -> RayContext:
    """Starts a private one-node cluster, or joins the one at `address` (the path of its session
    directory; also LIBRAY_ADDRESS in the environment). `libray.shutdown()`, the end of the program,
    or its death ends it. `java_classpath`, `rust_binary`, `native_binary`: where functions of other languages are
    (docs/cross_language.md)."""
    with _starting:
        running = _running(ignore_reinit_error)
    if running is not None:
        return running
    unknown = sorted(set(ignored) - _ACCEPTED)
    if unknown:
        raise RuntimeError(f"Unknown keyword argument(s): {', '.join(unknown)}")
    _check_quantity("CPU", num_cpus or 0)
    _check_quantity("GPU", num_gpus or 0)
    job, logging_config = _job_of(ignored), ignored.get("logging_config")
    code = _code_of(job, {"java": java_classpath, "rust": rust_binary, "native": native_binary})
    if namespace is None and job is not None:
        namespace = job.ray_namespace
    _check_namespace(namespace)
    environment = _runtime_env.for_job(_runtime_env.hooked(ignored.get("runtime_env")))
    store_bytes = _store_bytes(object_store_memory)
    address = _resolve(address)
    if address:
        _check_joining(num_cpus, num_gpus, resources, ignored.get("labels"), object_store_memory)
    with _starting:
        running = _running(ignore_reinit_error)  # another thread was faster
        if running is not None:
            return running
        context = _start(
            {
                "address": address,
                "namespace": namespace or "",
                "session_dir": _parent_folder(_temp_dir),
                "job_name": job_name or os.path.basename(sys.argv[0] if sys.argv else "") or "python",
                "num_cpus": float(num_cpus or 0),
                "store_bytes": store_bytes,
                "spill_bytes": int(spill_bytes),
                "gcs_shards": int(gcs_shards),
                "resources": b"" if address else _further_resources(
                    resources,
                    num_gpus,
                    _usual_resources(ignored.get("_memory"), store_bytes),
                    num_cpus == 0,
                ),
                "worker_argv": worker_argv(),
            },
            {**environment, **_set_up_logging(logging_config, ignored), **_environment_of(job)},
            ignored.get("log_to_driver", True) is not False,
        )
        _set_code(code)
    _further_modes(ignored, namespace or "", address)
    return context


def _further_modes(given: Dict[str, Any], namespace: str, address: str) -> None:
    """What few programs ask for."""
    if hasattr(sys, "ps1"):  # a shell or a notebook
        from ..core import unread

        unread.watch_interactive()
    if given.get("local_mode"):
        from ..api import local_mode

        local_mode.enable(namespace)
    if given.get("labels") and not address:
        from ..api import placement

        placement.keep_labels(given["labels"])


def _running(ignore_reinit_error: bool) -> Optional[RayContext]:
    """The context of a runtime that runs already, which is an error unless it may be ignored."""
    if not _libray.is_initialized():
        return None
    if _context is not None and (_libray.is_worker() or ignore_reinit_error):
        return _context
    raise RuntimeError(
        import_ray.named(
            "Maybe you called libray.init twice by accident? This error can be suppressed by passing "
            "in 'ignore_reinit_error=True' or by calling 'libray.shutdown()' prior to "
            "'libray.init()'."
        )
    )


# Keywords of Ray that mean nothing here, or are looked at above.
_ACCEPTED = {
    "allow_multiple",
    "cgroup_path",
    "configure_logging",
    "dashboard_host",
    "dashboard_port",
    "enable_resource_isolation",
    "include_dashboard",
    "job_config",
    "labels",
    "local_mode",
    "log_to_driver",
    "logging_config",
    "logging_format",
    "logging_level",
    "proxy_server_url",
    "runtime_env",
    "storage",
    "system_reserved_cpu",
    "system_reserved_memory",
    "_cgroup_path",
    "_driver_object_store_memory",
    "_enable_object_reconstruction",
    "_memory",
    "_metrics_export_port",
    "_node_ip_address",
    "_node_name",
    "_plasma_directory",
    "_redis_password",
    "_redis_username",
    "_skip_env_hook",
    "_system_config",
    "_tracing_startup_hook",
}


def _job_of(given: Dict[str, Any]) -> Any:
    if given.get("job_config") is None:
        return None
    from .job_config import as_job_config

    job = as_job_config(given["job_config"])
    if job.runtime_env and not given.get("runtime_env"):
        given["runtime_env"] = job.runtime_env
    return job


def _code_of(job: Any, given: Dict[str, Optional[str]]) -> Dict[str, Any]:
    """Where the code of other languages lies: what `init` was given goes before the job's code_search_path."""
    paths = job.code_search_path if job is not None else []
    given = {language: where for language, where in given.items() if where}
    if not paths and not given:
        return {}
    from ..api import foreign

    return {**foreign.code_of_paths(paths), **{k: os.fspath(v) for k, v in given.items() if v}}


def _set_code(code: Dict[str, Any]) -> None:
    if code:
        from ..api import foreign

        foreign.set_code(code)


def _environment_of(job: Any) -> Dict[str, str]:
    """Of the workers, from the job's configuration: options of the JVM, and folders that Python looks for modules in."""
    out: Dict[str, str] = {}
    if job is None:
        return out
    if job.jvm_options:
        out["LIBRAY_JAVA_OPTIONS"] = " ".join(job.jvm_options)
    folders = [os.path.abspath(p) for p in job.code_search_path if os.path.isdir(p)]
    if folders:
        out[PATH] = os.pathsep.join([_driver_path(), *folders])
    return out


def _check_joining(cpus: Any, gpus: Any, resources: Any, labels: Any, store: Any) -> None:
    for name, value in (
        ("num_cpus and num_gpus", cpus if gpus is None else gpus),
        ("resources", resources),
        ("labels", labels),
        ("object_store_memory", store),
    ):
        if value is not None:
            raise ValueError(f"When connecting to an existing cluster, {name} must not be provided.")


def _check_namespace(namespace: Any) -> None:
    if namespace is None:
        return
    if not isinstance(namespace, str):
        raise TypeError("namespace must be None or a string.")
    if not namespace:
        raise ValueError('"" is not a valid namespace. Pass None to not specify a namespace.')


def _resolve(address: Optional[str]) -> str:
    """The session directory to join; empty to start a cluster. LIBRAY_ADDRESS and RAY_ADDRESS stand for an address that
    is not given; "auto" is the newest running session of this user."""
    if address is None:
        address = os.environ.get("LIBRAY_ADDRESS") or os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        return ""
    if not isinstance(address, str):
        raise TypeError(f"address must be a str, got {type(address)}")
    if address.startswith("ray://"):
        raise ConnectionError(
            f"libray has no thin client for {address}: give the path of a session directory"
        )
    if address != "auto":
        found = address if os.path.isdir(address) else ""
        if not found and address.rpartition(":")[2].isdigit():
            found = sessions.running(address)
        if not found:
            raise ConnectionError(
                f"There is no session directory {address!r}. libray joins a running node of this machine by the path "
                'of its session directory (`libray sessions` lists them), by the address of its cluster\'s head, or as '
                '"auto"; omit the address to start a node.'
            )
        return found
    found = os.environ.get("LIBRAY_ADDRESS") or sessions.running()
    if not found:
        raise ConnectionError(
            "Could not find any running libray instance (of Ray or libray). Please specify the one to "
            "connect to by setting LIBRAY_ADDRESS or the `address` argument."
        )
    return found


def _set_up_logging(config: Any, given: Dict[str, Any]) -> Dict[str, str]:
    """In this process; returns what the workers' environment gets."""
    wanted = given.get("logging_level"), given.get("logging_format")
    if config is not None:
        from ..core import logging_setup

        text = logging_setup.to_environment(config)
        config.apply()
        return {logging_setup.ENVIRONMENT: text}
    if given.get("configure_logging", True) and ("logging" in sys.modules or any(wanted)):
        from ..core import logging_setup

        logging_setup.set_up_own_loggers(*wanted)
    return {}


def _start(options: Dict[str, Any], environment: Dict[str, str], log_to_driver: bool) -> RayContext:
    """`environment`: further variables for the workers."""
    global _context, _log_monitor
    environment = {
        # Also of a program that a task of another cluster started: nothing of that one's is for our workers.
        _runtime_env.ENVIRONMENT: "",
        "LIBRAY_LOGGING": "",
        PATH: _driver_path(),
        **environment,
        _PRELOAD: "numpy" if "numpy" in sys.modules else "",
    }
    saved = {key: os.environ.get(key) for key in environment}
    os.environ.update(environment)
    try:
        started = _libray.init(options)
    except BaseException:  # also Ctrl-C, which came while the node started
        _libray.shutdown(0.0)
        raise
    finally:
        for key, value in saved.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
    _context = RayContext(started["session_dir"])
    process.session = started["session_dir"]
    _handle_sigterm()
    _libray._answer_stack_requests()
    if log_to_driver:
        from .log_monitor import LogMonitor

        try:
            _log_monitor = LogMonitor(started["session_dir"], _libray.context()["job"])
        except OSError as e:  # no descriptors or no inotify instances left
            print(f"libray: the workers' output is not shown here: {e}", file=sys.stderr)
    return _context


_mask: Any = None  # of signals, while this thread forks


def _on_sigterm(signum: int, frame: Any) -> None:
    sys.exit(128 + signum)


own_handlers: List[Any] = [_on_sigterm]  # of SIGTERM: a forked child does not inherit them


def _before_fork() -> None:
    """CPython drops signals that reach a child before its start is over: hold back those that our
    handler would have taken."""
    global _mask
    signal = sys.modules.get("signal")
    if signal is not None and signal.getsignal(signal.SIGTERM) in own_handlers:
        _mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _after_fork() -> None:
    global _mask
    mask, _mask = _mask, None
    if mask is not None:
        import signal

        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _handle_sigterm() -> None:
    """The program ends in order when it is told to: `finally` blocks, atexit, the workers' last lines.
    A handler of the program's own stays."""
    import signal

    try:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _on_sigterm)
    except ValueError:  # not the main thread
        pass


def adopt_worker(options: Dict[str, Any]) -> None:
    """In a worker: joins the node that started this process."""
    global _context
    started = _libray.init(options)
    os.environ.pop("LIBRAY_WORKER", None)  # the runtime has dropped it too: programs that tasks start are no workers
    _context = RayContext(started["session_dir"])
    process.session = started["session_dir"]


def ensure() -> None:
    """Starts the runtime unless it runs."""
    if not _libray.is_initialized():
        if exceptions.ending:
            raise exceptions.make_error(_libray.RAY_WRONG_STATE, "the program ends: no runtime is started any more", b"", 0)
        with _starting:
            if not _libray.is_initialized():  # no other thread was faster
                init()


def shutdown(drain_seconds: float = 0.0) -> None:
    """Ends the job and, if this process started it, the cluster. Waits up to `drain_seconds` for
    submitted tasks."""
    global _context, _log_monitor
    if _libray.is_worker():
        return
    for hook in list(process.on_shutdown):
        hook()
    _show_last_errors()
    _context, process.session = None, ""
    monitor, _log_monitor = _log_monitor, None
    try:
        _libray.shutdown(float(drain_seconds))
    finally:
        if monitor is not None:
            monitor.stop()


def _show_last_errors() -> None:
    """Those that nobody looked at, and that were not shown yet."""
    try:
        rows = _libray.query("unread", b"") if _libray.is_initialized() else ()
        if rows:
            from ..core import unread

            unread.show(rows)
    except Exception:  # the node is gone: there are other worries
        pass


def _quieten() -> None:
    """Threads and finalisers that ask for results while the interpreter ends find the runtime gone. That is no news to
    anybody: their tracebacks are not shown."""

    def wrap(hook: Any) -> Any:
        def quiet(args: Any) -> None:
            if not getattr(args.exc_value, "runtime_ended", False):
                hook(args)

        return quiet

    sys.unraisablehook = wrap(sys.unraisablehook)
    threading = sys.modules.get("threading")
    if threading is not None:
        threading.excepthook = wrap(threading.excepthook)


def _at_exit() -> None:
    if _libray.is_worker():
        return
    exceptions.ending = True
    _quieten()
    if _libray.is_initialized():
        try:
            import signal

            # One more Ctrl-C ends the program at once; the node sees that and ends by itself.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            shutdown()
        except BaseException:  # the interpreter is going: what is left ends with the process
            pass


def _forget() -> None:
    """In a forked child: the runtime is the parent's."""
    global _context, _log_monitor, _starting
    _starting = _thread.RLock()  # a thread that held it is not in the child
    _libray.forget()
    _runtime_env.forget()
    _context, process.session = None, ""
    monitor, _log_monitor = _log_monitor, None
    if monitor is not None:
        monitor.abandon()
    signal = sys.modules.get("signal")
    try:
        if signal is not None and signal.getsignal(signal.SIGTERM) in own_handlers:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    except ValueError:
        pass
    _after_fork()


atexit.register(_at_exit)
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_forget)
