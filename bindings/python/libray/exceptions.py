"""Errors of libray. Codes of the C API become these classes in one place, `make_error`; an
exception of a remote function comes back as a class that is both RayTaskError and the user's own
class. How an exception of this process is told to others: core/error_report.py.

`make_error` is called by the extension, on the thread whose call failed. This file is a part of the layer `core`; it lies
here because programs and pickles name it."""

from __future__ import annotations

import os
import pickle
import re
import types
from typing import Any, Dict, List, Optional, Tuple

from . import _libray
from .core import error_map, ids as _ids

__all__ = [
    "RayError",
    "RayTaskError",
    "TaskCancelledError",
    "TaskUnschedulableError",
    "TaskPlacementGroupRemoved",
    "RayActorError",
    "ActorDiedError",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "ActorPlacementGroupRemoved",
    "ActorAlreadyExistsError",
    "ActorHandleNotFoundError",
    "AsyncioActorExit",
    "AuthenticationError",
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
    "ObjectRefStreamEndOfStreamError",
    "OufOfBandObjectRefSerializationException",
    "PlasmaObjectNotAvailable",
    "ReferenceCountingAssertionError",
    "ObjectReconstructionFailedError",
    "ObjectReconstructionFailedMaxAttemptsExceededError",
    "ObjectReconstructionFailedLineageEvictedError",
    "GetTimeoutError",
    "RaySystemError",
    "RayChannelError",
    "RayChannelTimeoutError",
    "RayCgraphCapacityExceeded",
    "RayDirectTransportError",
    "RpcError",
    "RuntimeEnvSetupError",
    "StreamingGeneratorReplayInconsistentError",
    "CrossLanguageError",
    "UnserializableException",
    "UserCodeException",
    "ActorClassInheritanceException",
    "ConflictError",
]


class RayError(Exception):
    """Base of everything that libray raises about remote work."""

    def to_bytes(self) -> bytes:
        import cloudpickle

        return bytes(cloudpickle.dumps(self))

    @staticmethod
    def from_bytes(data: bytes) -> BaseException:
        try:
            error = pickle.loads(data)
        except Exception as e:
            return UnserializableException(repr(e))
        return error  # type: ignore[no-any-return]


class _MessageError(RayError):
    """One text, kept as `message`."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


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
        proctitle: Optional[str] = None,
        pid: Optional[int] = None,
        ip: Optional[str] = None,
        actor_repr: Optional[str] = None,
        actor_id: Optional[str] = None,
    ) -> None:
        super().__init__(function_name, traceback_str, cause, proctitle, pid, ip)
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause = cause
        self.proctitle = proctitle or f"ray::{function_name}"
        self.pid = pid
        self.ip = ip or "127.0.0.1"
        self.actor_repr = actor_repr
        self._actor_id = actor_id

    def __str__(self) -> str:
        return self.traceback_str or f"{self.function_name}: {self.cause!r}"

    def as_instanceof_cause(self) -> "RayTaskError":
        """This error as an instance of both RayTaskError and the class of its cause."""
        cause = self.cause
        # What is no Exception (CancelledError, GeneratorExit) steers whoever raises it: to the caller, who was not
        # cancelled, a task's is a plain failure.
        if not isinstance(cause, Exception) or issubclass(RayTaskError, type(cause)):
            return self
        cls = _dual_class(type(cause))
        if cls is None:
            return self
        try:
            return cls(self)  # type: ignore[no-any-return]
        except Exception as e:
            _warn_not_dual(type(cause), e)
            return self

    def make_dual_exception_instance(self) -> "RayTaskError":
        return self.as_instanceof_cause()

    def __reduce__(self) -> Tuple[Any, ...]:
        return (_rebuild_task_error, (*_parts(self), False))


def _parts(error: RayTaskError) -> Tuple[Any, ...]:
    return (
        error.function_name,
        error.traceback_str,
        error.cause,
        error.proctitle,
        error.pid,
        error.ip,
        error.actor_repr,
        error._actor_id,
    )


_FIELDS = ("function_name", "traceback_str", "cause", "proctitle", "pid", "ip", "actor_repr")
_dual_classes: Dict[type, Optional[type]] = {}


def _warn_not_dual(cause_class: type, why: object) -> None:
    import logging

    logging.getLogger("ray.exceptions").warning(
        f"User exception type {cause_class} in RayTaskError can't be subclassed! This exception is "
        "raised as RayTaskError only. You can use `ray_task_error.cause` to access the user "
        f"exception. Failure in subclassing: {why}"
    )


def _argument_lists(cause: Any) -> Tuple[Any, ...]:
    """What the builtin class below the user's may take: its usual arguments, those of a group, none."""
    return cause.args, (getattr(cause, "message", ""), getattr(cause, "exceptions", ())), ()


