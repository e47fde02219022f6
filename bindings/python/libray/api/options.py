"""Options of tasks and actors: one table of what is allowed, with clear errors, and the packed form
of resources. Called when a function or an actor class is decorated or given options, on that thread; never per call."""

from __future__ import annotations

import math
import warnings
from typing import Any, Callable, Dict, List, Optional, Tuple

from .. import _libray
from ..core import import_ray, runtime_env as _runtime_env
from . import placement as _placement

_Check = Callable[[str, Any], None]
_NONE = type(None)


def _typed(*types: type, none: bool = True) -> _Check:
    allowed = types + (_NONE,) if none else types
    shown = allowed if len(allowed) > 1 else allowed[0]

    def check(key: str, value: Any) -> None:
        if not isinstance(value, allowed):
            raise TypeError(
                f"The type of keyword '{key}' must be {shown}, but received type {type(value)}"
            )

    return check


_MAX_AMOUNT = 1e13  # what the scheduler counts


def _quantity(key: str, value: Any) -> None:
    if value < 0:
        raise ValueError(f"The quantity of resource {key} cannot be negative")
    if not value <= _MAX_AMOUNT:  # also what is no number
        raise ValueError(f"The quantity of resource {key} must be at most {_MAX_AMOUNT:g}, got {value}")
    if isinstance(value, float) and value != 0 and int(value * 10000) == 0:
        raise ValueError(
            f"The precision of the fractional quantity of resource {key} cannot go beyond 0.0001"
        )


def _resource(key: str, value: Any) -> None:
    _typed(float, int)(key, value)
    if value is not None:
        _quantity(key, value)


def _resources(key: str, value: Any) -> None:
    _typed(dict)(key, value)
    if not value:
        return
    if "CPU" in value or "GPU" in value:
        raise ValueError(
            "Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU' in 'resources' "
            "keyword"
        )
    for name, amount in value.items():
        if not isinstance(name, str):
            raise TypeError(f"names in '{key}' must be str, but received type {type(name)}")
        _typed(float, int, none=False)(f"{key}[{name!r}]", amount)
        _quantity(name, amount)


def _count(infinite: bool) -> _Check:
    def check(key: str, value: Any) -> None:
        _typed(int)(key, value)
        if value is None or value >= (-1 if infinite else 0):
            return
        if infinite:
            raise ValueError(
                f"The keyword '{key}' only accepts None, 0, -1 or a positive integer, where -1 "
                "represents infinity."
            )
        raise ValueError(f"The keyword '{key}' only accepts None, 0 or a positive integer.")

    return check


def _num_returns(key: str, value: Any) -> None:
    _typed(int, str)(key, value)
    if value is None or value in ("streaming", "dynamic"):
        return
    if isinstance(value, str) or value < 0:
        raise ValueError(
            "Default None. When None is passed, the number of returns is 1 for functions and "
            f"'streaming' for generators. The keyword '{key}' only accepts None, a non-negative "
            "integer, 'streaming' (for generators), or 'dynamic'. Prefer 'streaming' over 'dynamic'."
        )


def _backpressure(key: str, value: Any) -> None:
    _typed(int)(key, value)
    if value is not None and (value == 0 or value < -1):
        raise ValueError(
            f"{key}={value} is not allowed. Use a value > 0 (with 1 the generator makes one object "
            "for each `next`), or -1 for no limit."
        )


def _actor_backpressure(key: str, value: Any) -> None:
    _typed(int)(key, value)
    if value is not None and (value == 0 or value < -1):
        raise ValueError(
            f"{key} must be > 0: how many objects that nobody took all generators of the actor have together; "
            f"or -1 for no limit, which is the default. {value} is not allowed."
        )


def _per_yield(key: str, value: Any) -> None:
    _typed(int)(key, value)
    if value is not None and not 1 <= value <= 255:
        raise ValueError(f"{key}={value} is not allowed: how many objects each `yield` gives, from 1 to 255.")


def _retry_exceptions(key: str, value: Any) -> None:
    _typed(bool, list, tuple, none=False)(key, value)
    if isinstance(value, bool):
        return
    if not all(isinstance(c, type) and issubclass(c, Exception) for c in value):
        raise ValueError("retry_exceptions must be either a boolean or a list of exceptions")


def _task_store_memory(key: str, value: Any) -> None:
    _typed(int)(key, value)
    if value is not None:
        raise ValueError(f"Setting '{key}' is not implemented for tasks")


