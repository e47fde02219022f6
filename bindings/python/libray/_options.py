"""Options of tasks and actors: one table of what is allowed, with clear errors, and the packed form
of resources."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, Tuple

from . import _libray

_Check = Callable[[str, Any], None]


def _typed(*types: type, none: bool = True) -> _Check:
    names = " or ".join(t.__name__ for t in types)

    def check(key: str, value: Any) -> None:
        if value is None and none:
            return
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise TypeError(
                f"The type of keyword '{key}' must be {names}{' or None' if none else ''}, but received "
                f"type {type(value)}"
            )

    return check


def _quantity(key: str, value: Any) -> None:
    if value < 0:
        raise ValueError(f"The quantity of resource {key} cannot be negative")
    if isinstance(value, float) and value != 0 and abs(round(value * 10000) - value * 10000) > 1e-6:
        raise ValueError(
            f"The precision of the fractional quantity of resource {key} cannot go beyond 0.0001"
        )


def _resource(key: str, value: Any) -> None:
    _typed(int, float)(key, value)
    if value is not None:
        _quantity(key, value)


def _resources(key: str, value: Any) -> None:
    _typed(dict)(key, value)
    for name, amount in (value or {}).items():
        if not isinstance(name, str):
            raise TypeError(f"names in '{key}' must be str, but received type {type(name)}")
        if name in ("CPU", "GPU"):
            raise ValueError(
                f"Use the 'num_cpus' and 'num_gpus' keyword instead of '{name}' in '{key}' keyword"
            )
        _typed(int, float, none=False)(f"{key}[{name!r}]", amount)
        _quantity(name, amount)


def _at_least(low: int, what: str) -> _Check:
    def check(key: str, value: Any) -> None:
        _typed(int)(key, value)
        if value is not None and value < low:
            raise ValueError(f"The keyword '{key}' only accepts {what}")

    return check


def _num_returns(key: str, value: Any) -> None:
    if value is None or value in ("streaming", "dynamic"):
        return
    if isinstance(value, str):
        raise ValueError(
            f'The keyword \'{key}\' only accepts None, a non-negative integer, "streaming" or "dynamic"'
        )
    _at_least(0, 'None, a non-negative integer, "streaming" (for generators) or "dynamic"')(
        key, value
    )


def _backpressure(key: str, value: Any) -> None:
    _typed(int)(key, value)
    if value is not None and (value == 0 or value < -1):
        raise ValueError(
            f"The keyword '{key}' only accepts -1 (no limit) or a positive integer; {value} is invalid"
        )


def _retry_exceptions(key: str, value: Any) -> None:
    if isinstance(value, (list, tuple)):
        for item in value:
            if not (isinstance(item, type) and issubclass(item, BaseException)):
                raise TypeError(
                    f"'{key}' must be a bool or a list of exception classes, not {item!r}"
                )
        return
    _typed(bool)(key, value)


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
    if value not in (None, "detached", "non_detached"):
        raise ValueError(
            f"actor `{key}` argument must be one of 'detached', 'non_detached' or None, got {value!r}"
        )


def _runtime_env(key: str, value: Any) -> None:
    if value:
        raise NotImplementedError(
            "runtime_env is not supported yet: set the environment before libray.init()"
        )


def _strategy(key: str, value: Any) -> None:
    if value not in (None, "DEFAULT", "SPREAD"):
        raise NotImplementedError(
            f'{key}={value!r} is not supported yet: use "DEFAULT" or "SPREAD"'
        )


def _unsupported(hint: str) -> _Check:
    def check(key: str, value: Any) -> None:
        if value is not None:
            raise NotImplementedError(f"the option '{key}' is not supported yet{hint}")

    return check


_COMMON: Dict[str, _Check] = {
    "num_cpus": _resource,
    "num_gpus": _resource,
    "memory": _resource,
    "object_store_memory": _resource,
    "resources": _resources,
    "accelerator_type": _typed(str),
    "scheduling_strategy": _strategy,
    "runtime_env": _runtime_env,
    "enable_task_events": _typed(bool),
    "_labels": _typed(dict),
    "label_selector": _unsupported(""),
    "placement_group": _unsupported(""),
}
TASK: Dict[str, _Check] = {
    **_COMMON,
    "name": _typed(str),
    "num_returns": _num_returns,
    "max_calls": _at_least(0, "0 or a positive integer"),
    "max_retries": _at_least(-1, "-1, 0 or a positive integer"),
    "retry_exceptions": _retry_exceptions,
    "_generator_backpressure_num_objects": _backpressure,
}
ACTOR: Dict[str, _Check] = {
    **_COMMON,
    "name": _name,
    "namespace": _name,
    "lifetime": _lifetime,
    "get_if_exists": _typed(bool),
    "max_concurrency": _at_least(1, "a positive integer"),
    "max_restarts": _at_least(-1, "-1, 0 or a positive integer"),
    "max_task_retries": _at_least(-1, "-1, 0 or a positive integer"),
    "max_pending_calls": _at_least(-1, "-1 (no limit) or a positive integer"),
    "allow_out_of_order_execution": _typed(bool),
    "concurrency_groups": _unsupported(": use max_concurrency, or several actors"),
}
METHOD: Dict[str, _Check] = {
    "name": _typed(str),
    "num_returns": _num_returns,
    "max_task_retries": ACTOR["max_task_retries"],
    "retry_exceptions": _retry_exceptions,
    "enable_task_events": _typed(bool),
    "_generator_backpressure_num_objects": _backpressure,
    "concurrency_group": _unsupported(": use max_concurrency, or several actors"),
}


def validate(
    kind: str, table: Dict[str, _Check], options: Dict[str, Any], in_options: bool = False
) -> None:
    for key, value in options.items():
        check = table.get(key)
        if check is None:
            raise ValueError(
                f"Invalid option keyword {key} for {kind}. Valid ones are {sorted(table)}."
            )
        check(key, value)
    if in_options and "max_calls" in options:
        raise ValueError("Setting 'max_calls' is not supported in '.options()'.")
    if options.get("get_if_exists") and not options.get("name"):
        raise ValueError("The actor name must be specified to use `get_if_exists`.")


def pack_resources(options: Dict[str, Any], cpus: Optional[float]) -> bytes:
    """Resources as MessagePack. cpus: default of num_cpus (None: an actor, which holds nothing
    unless asked)."""
    out: Dict[str, float] = {}
    amount = options.get("num_cpus")
    amount = cpus if amount is None else amount
    if amount:
        out["CPU"] = float(amount)
    for key, name in (("num_gpus", "GPU"), ("memory", "memory")):
        if options.get(key):
            out[name] = float(options[key])
    for name, value in (options.get("resources") or {}).items():
        if value:
            out[name] = float(value)
    if options.get("accelerator_type"):
        out[f"accelerator_type:{options['accelerator_type']}"] = 0.001
    if out == {"CPU": 1.0} and cpus is not None:
        return b""  # the default of the C API
    return bytes(_libray.encode(out, False)[1])


def returns_of(options: Dict[str, Any], is_generator: bool) -> int:
    """Number of returns; -1 = a stream."""
    n = options.get("num_returns")
    if n is None:
        return -1 if is_generator else 1
    if n in ("streaming", "dynamic"):
        if not is_generator:
            raise ValueError(f"num_returns={n!r} needs a generator function")
        return -1
    return int(n)


def window_of(options: Dict[str, Any]) -> int:
    n = options.get("_generator_backpressure_num_objects")
    return 0 if n is None else (1 << 31) if n == -1 else int(n)


def flags_of(options: Dict[str, Any]) -> int:
    """RAY_TASK_RETRY_ON_ERROR when the user's exceptions are retried."""
    return 1 if options.get("retry_exceptions") else 0


def retries_of(value: Optional[int]) -> int:
    return -2 if value is None else value


Signature = Tuple[int, int, Any]