def _builtin_new(builtin: Any, cls: type, cause: Any) -> Any:
    # Where the layout is that of Exception (MemoryError), only that one's __new__ is allowed.
    for make in (builtin.__new__, Exception.__new__):
        for args in _argument_lists(cause):
            try:
                return make(cls, *args)
            except TypeError as e:
                error = e
    raise error


def _builtin_init(builtin: Any, self: Any, cause: Any) -> None:
    for args in _argument_lists(cause):
        try:
            builtin.__init__(self, *args)
            break
        except TypeError:
            pass
    for cls in builtin.__mro__:  # what was given by keyword, or set afterwards: ImportError.name, OSError.filename
        if cls in (Exception, BaseException, object):
            continue
        for attribute in vars(cls).values():
            if isinstance(attribute, (types.MemberDescriptorType, types.GetSetDescriptorType)):
                try:
                    attribute.__set__(self, attribute.__get__(cause))
                except (AttributeError, TypeError):  # not set, or read-only
                    pass


def _dual_class(cause_class: type) -> Optional[type]:
    if cause_class in _dual_classes:
        return _dual_classes[cause_class]

    # The user's constructor is not run, for it may take anything; that of the builtin class below
    # it is, with the cause's args, so that errno, the exceptions of a group and the like are there.
    builtin: Any = next(c for c in cause_class.__mro__ if c.__module__ == "builtins")

    def new(cls: type, error: RayTaskError) -> Any:
        return _builtin_new(builtin, cls, error.cause)

    def init(self: Any, error: RayTaskError) -> None:
        _builtin_init(builtin, self, error.cause)
        for name in (*_FIELDS, "_actor_id"):
            self.__dict__[name] = getattr(error, name)
        BaseException.args.__set__(self, (error.cause,))  # type: ignore[attr-defined]

    def getattr_(self: Any, name: str) -> Any:  # attributes of the user's exception show through
        if (name.startswith("__") and name != "__notes__") or name in ("cause", *_FIELDS):
            raise AttributeError(name)
        return getattr(self.cause, name)

    def reduce(self: Any) -> Tuple[Any, ...]:
        return (_rebuild_task_error, (*(self.__dict__[f] for f in _FIELDS), self._actor_id, True))

    name = f"RayTaskError({cause_class.__name__})"
    body = {
        "__new__": new,
        "__init__": init,
        "__str__": lambda self: RayTaskError.__str__(self),
        "__getattr__": getattr_,
        "__reduce__": reduce,
        "__module__": RayTaskError.__module__,
        "__qualname__": name,
        # Also where the user's class makes args a read-only property.
        "args": property(lambda self: (self.__dict__["cause"],), lambda self, value: None),
    }
    made: Optional[type]
    try:
        made = type(name, (RayTaskError, cause_class), body)
    except Exception as e:  # a class that is final, or whose layout does not mix
        made = None
        _warn_not_dual(cause_class, e)
    _dual_classes[cause_class] = made
    return made


def _rebuild_task_error(*parts: Any) -> RayTaskError:
    error = RayTaskError(*parts[:-1])
    return error.as_instanceof_cause() if parts[-1] else error


_ID = r"\b[0-9a-f]{48}\b"  # compiled with the first error, as the other one below


def _first_id(text: str) -> Optional[str]:
    found = re.search(_ID, text or "")
    return found.group() if found else None


class TaskCancelledError(RayError):
    """The task was cancelled before it gave a result."""

    def __init__(self, task_id: Any = None, error_message: Optional[str] = None) -> None:
        super().__init__(task_id, error_message)
        self.task_id = task_id
        self.error_message = error_message

    def __str__(self) -> str:
        if self.error_message:
            return self.error_message
        return f"Task: {self.task_id} was cancelled. " if self.task_id else ""


class TaskUnschedulableError(RayError):
    """The task asks for more than any node can ever have, or for a node that is gone."""

    def __init__(self, error_message: str = "") -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self) -> str:
        return f"The task is not schedulable: {self.error_message}"