def _name(key: str, value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{key} must be None or a string, got: '{type(value)}'.")
    if value is not None and not value.strip():
        raise ValueError(
            f"Actor {key} cannot be an empty string."
            if key == "name"
            else f'"" is not a valid {key}.'
        )


def _lifetime(key: str, value: Any) -> None:
    _typed(str)(key, value)
    if value not in (None, "detached", "non_detached"):
        raise ValueError(
            f"actor `{key}` argument must be one of 'detached', 'non_detached' or None, got {value!r}"
        )


def _runtime_env_option(key: str, value: Any) -> None:
    if value is not None and not isinstance(value, dict):
        raise TypeError(
            f"The type of keyword '{key}' must be a dict or None, but received type {type(value)}"
        )


def _concurrency_groups(key: str, value: Any) -> None:
    _typed(dict, list)(key, value)
    for name, limit in _named_limits(value):
        if not isinstance(name, str) or not name:
            raise TypeError(f"the names in '{key}' must be non-empty strings, got {name!r}")
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise ValueError(f"'{key}'[{name!r}] must be a positive integer, got {limit!r}")


def _named_limits(groups: Any) -> List[Tuple[Any, Any]]:
    """(name, limit) of {"io": 2}, or of [{"name": "io", "max_concurrency": 2, "methods": [...]}]."""
    if isinstance(groups, list):
        return [(group.get("name"), group.get("max_concurrency", 1)) for group in groups]
    return list((groups or {}).items())


def groups_of(groups: Any, methods: Dict[str, Any]) -> Dict[str, int]:
    """Concurrency groups of a class: name -> limit. Methods that a list form names are assigned."""
    if isinstance(groups, list):
        for group in groups:
            for name in group.get("methods") or ():
                name = getattr(name, "__name__", name)
                if name not in methods:
                    raise ValueError(
                        f"concurrency group {group.get('name')!r} names the method {name!r}, which the "
                        "class does not have"
                    )
                methods[name][1].setdefault("concurrency_group", group.get("name"))
    return dict(_named_limits(groups))


def _tensors(*allowed: Any) -> _Check:
    """Options of transports that move tensors between actors past the object store."""

    def check(key: str, value: Any) -> None:
        _typed(type(allowed[0]))(key, value)
        if value is not None and value not in allowed:
            raise NotImplementedError(
                f"libray has no tensor transports ('{key}={value!r}'): tensors on the CPU are shared "
                "through the object store without a copy, those on a GPU have to be copied to it"
            )

    return check


_COMMON: Dict[str, _Check] = {
    "num_cpus": _resource,
    "num_gpus": _resource,
    "memory": _resource,
    "object_store_memory": _count(False),
    "resources": _resources,
    "accelerator_type": _typed(str),
    "scheduling_strategy": _placement.check_strategy,
    "runtime_env": _runtime_env_option,
    "enable_task_events": _typed(bool, none=False),
    "_labels": _typed(dict),
    "_metadata": _typed(dict),
    "label_selector": _placement.check_selector,
    "fallback_strategy": _placement.check_fallback,
    "placement_group": _placement.check_group,
    "placement_group_bundle_index": _typed(int),
    "placement_group_capture_child_tasks": _typed(bool),
}
TASK: Dict[str, _Check] = {
    **_COMMON,
    "name": _typed(str),
    "num_returns": _num_returns,
    "object_store_memory": _task_store_memory,
    "max_calls": _count(False),
    "max_retries": _count(True),
    "retry_exceptions": _retry_exceptions,
    "portable": _typed(bool),  # libray's own: results that every language reads
    "_generator_backpressure_num_objects": _backpressure,
    "_num_objects_per_yield": _per_yield,
}
ACTOR: Dict[str, _Check] = {
    **_COMMON,
    "name": _name,
    "namespace": _name,
    "lifetime": _lifetime,
    "get_if_exists": _typed(bool, none=False),
    "max_concurrency": _count(False),
    "max_restarts": _count(True),
    "max_task_retries": _count(True),
    "max_pending_calls": _count(True),
    "allow_out_of_order_execution": _typed(bool),
    "concurrency_groups": _concurrency_groups,
    "enable_tensor_transport": _tensors(False),
    "_actor_generator_backpressure_num_objects": _actor_backpressure,
}
METHOD: Dict[str, _Check] = {
    "name": _typed(str),
    "num_returns": _num_returns,
    "max_task_retries": ACTOR["max_task_retries"],
    "retry_exceptions": _retry_exceptions,
    "enable_task_events": _typed(bool),
    "portable": _typed(bool),
    "_generator_backpressure_num_objects": _backpressure,
    "_num_objects_per_yield": _per_yield,
    "concurrency_group": _typed(str),
    "tensor_transport": _tensors("object_store", "OBJECT_STORE"),
}


def validate(
    kind: str, table: Dict[str, _Check], options: Dict[str, Any], in_options: bool = False
) -> None:
    for key, value in options.items():
        check = table.get(key)
        if check is None:
            raise ValueError(
                f"Invalid option keyword {key} for {kind}. Valid ones are {list(table)}."
            )
        check(key, value)
    if in_options and "max_calls" in options:
        raise ValueError("Setting 'max_calls' is not supported in '.options()'.")
    if "placement_group" in options or "placement_group_bundle_index" in options:
        _placement.check_together(options)
        if options.get("placement_group", "default") != "default":
            warnings.warn(
                "placement_group parameter is deprecated. Use "
                "scheduling_strategy=PlacementGroupSchedulingStrategy(...) instead, see "
                "https://docs.ray.io/en/latest/ray-core/package-ref.html#ray-remote.",
                DeprecationWarning,
                stacklevel=4,
            )
    if table is ACTOR and options.get("object_store_memory"):
        warnings.warn(
            "Setting 'object_store_memory' for actors is deprecated since it doesn't actually reserve the memory "
            "required by the object store. Use 'memory' instead.",
            DeprecationWarning,
            stacklevel=4,
        )
    if in_options and "concurrency_groups" in options:
        raise ValueError("Setting 'concurrency_groups' is not supported in '.options()'.")
    if options.get("get_if_exists") and not options.get("name"):
        raise ValueError("The actor name must be specified to use `get_if_exists`.")


def merged(old: Dict[str, Any], new: Dict[str, Any]) -> Dict[str, Any]:
    """Options with others on top. "_metadata" is what libraries keep there, each in a dict of its own: those of
    one library are merged, those of the others stay."""
    out = {**old, **new}
    if old.get("_metadata") and new.get("_metadata"):
        out["_metadata"] = {**old["_metadata"]}
        for library, values in new["_metadata"].items():
            before = out["_metadata"].get(library)
            both = isinstance(before, dict) and isinstance(values, dict)
            out["_metadata"][library] = {**before, **values} if both else values
    return out


_WHOLE_DEVICES = ("GPU", "TPU", "neuron_cores", "HPU", "NPU")  # a share of one, or several whole ones


class WrongAmount(ValueError):
    """An amount that nothing can be given: the decorator accepts it, each call is refused."""


def pack_resources(options: Dict[str, Any], cpus: Optional[float], what: str = "") -> bytes:
    """What is asked of a worker, as MessagePack: resources and a runtime environment. cpus: default of
    num_cpus (None: an actor, which holds no CPU unless it names one, or another resource but memory: then one)."""
    out: Dict[str, Any] = {}
    amount = options.get("num_cpus")
    amount = cpus if amount is None else amount
    if cpus is None and amount is None and _names_resources(options):
        amount = 1.0
    if amount:
        out["CPU"] = float(amount)
    if options.get("num_gpus"):
        out["GPU"] = float(options["num_gpus"])
    if options.get("memory"):
        whole = math.floor(options["memory"])  # bytes
        if whole:
            out["memory"] = float(whole)
    for name, value in (options.get("resources") or {}).items():
        if value:
            out[name] = float(value)
    for name in _WHOLE_DEVICES:
        if out.get(name, 0) > 1 and not out[name].is_integer():
            raise WrongAmount(
                f"{name} resource quantities >1 must be whole numbers. "
                f"The specified quantity {out[name]} is invalid."
            )
    if options.get("accelerator_type"):
        out[f"accelerator_type:{options['accelerator_type']}"] = 0.001
    placement = _placement.entry(options, out, cpus is None, what)
    if placement is not None:
        out["placement"] = placement  # type: ignore[assignment]
    environment = _runtime_env.for_call(options.get("runtime_env"), out.get("CPU", 0.0))
    if environment:
        out["runtime_env"] = environment
    if out == {"CPU": 1.0} and cpus is not None:
        return b""  # the default of the C API
    return bytes(_libray.encode(out, False)[1])


def _names_resources(options: Dict[str, Any]) -> bool:
    return (
        options.get("num_gpus") is not None
        or bool(options.get("resources"))
        or bool(options.get("accelerator_type"))
    )


STREAM, DYNAMIC = -1, -2


def returns_of(options: Dict[str, Any], is_generator: bool) -> int:
    """Number of returns; STREAM = an ObjectRefGenerator; DYNAMIC = one reference to a generator of
    the references of all items."""
    n = options.get("num_returns")
    if n is None:
        return STREAM if is_generator else 1
    if n in ("streaming", "dynamic"):
        if not is_generator:
            raise ValueError(
                f"num_returns='{n}' can only be used with generator functions (functions that use "
                "'yield'). The decorated function is not a generator function."
            )
        return STREAM if n == "streaming" else DYNAMIC
    return int(n)


def returns_by_name(options: Dict[str, Any]) -> int:
    """Of what is known by its name alone. Nobody here sees whether it is a generator: num_returns="streaming" says so."""
    return returns_of(options, True) if options.get("num_returns") is not None else 1


def window_of(options: Dict[str, Any]) -> int:
    n = options.get("_generator_backpressure_num_objects")
    # What one `yield` gives is given together.
    return 1 << 31 if n is None or n == -1 else max(int(n), options.get("_num_objects_per_yield") or 1)


def flags_of(options: Dict[str, Any]) -> int:
    """RAY_TASK_RETRY_ON_ERROR when the user's exceptions are retried; RAY_TASK_RUN_TO_END in programs of Ray, where a
    generator that its caller dropped still does all that it is to do."""
    return (1 if options.get("retry_exceptions") else 0) | (2 if import_ray.is_installed() else 0)


# Flags of a note: Note in src/worker.h.
_DYNAMIC, _RETRY_CLASSES, _ALL_OR_NOTHING, _PER_YIELD, _PORTABLE = 1, 2, 8, 16, 32
_IN_GROUP = _placement.IN_GROUP


def note_of(options: Dict[str, Any], num_returns: int = 1, is_generator: bool = False) -> bytes:
    """What travels with every call besides its arguments: flags, then its placement group, then the
    pickled classes of exceptions that are retried, then a byte: how many objects each `yield` gives. Empty for most
    functions: then nothing travels."""
    flags, body = 0, _placement.note_of(options)
    if body:
        flags |= _IN_GROUP
    if num_returns == DYNAMIC:
        flags |= _DYNAMIC
    if is_generator and num_returns != STREAM and options.get("retry_exceptions"):
        flags |= _ALL_OR_NOTHING  # else items before an exception keep their values
    if options.get("portable"):
        flags |= _PORTABLE
    classes = options.get("retry_exceptions")
    if classes and not isinstance(classes, bool):
        import cloudpickle

        flags |= _RETRY_CLASSES
        body += cloudpickle.dumps(tuple(classes), protocol=5)
    if num_returns == STREAM and (options.get("_num_objects_per_yield") or 1) > 1:
        flags |= _PER_YIELD
        body += bytes([options["_num_objects_per_yield"]])
    return bytes([flags]) + body if flags else b""


def note_by_name(options: Dict[str, Any], num_returns: int, is_python: bool) -> bytes:
    """note_of for what is known by its name alone. Workers of other languages read no note: what would travel in it is
    refused."""
    if is_python:
        return note_of(options, num_returns, True)
    only = "is for functions of Python alone"
    if num_returns == DYNAMIC:
        raise ValueError(f"num_returns='dynamic' {only}: use num_returns='streaming'")
    if options.get("retry_exceptions") and not isinstance(options["retry_exceptions"], bool):
        raise ValueError(f"a list of classes as retry_exceptions {only}: use retry_exceptions=True, which retries every error")
    if (options.get("_num_objects_per_yield") or 1) > 1:
        raise ValueError(f"_num_objects_per_yield {only}: leave it out, and let each item be the group of its objects")
    return b""


def retry_classes(note: bytes) -> bytes:
    """The pickled classes in a note that has them."""
    return note[1 + (_placement.NOTE_SIZE if note[0] & _IN_GROUP else 0) :]


def retries_of(value: Optional[int]) -> int:
    return -2 if value is None else value


Signature = Tuple[int, int, Any]
