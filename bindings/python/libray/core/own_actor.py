"""The actor that this process is, if it is one: how it runs its calls, what a call of a name runs, how it asks to end.

The worker sets `mode` when the constructor is called (worker/main.py), on its main thread; the runtime context, error
texts, `exit_actor` and local mode read it on any thread. A process is one actor at most, for life."""

from __future__ import annotations

import inspect
from typing import Any, Callable, List, Optional

from .. import _libray
from ..exceptions import AsyncioActorExit


class ActorExit(SystemExit):
    """Raised by exit_actor in actors with threads: no Exception, so that user code does not catch it
    by accident. Catching it does not help: the actor ends."""


class UnknownFunction(AttributeError):
    """This worker knows nothing of that name: the task ends with RAY_UNKNOWN_FUNCTION."""

    names_nothing = True


class Mode:
    """How this actor runs its calls; set by its creator through the constructor's hidden argument."""

    def __init__(
        self,
        concurrency: int = 1,
        is_async: bool = False,
        groups: Any = (),
        name: str = "",
        placement: bytes = b"",
        stream_limit: int = 0,
    ) -> None:
        self.concurrency = concurrency
        self.is_async = is_async
        self.groups: List[int] = list(groups)  # limits of the concurrency groups 1, 2, ...
        self.name = name
        self.placement = placement  # note of its placement group, if it is in one
        self.stream_limit = stream_limit  # items of all its generators that nobody took; 0: no limit
        self.incarnation = 0  # how often it was restarted
        self.actor: Optional[str] = None  # its id


mode = Mode()
async_groups: List[Any] = []  # every group of an asyncio actor that has started (worker/loops.py)


def own_actor() -> Optional[str]:
    """Id of the actor that this process is, also in its own threads and between calls."""
    return mode.actor or _libray.context()["actor"]


def request_exit() -> None:
    """exit_actor: the running call is the last one that starts."""
    _libray._worker_exit()
    if mode.is_async:
        for group in async_groups:  # an asyncio task that is no call may have asked: nothing else wakes them
            group.loop.call_soon_threadsafe(group.take)
        raise AsyncioActorExit()
    raise ActorExit(0)


def _ready(instance: Any) -> Callable[[], bool]:
    return lambda: True


def _terminate(instance: Any) -> Callable[[], None]:
    return request_exit


def _call(instance: Any) -> Callable[..., Any]:
    return lambda function, *args, **kwargs: function(instance, *args, **kwargs)


_SPECIAL = {"__ray_ready__": _ready, "__ray_terminate__": _terminate, "__ray_call__": _call}


def find_method(instance: Any, name: str) -> Any:
    """What a call of `name` runs. Called by the extension when the class has not said so yet."""
    cls = type(instance)
    if not hasattr(cls, name):
        if name in _SPECIAL:
            return _SPECIAL[name](instance)
        if not hasattr(instance, name):
            raise UnknownFunction(f"the actor class {cls.__qualname__} has no method '{name}'")
        return getattr(instance, name)
    # The class decides: an attribute of the same name that the instance was given hides no method.
    bind = getattr(inspect.getattr_static(cls, name), "__get__", None)
    return getattr(cls, name) if bind is None else bind(instance, cls)