class TaskPlacementGroupRemoved(RayError):
    """The placement group of the task was removed."""

    def __str__(self) -> str:
        return (
            "The placement group corresponding to this task has been removed. " + super().__str__()
        ).rstrip()


class RayActorError(RayError):
    """A call to an actor failed because of the actor, not of the method."""

    BASE_ERROR_MSG = "The actor experienced an error before finishing this task."

    def __init__(
        self,
        actor_id: Optional[str] = None,
        error_msg: Optional[str] = None,
        actor_init_failed: bool = False,
        preempted: bool = False,
        cause: Optional[BaseException] = None,
    ) -> None:
        super().__init__(actor_id, error_msg)
        self.actor_id = actor_id
        self.error_msg = self.BASE_ERROR_MSG if error_msg is None else error_msg
        self._actor_init_failed = actor_init_failed
        self._preempted = preempted
        self.cause = cause

    def __str__(self) -> str:
        return self.error_msg

    @property
    def preempted(self) -> bool:
        return self._preempted

    @property
    def actor_init_failed(self) -> bool:
        """Whether the constructor failed."""
        return self._actor_init_failed

    def __reduce__(self) -> Tuple[Any, ...]:
        return (_rebuild_plain, (type(self), self.args, self.__dict__.copy()))


def _rebuild_plain(cls: Any, args: Any, state: Dict[str, Any]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error  # type: ignore[no-any-return]


class ActorDiedError(RayActorError):
    """The actor is dead for good. `cause` is the exception of its constructor, if that is why."""

    BASE_ERROR_MSG = "The actor died unexpectedly before finishing this task."

    def __init__(
        self,
        cause: Any = None,
        error_msg: Optional[str] = None,
        actor_id: Optional[str] = None,
    ) -> None:
        failed = isinstance(cause, BaseException)
        if error_msg is None and failed:
            error_msg = f"The actor died because of an error raised in its creation task, {cause}"
        elif error_msg is None and cause is not None:
            error_msg = str(cause)
        super().__init__(
            actor_id or getattr(cause, "_actor_id", None),
            error_msg,
            failed,
            cause=cause if failed else None,
        )

    @staticmethod
    def from_task_error(task_error: RayTaskError) -> "ActorDiedError":
        return ActorDiedError(task_error)


class ActorUnavailableError(RayActorError):
    """The call was lost while the actor restarts; it may be tried again."""

    def __init__(self, error_message: str = "", actor_id: Any = None) -> None:
        if isinstance(actor_id, bytes):
            actor_id = actor_id.hex()
        text = f"The actor {actor_id or ''} is unavailable: {error_message}. The task may or may not "
        super().__init__(actor_id, text + "have been executed on the actor.")

    @classmethod
    def _of(cls, text: str, actor_id: Optional[str]) -> "ActorUnavailableError":
        """With a text that says all that."""
        error = cls("", actor_id)
        RayActorError.__init__(error, actor_id, text)
        return error


class ActorUnschedulableError(RayError):
    """The actor asks for more than any node can ever have, or for a node that is gone."""

    def __init__(self, error_message: str = "") -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self) -> str:
        return f"The actor is not schedulable: {self.error_message}"


class ActorPlacementGroupRemoved(RayError):
    """The placement group of the actor was removed."""

    def __str__(self) -> str:
        return (
            "The placement group corresponding to this Actor has been removed. " + super().__str__()
        ).rstrip()


class ActorAlreadyExistsError(ValueError, RayError):
    """The name of the actor is taken."""

    def __init__(self, error_message: str = "") -> None:
        super().__init__(error_message)
        self.error_message = error_message


class ActorHandleNotFoundError(ValueError, RayError):
    """The handle is of another cluster or session."""

    def __init__(self, error_message: str = "") -> None:
        super().__init__(error_message)
        self.error_message = error_message


class AsyncioActorExit(RayError):
    """An asyncio actor ends by its own will."""


class AuthenticationError(_MessageError):
    """The credentials of a connection are missing or wrong."""


class PendingCallsLimitExceeded(RayError):
    """More calls are pending than the actor's max_pending_calls allows."""


class LocalRayletDiedError(RayError):
    """The node daemon is gone."""

    def __str__(self) -> str:
        return super().__str__() or "The task's local node daemon died."


class WorkerCrashedError(RayError):
    """The worker process died and no retry was left."""

    def __str__(self) -> str:
        head = "The worker died unexpectedly while executing this task."
        text = super().__str__()
        return text if text.startswith(head) else f"{head} {text}".rstrip()


