"""Errors of libray. Codes of the C API become these classes in one place, `make_error`; an
exception of a remote function comes back as a class that is both RayTaskError and the user's own
class."""

from __future__ import annotations

import os
import pickle
import traceback
from typing import Any, Dict, Optional, Tuple

from . import _libray

__all__ = [
    "RayError",
    "RayTaskError",
    "TaskCancelledError",
    "TaskUnschedulableError",
    "RayActorError",
    "ActorDiedError",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "AsyncioActorExit",
    "PendingCallsLimitExceeded",
    "LocalRayletDiedError",
    "WorkerCrashedError",
    "NodeDiedError",
    "ObjectStoreFullError",
    "OutOfDiskError",
    "OutOfMemoryError",
    "ObjectLostError",
    "ObjectFetchTimedOutError",
    "OwnerDiedError",
    "ObjectFreedError",
    "ReferenceCountingAssertionError",
    "ObjectReconstructionFailedError",
    "ObjectReconstructionFailedMaxAttemptsExceededError",
    "ObjectReconstructionFailedLineageEvictedError",
    "GetTimeoutError",
    "RaySystemError",
    "RuntimeEnvSetupError",
    "CrossLanguageError",
    "UnserializableException",
    "ActorClassInheritanceException",
    "ConflictError",
]


class RayError(Exception):
    """Base of everything that libray raises about remote work."""


class RayTaskError(RayError):
    """A remote function raised. `cause` is its exception; the text is the remote traceback.

    What `get` raises is a subclass made on the fly that also inherits from the class of the cause,
    so that `except ValueError` catches a remote ValueError.
    """

    def __init__(
        self,
        function_name: str = "",
        traceback_str: str = "",
        cause: Optional[BaseException] = None,
        pid: Optional[int] = None,
    ) -> None:
        super().__init__(function_name, traceback_str, cause)
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause = cause
        self.pid = pid

    def __str__(self) -> str:
        return self.traceback_str or f"{self.function_name}: {self.cause!r}"

    def as_instanceof_cause(self) -> "RayTaskError":
        """This error as an instance of both RayTaskError and the class of its cause."""
        cause = self.cause
        if cause is None or isinstance(cause, RayError):
            return self
        cls = _dual_class(type(cause))
        if cls is None:
            return self
        try:
            return cls(self)
        except Exception:
            return self

    def __reduce__(self) -> Tuple[Any, ...]:
        return (
            _rebuild_task_error,
            (self.function_name, self.traceback_str, self.cause, self.pid, False),
        )


_dual_classes: Dict[type, Optional[type]] = {}


def _dual_class(cause_class: type) -> Optional[type]:
    if cause_class in _dual_classes:
        return _dual_classes[cause_class]

    # The user's constructor is not run, for it may take anything; that of the builtin class below
    # it is, with the cause's args, so that errno, the exceptions of a group and the like are there.
    builtin: Any = next(c for c in cause_class.__mro__ if c.__module__ == "builtins")

    def new(cls: type, error: RayTaskError) -> Any:
        args = error.cause.args if error.cause is not None else ()
        try:
            return builtin.__new__(cls, *args)
        except TypeError:
            return builtin.__new__(cls)

    def init(self: Any, error: RayTaskError) -> None:
        args = error.cause.args if error.cause is not None else ()
        try:
            builtin.__init__(self, *args)
        except TypeError:
            pass
        self.function_name = error.function_name
        self.traceback_str = error.traceback_str
        self.cause = error.cause
        self.pid = error.pid
        self.args = args

    def getattr_(self: Any, name: str) -> Any:  # attributes of the user's exception show through
        if name.startswith("__") or name == "cause":
            raise AttributeError(name)
        return getattr(self.cause, name)

    def reduce(self: Any) -> Tuple[Any, ...]:
        return (
            _rebuild_task_error,
            (self.function_name, self.traceback_str, self.cause, self.pid, True),
        )

    body = {
        "__init__": init,
        "__str__": RayTaskError.__str__,
        "__getattr__": getattr_,
        "__reduce__": reduce,
        "__module__": __name__,
    }
    name = f"RayTaskError({cause_class.__name__})"
    body["__qualname__"] = name
    body["__new__"] = new
    try:
        made: Optional[type] = type(name, (RayTaskError, cause_class), body)
    except TypeError:  # a class that is final, or whose layout does not mix
        made = None
    if made is None:
        import logging

        logging.getLogger("libray.exceptions").warning(
            "exceptions of class %s cannot be subclassed: get raises a plain RayTaskError with .cause",
            cause_class,
        )
    _dual_classes[cause_class] = made
    return made


