"""What a program does to tasks and actors that are there already: `cancel`, `kill`, `get_actor`, `exit_actor`, and the
names of actors. Called by programs, on any thread. With `init(local_mode=True)` the actors are of this process
(local_mode.py), which is asked instead."""

from __future__ import annotations

from typing import Any, List, Optional

from .. import _libray
from ..core import import_ray, own_actor, process
from .actor import describe


def cancel(ref: Any, *, force: bool = False, recursive: bool = True) -> None:
    """Cancels the task that makes `ref` (or a generator). `force` kills its worker. A finished task
    keeps its result."""
    if isinstance(ref, _libray.StreamBase):
        ref._cancel((1 if force else 0) | (2 if recursive else 0))
        return
    if not isinstance(ref, _libray.ObjectRef):
        raise TypeError(
            import_ray.named(
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
    if process.local_mode and not isinstance(actor, _libray.ActorBase):
        from . import local_mode

        if isinstance(actor, local_mode.LocalActorHandle):
            return local_mode.kill(actor)
    if not isinstance(actor, _libray.ActorBase):
        raise ValueError(
            import_ray.named(
                "libray.kill() only supported for actors. For tasks, try libray.cancel(). Got: "
                f"{type(actor)}."
            )
        )
    _libray.actor_kill(actor, not no_restart)


def get_actor(name: str, namespace: Optional[str] = None) -> Any:
    """The living actor of that name. The handle does not keep it alive: an actor that is not detached
    ends when its creator, and those whom he gave his handle, have let go."""
    if not name or (isinstance(name, str) and not name.strip()):
        raise ValueError("Please supply a non-empty value to get_actor")
    if not isinstance(name, str):
        raise TypeError(f"the name of an actor must be a str, not {type(name)}")
    try:
        if process.local_mode:
            from . import local_mode

            return local_mode.get_actor(name, namespace)
        return _libray.actor_find(name, namespace or "", describe)
    except ValueError:
        raise ValueError(
            f"Failed to look up actor with name '{name}'. This could because 1. You are trying to look up "
            "a named actor you didn't create. 2. The named actor died. 3. You did not use a namespace "
            "matching the namespace of the actor."
        ) from None


def exit_actor() -> None:
    """Ends the actor that runs this, after the running call."""
    if process.local_mode:
        from . import local_mode

        local_mode.exit_actor()
    in_call = _libray.is_worker() and _libray.context()["actor"] is not None
    if not in_call and (not _libray.is_worker() or _libray._actor_instance() is None):
        raise TypeError(
            "exit_actor API is called on a non-actor worker: call it in a method of an actor."
        )
    own_actor.request_exit()


def named_actors(all_namespaces: bool) -> List[Any]:
    """Names of living actors; of this namespace, or as dicts of all."""
    if process.local_mode:
        from . import local_mode

        return local_mode.named_actors(all_namespaces)
    from . import tables

    living = [r for r in tables.rows("actors") if r.get("name") and r.get("state") != "DEAD"]
    if all_namespaces:
        return [{"name": r["name"], "namespace": r["ns"]} for r in living]
    own = tables.namespace()
    return [r["name"] for r in living if r["ns"] == own]