class NodeDiedError(_MessageError):
    """The node daemon is gone; only shutdown is possible now."""


class ObjectStoreFullError(RayError):
    """The store's memory and disk are full."""


class OutOfDiskError(RayError):
    """The disk is full."""


class OutOfMemoryError(_MessageError):
    """The machine ran out of memory, and this task or actor was ended to save the rest."""


class ObjectLostError(RayError):
    """Every copy of the object is gone and it cannot be made again."""

    _WHAT = "All copies of {} have been lost."

    def __init__(
        self,
        object_ref_hex: str = "",
        owner_address: Any = None,
        call_site: str = "",
        *,
        message: str = "",
    ) -> None:
        super().__init__(object_ref_hex, owner_address, call_site)
        self.object_ref_hex = object_ref_hex
        self.owner_address = owner_address
        self.call_site = call_site
        self.message = message

    def __str__(self) -> str:
        text = f"Failed to retrieve object {self.object_ref_hex}. "
        return text + (self.message or self._WHAT.format(self.object_ref_hex))

    def __reduce__(self) -> Tuple[Any, ...]:
        return (_rebuild_plain, (type(self), self.args, self.__dict__.copy()))


class ObjectFetchTimedOutError(ObjectLostError):
    """The object could not be fetched in time."""

    _WHAT = "Fetch for object {} timed out because no locations were found for it."


class OwnerDiedError(ObjectLostError):
    """Kept for programs that name it: in libray an object outlives its owner."""

    _WHAT = "The owner of {} has exited."


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """An object was deleted while there was a reference to it."""

    _WHAT = "{} was deleted while it was referred to."


class ObjectFreedError(ObjectLostError):
    """The program freed the object by hand."""

    _WHAT = "{} was manually freed using the internal `free` call."


class ObjectReconstructionFailedError(ObjectLostError):
    """The object is lost and could not be made again."""

    def __init__(
        self,
        object_ref_hex: str = "",
        reason: Any = None,
        reason_message: Optional[str] = None,
        owner_address: Any = None,
        call_site: str = "",
    ) -> None:
        super().__init__(object_ref_hex, owner_address, call_site, message=reason_message or "")
        self.reason = reason
        self.reason_message = reason_message

    _WHAT = "The object {} cannot be reconstructed."


class ObjectReconstructionFailedMaxAttemptsExceededError(ObjectReconstructionFailedError):
    """It was lost more often than max_retries allows."""

    _WHAT = "{} cannot be reconstructed: the maximum number of task retries has been exceeded."


class ObjectReconstructionFailedLineageEvictedError(ObjectReconstructionFailedError):
    """The record of how it was made is gone."""

    _WHAT = "{} cannot be reconstructed because its lineage has been evicted."


class ObjectRefStreamEndOfStreamError(RayError):
    """A generator has no more references."""


class OufOfBandObjectRefSerializationException(RayError):
    """An ObjectRef was pickled outside of libray although the environment forbids that."""


class PlasmaObjectNotAvailable(RayError):
    """The object was not there in time."""


class GetTimeoutError(RayError, TimeoutError):
    """The value was not there in time."""


class RaySystemError(RayError):
    """libray itself could not do what was asked."""

    def __init__(self, client_exc: Any = "", traceback_str: Optional[str] = None) -> None:
        super().__init__(client_exc, traceback_str)
        self.client_exc = client_exc
        self.traceback_str = traceback_str

    _of_argument = False  # an argument of the task that runs could not be read

    def __str__(self) -> str:
        text = f"System error: {self.client_exc}"
        return f"{text}\ntraceback: {self.traceback_str}" if self.traceback_str else text


class StreamingGeneratorReplayInconsistentError(RaySystemError):
    """A generator that ran again gave another number of items."""


