"""An exception of this process, as text for people and as the bytes that its caller gets; and the error for a value that
cannot be read.

`dump_error` and `unreadable` are called by the extension, on the thread that ran the task or read the value; nothing is
kept. The other direction, from a code and bytes to an exception, is `exceptions.make_error`."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from typing import Any, Tuple

from .. import _libray
from ..exceptions import ARGUMENT, CrossLanguageError, RayError, RaySystemError, RayTaskError, UnserializableException
from . import error_map, own_actor

# The folder of the package: its own lines are left out of tracebacks.
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def _user_traceback(exc: BaseException) -> str:
    """The traceback without the lines of this package."""
    try:
        report = traceback.TracebackException.from_exception(exc)
        _drop_own_frames(report)
        lines = list(report.format())
    except Exception as e:  # an exception whose __str__ fails, say
        return f"{_frames_only(exc)}{type(exc).__name__} (its text cannot be made: {e!r})"
    if lines and lines[0].startswith("Traceback"):
        lines = lines[1:]
    return "".join(lines).rstrip()


def _drop_own_frames(report: Any) -> None:
    report.stack[:] = [frame for frame in report.stack if not frame.filename.startswith(_HERE)]
    for chained in (report.__cause__, report.__context__):
        if chained is not None:
            _drop_own_frames(chained)


def _dump_cause(cause: BaseException, text: str) -> bytes:
    """The exception as bytes that can be read again, or a RayError that describes it."""
    import cloudpickle

    name = f"{type(cause).__module__}.{type(cause).__qualname__}"
    try:
        blob = bytes(cloudpickle.dumps(cause, protocol=5))
    except Exception as e:
        return pickle.dumps(
            RayError(
                f"Exception {name} isn't serializable: {e}.\nOriginal exception details:\n{text}"
            )
        )
    try:
        pickle.loads(blob)
    except Exception as e:
        return pickle.dumps(
            UnserializableException(f"{text}\n({name} isn't serializable: reading it fails: {e!r})")
        )
    return blob


def _is_fatal(exc: BaseException) -> bool:
    """Whether the exception is one that ends a process: SystemExit, KeyboardInterrupt and what else
    is no Exception, but not the end of a coroutine."""
    if isinstance(exc, (Exception, GeneratorExit)):
        return False
    asyncio = sys.modules.get("asyncio")
    return asyncio is None or not isinstance(exc, asyncio.CancelledError)


def dump_error(exc: BaseException, function: str) -> Tuple[str, bytes, bool]:
    """(one line, payload, False) of a remote exception, the payload a MessagePack map; or (text, b"", True)
    of one that ends the process."""
    pid = os.getpid()
    if _is_fatal(exc):
        text = f"{function}() (pid={pid}) raised {type(exc).__name__}:\n{_user_traceback(exc)}"
        return error_map.clean(text), b"", True
    short = error_map.clean(f"{function}: {type(exc).__name__}: {_first_line(exc)}")
    cause: BaseException = exc
    if isinstance(exc, RayTaskError):  # an error of a nested task passes through with its own cause
        cause = exc if isinstance(exc, CrossLanguageError) or exc.cause is None else exc.cause
    text = _remote_text(exc, function)
    return short, error_map.pack(cause, function, pid, text, _dump_cause(cause, text)), False


def _remote_text(exc: BaseException, function: str) -> str:
    head = f"ray::{function}() (pid={os.getpid()}, ip=127.0.0.1{_actor_label()})"
    if isinstance(exc, RayTaskError):
        return f"{head}\n{_frames_only(exc)}ray.exceptions.{type(exc).__name__}: {exc.traceback_str}"
    if isinstance(exc, RaySystemError) and exc._of_argument:
        return f"{head}\n  {ARGUMENT}:\nray.exceptions.RaySystemError: {exc}"
    return f"{head}\n{_user_traceback(exc)}"


def creation_text(exc: BaseException, class_name: str) -> str:
    """What the worker prints when a constructor failed: nobody may ever call the actor and be told."""
    return (
        "Exception raised in creation task: The actor died because of an error raised in its creation task, "
        + _remote_text(exc, f"{class_name}.__init__")
    )


def _actor_label() -> str:
    """In an actor: its id and its repr."""
    if not _libray.is_worker():
        return ""
    actor = own_actor.own_actor()
    if actor is None:
        return ""
    instance = _libray._actor_instance()  # None while the constructor runs
    try:
        return f", actor_id={actor}" + ("" if instance is None else f", repr={instance!r}")
    except Exception:  # of the user's __repr__
        return f", actor_id={actor}"


def _first_line(exc: BaseException) -> str:
    try:
        text = str(exc)
    except Exception:
        text = "(its text cannot be made)"
    return text.splitlines()[0] if text else ""


def _frames_only(exc: BaseException) -> str:
    frames = [
        f for f in traceback.extract_tb(exc.__traceback__) if not f.filename.startswith(_HERE)
    ]
    return "".join(traceback.format_list(frames))


def unreadable(what: str, error: BaseException) -> BaseException:
    """The error for a value that came here whole and cannot be read: its class refuses to be made again, or its module
    is not there. `what`: of what it is the value. Called by the extension."""
    if not isinstance(error, Exception) or isinstance(error, MemoryError):
        return error  # of this process, not of the value
    if getattr(error, "_is_result", False):  # of local mode, where the value stands for an error
        return error
    if getattr(error, "names_nothing", False):  # no value at all: a name
        return error
    task = _libray._current_task()
    where = f"in {task[0]}()" if task else "here"
    text = f"reading {what} failed {where} (pid={os.getpid()}): {type(error).__name__}: {_first_line(error)}"
    made = RaySystemError(text, _user_traceback(error))
    made._of_argument = what.startswith("argument")
    made.__cause__ = error
    return made
