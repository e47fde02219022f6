"""Start and stop of the runtime in this process, and what belongs to it."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any, Dict, Iterator, List, Optional

from . import _libray

_PATH = "LIBRAY_PYTHON_PATH"  # sys.path of the driver, for its workers
_PRELOAD = "LIBRAY_PYTHON_PRELOAD"  # modules that the zygote may import when it is idle
_context: Optional["Context"] = None
_on_shutdown: List[Any] = []  # called before the runtime stops


class Context:
    """What init returns: also a dict and a context manager that shuts down at its end."""

    def __init__(self, address: str) -> None:
        self.address_info: Dict[str, Any] = {
            "address": address,
            "session_dir": address,
            "node_id": None,
            "gcs_address": address,
        }
        self.dashboard_url = ""

    def __getitem__(self, key: str) -> Any:
        if key == "node_id" and self.address_info["node_id"] is None:
            self.address_info["node_id"] = _libray.context()["node"]
        return self.address_info[key]

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self.address_info else default

    def __contains__(self, key: object) -> bool:
        return key in self.address_info

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __enter__(self) -> "Context":
        return self

    def __exit__(self, *exc: Any) -> None:
        shutdown()

    def disconnect(self) -> None:
        shutdown()

    def __repr__(self) -> str:
        return f"libray.Context(session_dir={self.address_info['session_dir']!r})"


def is_initialized() -> bool:
    """Whether this process is connected to a node (inside a task: always)."""
    return bool(_libray.is_initialized())


def worker_argv() -> List[str]:
    """Command of the warm process from which workers are forked. A path, not -m: that would let a
    module beside the script stand in for one of the standard library."""
    return [
        sys.executable or "python3",
        os.path.join(os.path.dirname(os.path.abspath(__file__)), "_zygote.py"),
    ]


def _driver_path() -> str:
    return os.pathsep.join(os.path.abspath(p) if p else os.getcwd() for p in sys.path)


def _further_resources(resources: Optional[Dict[str, float]], gpus: Optional[float]) -> bytes:
    """What the node has besides CPUs, as MessagePack."""
    further = dict(resources or {})
    for reserved in ("CPU", "GPU"):
        if reserved in further:
            raise ValueError(
                f"Use the 'num_cpus' and 'num_gpus' keyword instead of '{reserved}' in resources"
            )
    if gpus:
        further["GPU"] = gpus
    if not further:
        return b""
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
    _temp_dir: Optional[str] = None,
    **ignored: Any,
) -> Context:
    """Starts a private one-node cluster, or joins the one at `address` (the path of its session
    directory; also LIBRAY_ADDRESS in the environment). `libray.shutdown()`, the end of the program,
    or its death ends it."""
    if _libray.is_initialized():
        if _libray.is_worker() or ignore_reinit_error:
            assert _context is not None
            return _context
        raise RuntimeError(
            "Maybe you called libray.init twice by accident? This error can be suppressed by passing in "
            "'ignore_reinit_error=True' or by calling 'libray.shutdown()' prior to 'libray.init()'."
        )
    unknown = set(ignored) - _ACCEPTED
    if unknown:
        raise TypeError(f"init() got an unexpected keyword argument '{sorted(unknown)[0]}'")
    if ignored.get("runtime_env"):
        raise NotImplementedError(
            "runtime_env is not supported yet: set the environment before libray.init()"
        )
    if num_cpus is not None and num_cpus < 0:
        raise ValueError(f"num_cpus must not be negative, got {num_cpus}")
    if address in ("auto", "local"):
        if address == "auto" and not os.environ.get("LIBRAY_ADDRESS"):
            raise ConnectionError(
                "Could not find any running libray instance. Please specify the one to connect to by "
                "setting LIBRAY_ADDRESS or the `address` argument."
            )
        address = None
    return _start(
        {
            "address": address or "",
            "namespace": namespace or "",
            "session_dir": _temp_dir or "",
            "job_name": job_name or os.path.basename(sys.argv[0] if sys.argv else "") or "python",
            "num_cpus": float(num_cpus or 0),
            "store_bytes": int(object_store_memory or 0),
            "spill_bytes": int(spill_bytes),
            "gcs_shards": int(gcs_shards),
            "resources": _further_resources(resources, num_gpus),
            "worker_argv": worker_argv(),
        }
    )


# Keywords of Ray that mean nothing here.
_ACCEPTED = {
    "include_dashboard",
    "dashboard_host",
    "dashboard_port",
    "configure_logging",
    "logging_level",
    "logging_format",
    "logging_config",
    "log_to_driver",
    "runtime_env",
    "labels",
    "job_config",
    "local_mode",
    "_system_config",
    "_node_ip_address",
    "_metrics_export_port",
    "_redis_password",
    "enable_resource_isolation",
}


def _start(options: Dict[str, Any]) -> Context:
    global _context
    saved = {key: os.environ.get(key) for key in (_PATH, _PRELOAD)}
    os.environ[_PATH] = _driver_path()
    os.environ[_PRELOAD] = "numpy" if "numpy" in sys.modules else ""
    try:
        started = _libray.init(options)
    finally:
        for key, value in saved.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
    _context = Context(started["session_dir"])
    return _context


def adopt_worker(options: Dict[str, Any]) -> None:
    """In a worker: joins the node that started this process."""
    global _context
    started = _libray.init(options)
    _context = Context(started["session_dir"])


def ensure() -> None:
    """Starts the runtime unless it runs."""
    if not _libray.is_initialized():
        init()


def shutdown(drain_seconds: float = 0.0) -> None:
    """Ends the job and, if this process started it, the cluster. Waits up to `drain_seconds` for
    submitted tasks."""
    global _context
    if _libray.is_worker():
        return
    for hook in list(_on_shutdown):
        hook()
    _context = None
    _libray.shutdown(float(drain_seconds))


def _at_exit() -> None:
    if _libray.is_initialized() and not _libray.is_worker():
        try:
            shutdown()
        except BaseException:  # the interpreter is going: what is left ends with the process
            pass


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_libray.forget)