def _rebuild_task_error(
    function_name: str, text: str, cause: Any, pid: Any, dual: bool
) -> RayTaskError:
    error = RayTaskError(function_name, text, cause, pid)
    return error.as_instanceof_cause() if dual else error


class TaskCancelledError(RayError):
    """The task was cancelled before it gave a result."""


class TaskUnschedulableError(RayError):
    """The task asks for more than any node can ever have."""


class RayActorError(RayError):
    """A call to an actor failed because of the actor, not of the method."""

    def __init__(
        self,
        message: str = "The actor died unexpectedly before finishing this task.",
        cause: Optional[BaseException] = None,
    ) -> None:
        super().__init__(message)
        self.cause = cause

    def __reduce__(self) -> Tuple[Any, ...]:
        return (type(self), (self.args[0], self.cause))


class ActorDiedError(RayActorError):
    """The actor is dead for good."""


class ActorUnavailableError(RayActorError):
    """The call was lost while the actor restarts; it may be tried again."""


class ActorUnschedulableError(RayError):
    """The actor asks for more than any node can ever have."""


class AsyncioActorExit(RayError):
    """An asyncio actor ends by its own will."""


class PendingCallsLimitExceeded(RayError):
    """More calls are pending than the actor's max_pending_calls allows."""


class LocalRayletDiedError(RayError):
    """The node daemon is gone."""


class WorkerCrashedError(RayError):
    """The worker process died and no retry was left."""


class NodeDiedError(RayError):
    """The node daemon is gone; only shutdown is possible now."""


class ObjectStoreFullError(RayError):
    """The store's memory and disk are full."""


class OutOfDiskError(RayError):
    """The disk is full."""


class OutOfMemoryError(RayError):
    """The machine ran out of memory."""


class ObjectLostError(RayError):
    """Every copy of the object is gone and it cannot be made again."""


class ObjectFetchTimedOutError(ObjectLostError):
    pass


class OwnerDiedError(ObjectLostError):
    """Kept for programs that name it: in libray an object outlives its owner."""


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    pass


class ObjectFreedError(ObjectLostError):
    pass


class ObjectReconstructionFailedError(ObjectLostError):
    pass


class ObjectReconstructionFailedMaxAttemptsExceededError(ObjectLostError):
    pass


class ObjectReconstructionFailedLineageEvictedError(ObjectLostError):
    pass


class GetTimeoutError(RayError, TimeoutError):
    """The value was not there in time."""


class RaySystemError(RayError):
    """libray itself could not do what was asked."""


class RuntimeEnvSetupError(RayError):
    pass


class CrossLanguageError(RayError):
    """A function of another language failed."""


class UnserializableException(RayError):
    """The remote exception could not be pickled; the text tells what it was."""


class ActorClassInheritanceException(TypeError):
    """An actor class cannot be subclassed: subclass the plain class and decorate the result."""


class ConflictError(RayError):
    """A compare-and-swap lost against another writer; read again and retry."""


