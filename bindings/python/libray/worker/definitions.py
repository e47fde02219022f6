"""From a published definition, or a name, to what a worker calls: a function, or the constructor of an actor, which makes
this process that actor. Called by the extension on the worker's main thread, once per definition; a constructor once
per process."""

from __future__ import annotations

import functools
import inspect
import pickle
import sys
from typing import Any, Callable, Dict, Tuple

from .. import _libray
from ..api import options as _options, placement
from ..api.actor import ActorClass, ActorInfo
from ..api.function import LateFunction, RemoteFunction
from ..core import error_report, own_actor
from ..core.definition import from_blob
from ..core.own_actor import UnknownFunction
from ..exceptions import AsyncioActorExit, UserCodeException
from . import loops, output


def load_function(blob: bytes) -> Tuple[Any, int]:
    """What a published definition means, and its max_calls. Called by the extension, once per definition."""
    if not blob.startswith(b"\x80"):  # no pickle
        return _load_named(blob)
    uid, name, is_class, target, max_calls = pickle.loads(blob)
    definition = from_blob(uid, name, is_class, blob)
    if definition.target is None:
        definition.target = target
    if is_class:
        return _make_actor(target), 0
    scope = getattr(target, "__globals__", {})
    for key, value in list(scope.items()):  # the function's own name: the real thing, for speed
        if type(value) is LateFunction and value._state[0] is definition:
            scope[key] = value._real()
    return target, max_calls


def should_retry(exc: BaseException, note: bytes) -> bool:
    """Whether the exception is one of the classes that the caller wants to be retried. Called by the extension."""
    classes = pickle.loads(_options.retry_classes(note))
    if isinstance(exc, UserCodeException) and exc.__cause__ is not None:
        exc = exc.__cause__
    return isinstance(exc, classes)


# ---- actors


async def _in_loop(cls: Any, args: Any, kwargs: Any) -> Any:
    """The constructor of an asyncio actor: it may start tasks, which go on when it is done."""
    return cls(*args, **kwargs)


def _mode_by_name(cls: Any, groups: Any) -> own_actor.Mode:
    """Of an actor that another language made, or that was made by name: what its creator could not know."""
    info = ActorInfo.of(cls, groups)
    return own_actor.Mode(_libray._constructor_concurrency(), info.is_async, list(info.groups.values()))


def _make_actor(cls: Any, by_name: bool = False, groups: Any = None) -> Callable[..., Any]:
    def construct(*args: Any, **kwargs: Any) -> Any:
        hidden = kwargs.pop("__libray__", ())
        mode = own_actor.mode = _mode_by_name(cls, groups) if by_name else own_actor.Mode(*hidden)
        if mode.placement:  # for life
            placement.enter_group(mode.placement[1:], mode.placement[0] != 0)
        mode.actor = _libray.context()["actor"]
        task = _libray._current_task()
        mode.incarnation = task[3] if task else 0
        if mode.groups:
            _libray._worker_groups([mode.concurrency, *mode.groups])
        if mode.stream_limit:
            _libray._limit_streams(mode.stream_limit)
        if mode.is_async:
            # What the constructor makes (locks, queues) belongs to the actor's loop.
            import asyncio

            loops.own_loop = loops.new_loop()
            asyncio.set_event_loop(loops.own_loop)
        output.set_actor(cls.__name__)
        try:
            if mode.is_async:
                instance = loops.own_loop.run_until_complete(_in_loop(cls, args, kwargs))
            else:
                instance = cls(*args, **kwargs)
        except Exception as error:
            _tell_of_constructor(cls, error)
            raise
        output.set_actor(output.actor_name(instance))
        return instance

    return construct


def _tell_of_constructor(cls: Any, error: Exception) -> None:
    if isinstance(error, AsyncioActorExit):
        return
    try:
        print(error_report.creation_text(error, cls.__name__), file=sys.stderr)
    except Exception:  # the user's exception, or what the user's code made of standard error
        pass


# ---- what is known by a name


def _load_named(definition: bytes) -> Tuple[Any, int]:
    """What is called for the name in a definition, a function or the constructor of an actor, and its max_calls."""
    _, module, member = _libray.decode(definition, 1)
    target = _find(module, member)
    options: Dict[str, Any] = {}
    max_calls = 0
    if isinstance(target, RemoteFunction):
        max_calls = target._definition.max_calls
        target = target._function
    elif isinstance(target, ActorClass):
        target, options = target.__ray_actor_class__, target._options
    if inspect.isclass(target):
        return _make_actor(target, True, options.get("concurrency_groups")), 0
    if not callable(target):
        raise UnknownFunction(f"'{member}' of the module '{module}' is a {type(target).__name__}, no function or class")
    if inspect.iscoroutinefunction(target):
        return functools.partial(_run_coroutine, target), max_calls
    return target, max_calls


def _find(module: str, member: str) -> Any:
    import importlib

    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as e:
        raise UnknownFunction(
            f"this Python worker cannot import '{module}' for '{module}.{member}': {e}. Its modules lie where the driver's do, "
            "in PYTHONPATH, or where ray_worker_code (LIBRAY_PYTHON_CODE) says"
        ) from e
    for name in member.split("."):
        if not hasattr(found, name):
            raise UnknownFunction(f"the module '{module}' has no '{member}': write it there, not in a function")
        found = getattr(found, name)
    return found


def _run_coroutine(function: Any, *args: Any, **kwargs: Any) -> Any:
    import asyncio

    return asyncio.run(function(*args, **kwargs))
