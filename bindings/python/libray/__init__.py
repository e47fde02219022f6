"""libray: tasks, actors and futures over a shared-memory store. `libray.init()`, `@libray.remote`,
`libray.get`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List

from . import _libray, exceptions
from . import _as_ray, _context, _core, _gpus, _placement, _serialization
from ._libray import ObjectRef, get, put, wait
from ._as_ray import install_as_ray
from ._actor import exit_actor, get_actor, method
from ._context import available_resources, cluster_resources, get_runtime_context, nodes
from ._core import init, is_initialized, shutdown
from ._cross import actor_class, function
from ._function import NativeFunction, c_function, load_library, native_function

__version__ = "0.3.0"
ObjectID = ObjectRef

__all__ = [
    "ActorClass",
    "ActorHandle",
    "LoggingConfig",
    "NativeFunction",
    "DynamicObjectRefGenerator",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "RemoteFunction",
    "Timestamp",
    "actor_class",
    "available_resources",
    "c_function",
    "cancel",
    "cluster_resources",
    "exceptions",
    "exit_actor",
    "function",
    "get",
    "get_actor",
    "get_runtime_context",
    "init",
    "install_as_ray",
    "is_initialized",
    "kill",
    "load_library",
    "method",
    "native_function",
    "nodes",
    "options",
    "put",
    "remote",
    "shutdown",
    "wait",
]


def __getattr__(name: str) -> Any:
    if name == "LoggingConfig":  # not at import: it needs the logging module
        from ._logging import LoggingConfig

        return LoggingConfig
    if name == "Timestamp":
        from ._portable import Timestamp

        return Timestamp
    raise AttributeError(f"module 'libray' has no attribute '{name}'")


if TYPE_CHECKING:  # with the types of results
    from ._typing import ActorClass, ActorHandle, ObjectRefGenerator, RemoteFunction, remote
else:
    from ._actor import ActorClass, ActorHandle
    from ._function import RemoteFunction
    from ._stream import ObjectRefGenerator

    def remote(*args: Any, **options: Any) -> Any:
        """Makes a function a task and a class an actor: `@libray.remote`, `@libray.remote(num_cpus=2)`,
        `remote(f)`."""
        return _remote(args, options)


def _remote(args: Any, options: Any) -> Any:
    if len(args) == 1 and not options and callable(args[0]):
        return _make_remote(args[0], {})
    if len(args) == 1 and not options:
        raise TypeError(_not_remote())
    if args or not options:
        raise _Misuse(
            _as_ray.named(
                "The @libray.remote decorator must be applied either with no arguments and no parentheses, "
                "for example '@libray.remote', or it must be applied using some of the options, for example "
                "'@libray.remote(num_returns=2, max_retries=5)'."
            )
        )
    return options_decorator(options)


class _Misuse(ValueError, AssertionError):
    """Of the decorator: Ray itself finds it by an assertion."""


def _not_remote() -> str:
    return _as_ray.named(
        "The @libray.remote decorator must be applied to either a function or a class."
    )


def options_decorator(options: Any) -> Any:
    def decorate(target: Any) -> Any:
        return _make_remote(target, options)

    return decorate


def options(**given: Any) -> Any:
    """`@libray.options(num_cpus=2)`: the same as `@libray.remote(num_cpus=2)`."""
    return options_decorator(given)


def _make_remote(target: Any, given: Any) -> Any:
    import inspect

    if isinstance(target, (RemoteFunction, ActorClass)):
        raise TypeError("this is remote already: use .options(...) to change how it runs")
    if inspect.isclass(target):
        from ._actor import make_actor_class

        return make_actor_class(target, given)
    if inspect.isfunction(target) or hasattr(target, "__cython__"):
        from ._function import make_remote_function

        return make_remote_function(target, given)
    raise TypeError(_not_remote())


def cancel(ref: Any, *, force: bool = False, recursive: bool = True) -> None:
    """Cancels the task that makes `ref` (or a generator). `force` kills its worker. A finished task
    keeps its result."""
    if isinstance(ref, _libray.StreamBase):
        ref._cancel((1 if force else 0) | (2 if recursive else 0))
        return
    if not isinstance(ref, ObjectRef):
        raise TypeError(
            _as_ray.named(
                "libray.cancel() only supported for object refs and generators. For actors, try "
                f"libray.kill(). Got: {type(ref)}."
            )
        )
    try:
        _libray.cancel(ref, force, recursive)
    except NotImplementedError as e:
        raise ValueError("force=True is not supported for actor tasks.") from e


def kill(actor: Any, *, no_restart: bool = True) -> None:
    """Kills an actor's process at once."""
    if _core.is_local_mode() and not isinstance(actor, _libray.ActorBase):
        from . import _local

        if isinstance(actor, _local.LocalActorHandle):
            return _local.kill(actor)
    if not isinstance(actor, _libray.ActorBase):
        raise ValueError(
            _as_ray.named(
                "libray.kill() only supported for actors. For tasks, try libray.cancel(). Got: "
                f"{type(actor)}."
            )
        )
    _libray.actor_kill(actor, not no_restart)


def _late(module: str, name: str) -> Any:
    """A function of a module that is imported when it is first called: few programs need it."""
    found: Any = None

    def call(*args: Any) -> Any:
        nonlocal found
        if found is None:
            import importlib

            found = getattr(importlib.import_module("." + module, __name__), name)
        return found(*args)

    return call


def _hook_up() -> None:
    from . import _actor

    _libray.set_hooks(
        {
            "auto_init": _core.ensure,
            "make_error": exceptions.make_error,
            "dump_error": exceptions.dump_error,
            "dumps": _serialization.dumps,
            "loads": _serialization.loads,
            "await_ref": _late("_async", "await_ref"),
            "ref_future": _late("_async", "ref_future"),
            "ref_as_future": _late("_async", "ref_as_future"),
            "ref_on_completed": _late("_async", "ref_on_completed"),
            "ref_info": _context.ref_info,
            "unreadable": exceptions.unreadable,
            "explain_pickle": _serialization.explain_argument,
            "check_export": _serialization.check_export,
            "make_dynamic": DynamicObjectRefGenerator,
            "should_retry": exceptions.should_retry,
            "portable": _late("_portable", "convert"),
            "not_portable": _late("_portable", "not_portable"),
            "read_timestamp": _late("_portable", "read_timestamp"),
            "read_arrow": _late("_portable", "read_arrow"),
            "leave_child": _late("_worker", "leave_child"),
            "load_function": _serialization.load_function,
            "captured": _placement.captured,
            "enter_note": _placement.enter_note,
            "enter_gpus": _gpus.enter,
            "actor_call": _late("_worker", "find_method"),
            "show_unread": _late("_unread", "show"),
        }
    )
    _libray._set_classes(ObjectRefGenerator, _actor._method_options)


from ._stream import DynamicObjectRefGenerator  # noqa: E402

_hook_up()