_BY_CODE = {
    _libray.RAY_CANCELLED: TaskCancelledError,
    _libray.RAY_INVALID_ARGUMENT: ValueError,
    _libray.RAY_TIMED_OUT: GetTimeoutError,
    _libray.RAY_NOT_FOUND: ValueError,
    _libray.RAY_ALREADY_EXISTS: ValueError,
    _libray.RAY_OUT_OF_MEMORY: OutOfMemoryError,
    _libray.RAY_UNSUPPORTED: NotImplementedError,
    _libray.RAY_CONFLICT: ConflictError,
    _libray.RAY_WORKER_CRASHED: WorkerCrashedError,
    _libray.RAY_OBJECT_LOST: ObjectLostError,
    _libray.RAY_UNSCHEDULABLE: TaskUnschedulableError,
    _libray.RAY_ACTOR_DIED: ActorDiedError,
    _libray.RAY_ACTOR_RESTARTING: ActorUnavailableError,
    _libray.RAY_STORE_FULL: ObjectStoreFullError,
    _libray.RAY_NODE_DIED: NodeDiedError,
    -_libray.RAY_UNAVAILABLE: PendingCallsLimitExceeded,
}
_DEFAULT_TEXT = {
    _libray.RAY_TIMED_OUT: "Get timed out: some object(s) not ready.",
    _libray.RAY_WRONG_STATE: (
        "libray is not running: call libray.init() (references end with the runtime they came from)"
    ),
    _libray.RAY_CANCELLED: "the task was cancelled",
}


def make_error(code: int, message: str, payload: bytes, payload_format: int) -> BaseException:
    """The exception for a failed call of the C API."""
    if code == _libray.RAY_TASK_FAILED:
        return _task_error(message, payload, payload_format)
    cls = _BY_CODE.get(code, RaySystemError)
    text = message or _DEFAULT_TEXT.get(code, "")
    if cls is ActorDiedError and payload:
        error = _task_error(message, payload, payload_format)
        cause = error.cause if isinstance(error, RayTaskError) else error
        return ActorDiedError(f"{message}\n{error}", cause)
    return cls(text)


def _task_error(message: str, payload: bytes, payload_format: int) -> BaseException:
    if payload_format != 2 or not payload:
        return (
            CrossLanguageError(message) if payload_format == 1 else RayTaskError("", message, None)
        )
    try:
        kind, function, pid, text, cause_bytes = pickle.loads(payload)
    except Exception as e:
        return RaySystemError(f"{message} (its exception cannot be read: {e!r})")
    if kind == "exit":
        return WorkerCrashedError(text)
    cause: BaseException
    try:
        cause = pickle.loads(cause_bytes)
    except Exception as e:
        cause = UnserializableException(
            f"The original cause of the RayTaskError isn't serializable here: {e!r}\n{text}"
        )
    return RayTaskError(function, text, cause, pid).as_instanceof_cause()


_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def _user_traceback(exc: BaseException) -> str:
    """The traceback without the lines of this package."""
    report = traceback.TracebackException.from_exception(exc)
    _drop_own_frames(report)
    lines = list(report.format())
    if lines and lines[0].startswith("Traceback"):
        lines = lines[1:]
    return "".join(lines).rstrip()


def _drop_own_frames(report: Any) -> None:
    report.stack[:] = [frame for frame in report.stack if not frame.filename.startswith(_HERE)]
    for chained in (report.__cause__, report.__context__):
        if chained is not None:
            _drop_own_frames(chained)


def dump_error(exc: BaseException, function: str) -> Tuple[str, bytes]:
    """(one line, payload) of a remote exception: what `_task_error` reads."""
    import cloudpickle

    pid = os.getpid()
    head = f"libray::{function}() (pid={pid})"
    short = f"{function}: {type(exc).__name__}: {_first_line(exc)}"
    kind = "exit" if isinstance(exc, SystemExit) else "error"
    cause: BaseException = exc
    if isinstance(exc, RayTaskError):  # an error of a nested task passes through with its own cause
        cause = exc.cause if exc.cause is not None else exc
        inner = exc.traceback_str
        exc.traceback_str = ""
        own = _frames_only(exc)
        exc.traceback_str = inner
        text = f"{head}\n{own}{inner}"
    else:
        text = f"{head}\n{_user_traceback(exc)}"
    if kind == "exit":
        text = f"the task called exit: {text}"
    try:
        blob = cloudpickle.dumps(cause, protocol=5)
        pickle.loads(blob)
    except Exception as e:
        blob = pickle.dumps(
            UnserializableException(
                f"The original cause of the RayTaskError ({type(cause)}) isn't serializable: {e}. "
                f"Overwriting the cause "
                f"to a {UnserializableException.__name__}."
            )
        )
    return short, pickle.dumps((kind, function, pid, text, blob), protocol=5)


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