class RayChannelError(RaySystemError):
    """A channel of a compiled graph failed."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """A channel of a compiled graph was not ready in time."""


class RayCgraphCapacityExceeded(RaySystemError):
    """A compiled graph holds as many results as it may."""


class RayDirectTransportError(RaySystemError):
    """A transfer between devices failed."""


class RpcError(_MessageError):
    """A message between processes failed."""

    def __init__(self, message: str = "", rpc_code: Any = None) -> None:
        super().__init__(message)
        self.rpc_code = rpc_code


class RuntimeEnvSetupError(RayError):
    """The environment that a task or actor asks for could not be made."""

    def __init__(self, error_message: Optional[str] = None) -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self) -> str:
        head = "Failed to set up runtime environment."
        return f"{head}\n{self.error_message}" if self.error_message else head


class CrossLanguageError(RayTaskError):
    """A function of another language failed. `language` ("java"), `type_name` and `remote_message` are those of its
    exception, `stack` is its stack trace; `cause` (also `__cause__`) is the error behind it where that came from Python.
    `described` is all that the other side said."""

    def __init__(self, message: str = "", described: Optional[Dict[str, Any]] = None) -> None:
        said = described or {}
        self.described = said
        self.message = message
        self.language: str = said.get("language", "")
        self.type_name: str = said.get("type", "")
        self.remote_message: str = said.get("message", "")
        self.stack: str = said.get("stack", "")
        cause = _cause_of(said)
        super().__init__(said.get("function", ""), self._as_text(), cause, pid=said.get("pid"))
        self.args = (message,)
        self.__cause__ = cause

    def _as_text(self) -> str:
        said = self.described
        if not said:
            return self.message
        where = f"{error_map.language_title(self.language)} function {said.get('function') or '?'} failed"
        pid = f" (pid={said['pid']})" if said.get("pid") else ""
        lines = [f"{where}{pid}: {self.type_name}: {self.remote_message}"]
        if self.stack:
            lines.append(self.stack.rstrip())
        return _with_dependents(self.message, "\n".join(lines))

    def as_instanceof_cause(self) -> RayTaskError:
        return self

    def __reduce__(self) -> Tuple[Any, ...]:
        return (CrossLanguageError, (self.message, self.described))


def _cause_of(said: Dict[str, Any]) -> Optional[BaseException]:
    """The error behind one of another language."""
    behind = error_map.checked(said.get("cause"))
    if behind is None:
        return None
    return _error_of_map(behind.get("message", ""), behind)


class UnserializableException(RayError):
    """The remote exception was pickled but cannot be read here; the text tells what it was."""

    def __init__(self, original_stack_trace: str = "") -> None:
        super().__init__(original_stack_trace)
        self._original_stack_trace = original_stack_trace

    def __str__(self) -> str:
        return (
            "Failed to deserialize exception: its class must be picklable, also from its args "
            f"alone.\nOriginal exception:\n{self._original_stack_trace}"
        )


class UserCodeException(RayError):
    """Wraps an exception of user code; retry_exceptions looks at its __cause__."""


class ActorClassInheritanceException(TypeError):
    """An actor class cannot be subclassed: subclass the plain class and decorate the result."""


class ConflictError(RayError):
    """A compare-and-swap lost against another writer; read again and retry."""


RAY_EXCEPTION_TYPES = [
    value for value in list(globals().values()) if isinstance(value, type) and issubclass(value, RayError)
]

_BY_CODE = {
    _libray.RAY_CANCELLED: TaskCancelledError,
    _libray.RAY_INVALID_ARGUMENT: ValueError,
    _libray.RAY_TIMED_OUT: GetTimeoutError,
    _libray.RAY_NOT_FOUND: ValueError,
    _libray.RAY_ALREADY_EXISTS: ActorAlreadyExistsError,
    _libray.RAY_OUT_OF_MEMORY: OutOfMemoryError,
    _libray.RAY_UNSUPPORTED: NotImplementedError,
    _libray.RAY_CONFLICT: ConflictError,
    _libray.RAY_WORKER_CRASHED: WorkerCrashedError,
    _libray.RAY_OBJECT_LOST: ObjectLostError,
    _libray.RAY_UNSCHEDULABLE: TaskUnschedulableError,
    _libray.RAY_GROUP_REMOVED: TaskPlacementGroupRemoved,
    _libray.RAY_ACTOR_DIED: ActorDiedError,
    _libray.RAY_ACTOR_RESTARTING: ActorUnavailableError,
    _libray.RAY_STORE_FULL: ObjectStoreFullError,
    _libray.RAY_NODE_DIED: NodeDiedError,
    -_libray.RAY_UNAVAILABLE: PendingCallsLimitExceeded,
}
_OF_ACTORS: Dict[Any, Any] = {
    TaskUnschedulableError: ActorUnschedulableError,
    TaskPlacementGroupRemoved: ActorPlacementGroupRemoved,
}
_DEFAULT_TEXT = {
    _libray.RAY_TIMED_OUT: "Get timed out: some object(s) not ready.",
    _libray.RAY_WRONG_STATE: (
        "libray is not running: call libray.init() (references end with the runtime they came from)"
    ),
    _libray.RAY_CANCELLED: "the task was cancelled",
}


ending = False  # the driver's interpreter ends: set by driver/start.py
_ENDS = (_libray.RAY_CANCELLED, _libray.RAY_WRONG_STATE, _libray.RAY_NODE_DIED)


def make_error(code: int, message: str, payload: bytes, payload_format: int) -> BaseException:
    """The exception for a failed call of the C API."""
    error = _error_of(code, message, payload, payload_format)
    if ending and code in _ENDS:
        error.runtime_ended = True  # type: ignore[attr-defined]
    return error


def _error_of(code: int, message: str, payload: bytes, payload_format: int) -> BaseException:
    if code in (_libray.RAY_TASK_FAILED, _libray.RAY_UNKNOWN_FUNCTION):  # a native function, that is
        return _task_error(message, payload, payload_format)
    end, names = _dependents(message or "")
    if names:  # the system's error of an argument: the tasks that needed it failed with it
        cause = _error_of(code, message[end:], payload, payload_format)
        text = _with_dependents(message[:end], f"{type(cause).__name__}: {cause}")
        return RayTaskError(names[0], text, cause).as_instanceof_cause()
    cls: Any = _BY_CODE.get(code, RaySystemError)
    text = message or _DEFAULT_TEXT.get(code, "")
    if text.startswith("actor "):  # one that was never placed
        cls = _OF_ACTORS.get(cls, cls)
    if cls is ActorDiedError:
        if payload:
            error = _task_error(message, payload, payload_format)
            cause = error if isinstance(error, CrossLanguageError) else getattr(error, "cause", None) or error
            return ActorDiedError(
                cause,
                f"The actor died because of an error raised in its creation task, {error}",
                _first_id(message),
            )
        return ActorDiedError(None, text or None, _first_id(text))
    if cls is TaskCancelledError:
        task = _first_id(text)
        return TaskCancelledError(_ids.TaskID.from_hex(task) if task else None, text)
    if cls is ActorUnavailableError:
        return ActorUnavailableError._of(text, _first_id(text))
    if cls is ObjectLostError:
        return ObjectLostError(_first_id(text) or "", message=text)
    if cls is GetTimeoutError and not text.startswith("Get timed out"):
        text = f"Get timed out: some object(s) not ready. {text}"
    return cls(text)  # type: ignore[no-any-return]


def _task_error(message: str, payload: bytes, payload_format: int) -> BaseException:
    said = error_map.read(payload, payload_format)
    if said is None:  # no binding wrote it
        return CrossLanguageError(message) if payload else RayTaskError("", message, None)
    return _error_of_map(message, said)


def _error_of_map(message: str, said: Dict[str, Any]) -> BaseException:
    private = error_map.private_of(said) if said["language"] == "python" else None
    if private is None or private[0] != error_map.PICKLE:
        return CrossLanguageError(message, said)
    cause: BaseException
    try:
        cause = pickle.loads(private[1])
    except Exception as e:
        cause = UnserializableException(f"{said['stack']}\n(reading it here failed: {e!r})")
    text = _with_dependents(message, said["stack"])
    return RayTaskError(said["function"], text, cause, pid=said["pid"]).as_instanceof_cause()


ARGUMENT = "At least one of the input arguments for this task could not be computed"
_DEPENDENT = r"an argument of task (\S+) failed: "


def _dependents(message: str) -> Tuple[int, List[str]]:
    """Where the message itself begins, and the names of the tasks that the runtime puts before it: the last to fail
    first."""
    names: List[str] = []
    at = 0
    while True:
        found = re.compile(_DEPENDENT).match(message, at)
        if found is None:
            return at, names
        names.append(found.group(1).rpartition(".")[2])
        at = found.end()


def _with_dependents(message: str, text: str) -> str:
    """The traceback of a task that failed, below the tasks that failed with it because they needed
    its result: the runtime puts their names before the message."""
    for name in reversed(_dependents(message)[1]):
        text = (
            f"ray::{name}() (pid={os.getpid()}, ip=127.0.0.1)\n  {ARGUMENT}:\n"
            f"ray.exceptions.RayTaskError: {text}"
        )
    return text
