"""libray: tasks, actors and futures over a shared-memory store. `libray.init()`, `@libray.remote`,
`libray.get`.

The package is in layers, lowest first; a module imports its own layer or a lower one, also inside functions, and no two
import each other (`./dev check` looks):

    _libray                 the extension: submit, get, run; it imports nothing and calls what it was given (`_hook_up`)
    core/, exceptions       values, ids, errors, environments, what this process is
    api/                    functions, actors, generators, placement, tables: what programs call
    driver/                 start and end of the runtime, the workers' output
    worker/                 a worker process
    this file, testing, as_ray, _cli, _zygote      what programs and the daemon find by name
    ray/                    the package `ray`: what only programs of Ray need
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _libray, exceptions
from .api import context as _context, placement as _placement
from .api.actor import method, method_options as _method_options, handle_from_ref as _handle_from_ref
from .api.context import available_resources, cluster_resources, get_runtime_context, nodes
from .api.control import cancel, exit_actor, get_actor, kill
from .api.function import NativeFunction, c_function, load_library, native_function
from .api.stream import DynamicObjectRefGenerator
from ._libray import ObjectRef, get, put, wait
from .core import import_ray as _import_ray, serialization as _serialization
from .core.import_ray import install_as_ray
from .driver import start as _start
from .driver.start import init, is_initialized, shutdown

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
        from .core.logging_setup import LoggingConfig

        return LoggingConfig
    if name == "Timestamp":
        from .core.portable import Timestamp

        return Timestamp
    if name in ("actor_class", "function"):  # of other languages
        from .api import foreign

        return getattr(foreign, name)
    raise AttributeError(f"module 'libray' has no attribute '{name}'")


if TYPE_CHECKING:  # with the types of results
    from ._typing import ActorClass, ActorHandle, ObjectRefGenerator, RemoteFunction, remote
    from .api.foreign import actor_class, function
else:
    from .api.actor import ActorClass, ActorHandle
    from .api.function import RemoteFunction
    from .api.stream import ObjectRefGenerator

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
            _import_ray.named(
                "The @libray.remote decorator must be applied either with no arguments and no parentheses, "
                "for example '@libray.remote', or it must be applied using some of the options, for example "
                "'@libray.remote(num_returns=2, max_retries=5)'."
            )
        )
    return options_decorator(options)


class _Misuse(ValueError, AssertionError):
    """Of the decorator: Ray itself finds it by an assertion."""


def _not_remote() -> str:
    return _import_ray.named(
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
        from .api.actor import make_actor_class

        return make_actor_class(target, given)
    if inspect.isfunction(target) or hasattr(target, "__cython__"):
        from .api.function import make_remote_function

        return make_remote_function(target, given)
    raise TypeError(_not_remote())


# ---- what the extension calls ------------------------------------------------------------------------
# A worker adds its own (worker/main.py). These few programs need: their modules are imported at the first call.


def _unreadable(what: str, error: BaseException) -> Any:
    from .core import error_report

    return error_report.unreadable(what, error)


def _await_ref(ref: Any) -> Any:
    from .api import awaiting

    return awaiting.await_ref(ref)


def _ref_future(ref: Any) -> Any:
    from .api import awaiting

    return awaiting.ref_future(ref)


def _ref_as_future(ref: Any) -> Any:
    from .api import awaiting

    return awaiting.ref_as_future(ref)


def _ref_on_completed(ref: Any, callback: Any) -> None:
    from .api import awaiting

    awaiting.ref_on_completed(ref, callback)


def _portable(value: Any) -> Any:
    from .core import portable

    return portable.convert(value)


def _not_portable(value: Any, what: str, error: BaseException) -> Any:
    from .core import portable

    return portable.not_portable(value, what, error)


def _read_timestamp(body: bytes) -> Any:
    from .core import portable

    return portable.read_timestamp(body)


def _read_arrow(stream: Any) -> Any:
    from .core import portable

    return portable.read_arrow(stream)


def _explain_argument(function: Any, argument: Any, error: BaseException) -> Any:
    from .core import serializability

    return serializability.explain_argument(function, argument, error)


def _show_unread() -> None:
    from .core import unread

    unread.show()


def _hook_up() -> None:
    _libray.set_hooks(
        {
            "auto_init": _start.ensure,
            "make_error": exceptions.make_error,
            "dumps": _serialization.dumps,
            "loads": _serialization.loads,
            "check_export": _serialization.check_export,
            "unreadable": _unreadable,
            "ref_info": _context.ref_info,
            "captured": _placement.captured,
            "make_dynamic": DynamicObjectRefGenerator,
            "await_ref": _await_ref,
            "ref_future": _ref_future,
            "ref_as_future": _ref_as_future,
            "ref_on_completed": _ref_on_completed,
            "portable": _portable,
            "not_portable": _not_portable,
            "read_timestamp": _read_timestamp,
            "read_arrow": _read_arrow,
            "explain_pickle": _explain_argument,
            "show_unread": _show_unread,
        }
    )
    _libray._set_classes(ObjectRefGenerator, _method_options, _handle_from_ref)


_hook_up()
