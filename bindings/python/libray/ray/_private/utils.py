"""`ray._private.utils`."""

import _thread
import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
from typing import Any, Optional

from ray._common.utils import (  # noqa: F401
    binary_to_hex,
    decode,
    get_function_args,
    get_or_create_event_loop,
    get_system_memory,
    hex_to_binary,
    import_attr,
    load_class,
    run_background_task,
)


def get_num_cpus(override_docker_cpu_warning: bool = False, truncate: bool = True) -> float:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return multiprocessing.cpu_count()


def get_used_memory() -> int:
    return get_system_memory() - estimate_available_memory()


def estimate_available_memory() -> int:
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def ensure_str(s: Any, encoding: str = "utf-8", errors: str = "strict") -> str:
    return s if isinstance(s, str) else s.decode(encoding, errors)


def binary_to_object_ref(binary: bytes) -> Any:
    from ray import ObjectRef

    return ObjectRef(binary)


def format_error_message(exception_message: str, task_exception: bool = False) -> str:
    return exception_message


def get_ray_doc_version() -> str:
    import ray

    return ray.__version__


def get_user() -> str:
    import getpass

    return getpass.getuser()


def split_address(address: str) -> Any:
    if "://" not in address:
        return "", address
    module, rest = address.split("://", 1)
    return module, rest


def validate_namespace(namespace: str) -> None:
    if not isinstance(namespace, str):
        raise TypeError("namespace must be None or a string.")
    if namespace == "":
        raise ValueError('"" is not a valid namespace. Pass None to not specify a namespace.')


def get_current_event_loop() -> Optional[asyncio.AbstractEventLoop]:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class DeferSigint(contextlib.AbstractContextManager):
    """While it is entered, an interrupt (SIGINT) waits; it is delivered once when it is left, to the handler that is
    set by then. For the main thread: elsewhere `create_if_main_thread` gives something that does nothing."""

    def __init__(self) -> None:
        self.task_cancelled = False
        self._handler: Any = None
        self._set_signal: Any = None
        self._changed = False

    @classmethod
    def create_if_main_thread(cls) -> contextlib.AbstractContextManager:
        return cls() if is_main_thread() else contextlib.nullcontext()

    def _note(self, signum: int, frame: Any) -> None:
        self.task_cancelled = True

    def __enter__(self) -> "DeferSigint":
        self._handler = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, self._note)
        self._set_signal = signal.signal

        def set_signal(number: Any, handler: Any) -> Any:
            if number != signal.SIGINT:
                return self._set_signal(number, handler)
            before, self._handler = self._handler, handler  # takes effect when this is left
            return before

        signal.signal = set_signal  # type: ignore[assignment]
        return self

    def __exit__(self, exc_type: Any, exc: Any, exc_tb: Any) -> None:
        signal.signal = self._set_signal
        signal.signal(signal.SIGINT, self._handler)
        if exc is None and self.task_cancelled:
            _thread.interrupt_main()
