"""The worker's main program, run in a process that the zygote forked, on its main thread. The loop itself is in the
extension; here are its surroundings: signals, what the extension calls, and the end. The ways in which an actor may run
are in loops.py, the way from a definition to what is called in definitions.py."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from typing import Any, Optional

from .. import _libray
from ..api import placement
from ..core import accelerators, error_report, import_ray, own_actor, runtime_env
from ..driver import start
from . import definitions, loops, output, title


def _unknown_function(error: BaseException) -> bool:
    return getattr(error, "names_nothing", False) is True


def _on_sigint(signum: int, frame: Any) -> None:
    if _libray._take_interrupt():
        raise KeyboardInterrupt


def leave_child(error: Optional[BaseException]) -> None:
    """Ends a child that the user's code forked and that has come to the end of its function, as a program ends that comes
    to its own end: with its exit status, its traceback, its exit handlers."""
    import atexit
    import traceback

    code: Any = 0
    try:
        if isinstance(error, SystemExit):
            code = 0 if error.code is None else error.code
            if not isinstance(code, int):
                print(code, file=sys.stderr)
                code = 1
        elif error is not None and not isinstance(error, StopIteration):
            code = 1
            traceback.print_exception(type(error), error, error.__traceback__)
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that the child started
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        code = code or 1
    finally:
        os._exit(code & 0xFF)


def _end() -> None:
    """A graceful end: the actor's own hook, then its finaliser and those of what it owns, while the runtime still works.
    The zygote's child goes on with atexit handlers and buffers."""
    instance = _libray._actor_instance()
    if instance is None:
        return
    if not _terminated:
        try:
            _libray._worker_exit()  # nothing runs any more: from here on the node limits the time
        except Exception:  # the node is gone
            return
    hook = getattr(instance, "__ray_shutdown__", None)
    if hook is not None:
        try:
            hook()
        except BaseException:
            import traceback

            traceback.print_exc()
    del instance, hook
    _libray._drop_actor()
    import gc

    gc.collect()


_terminated = False  # SIGTERM came


def _on_sigterm(signum: int, frame: Any) -> None:
    """The process ends at once, but in order: what runs is interrupted and lost, as by any other death of its process
    (an actor that may restart does so); finalisers and atexit handlers run."""
    global _terminated
    if not _terminated:
        _terminated = True
        print("this worker ends: it received SIGTERM", file=sys.stderr)
        raise SystemExit(128 + signum)


def _handle_sigterm() -> None:
    signal.signal(signal.SIGTERM, _on_sigterm)
    start.own_handlers.append(_on_sigterm)
    _libray._wake_for_sigterm()


title_room: Any = ()  # addresses of this process's arguments, which the kernel shows


def find_title_room() -> None:
    """Called in the zygote, whose arguments its workers share."""
    global title_room
    try:
        with open("/proc/self/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        begin, end = int(fields[45]), int(fields[46])
    except (OSError, IndexError, ValueError):
        return
    if 0 < begin < end:
        title_room = (begin, end)


def _give_functions() -> None:
    """What the extension calls in a worker alone."""
    _libray.set_hooks(
        {
            "dump_error": error_report.dump_error,
            "unreadable": error_report.unreadable,
            "load_function": definitions.load_function,
            "should_retry": definitions.should_retry,
            "actor_call": own_actor.find_method,
            "enter_note": placement.enter_note,
            "enter_gpus": accelerators.enter,
            "leave_child": leave_child,
        }
    )


def _prepare() -> None:
    signal.signal(signal.SIGINT, _on_sigint)
    output.install()
    _libray._answer_stack_requests()
    faulthandler.enable(2)  # a crash in C code leaves the Python stack on the driver's terminal
    path = os.environ.get(start.PATH)
    if path:
        entries = path.split(os.pathsep)
        sys.path[:] = entries + [p for p in sys.path if p not in entries]
    runtime_env.extend_path()
    accelerators.prepare_worker()
    _give_functions()
    if os.environ.get(import_ray.ENVIRONMENT):  # before anything is unpickled
        import_ray.install_finder()
    title.install()
    if os.environ.get("LIBRAY_LOGGING"):
        from ..core import logging_setup

        logging_setup.apply_in_worker()


def run() -> int:
    """Joins the node and works until it says that this worker is to end."""
    _prepare()
    start.adopt_worker(
        {
            "address": "",
            "namespace": "",
            "session_dir": "",
            "job_name": "",
            "num_cpus": 0.0,
            "store_bytes": 0,
            "spill_bytes": 0,
            "gcs_shards": 0,
            "resources": b"",
            "worker_argv": start.worker_argv(),
        }
    )
    _libray._worker_setup(own_actor.ActorExit, _unknown_function)
    if title_room:
        _libray._title_room(*title_room)
    try:
        _handle_sigterm()
        what: Optional[str] = None
        while what not in ("end", "retire"):
            what = _libray._worker_run(True) if what is None else loops.run_actor()
        if what == "retire" and not _terminated:  # what this process submitted ends first
            _libray.shutdown(60.0)
    except SystemExit:
        if not _terminated:
            raise
    _end()
    return 128 + signal.SIGTERM if _terminated else 0
