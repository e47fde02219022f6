"""`dask.compute(scheduler=ray_dask_get)`: each node of a dask graph is one task; values stay in the store between.
With dask's annotation `ray_remote_args` nodes get options of tasks."""

import threading
from typing import Any, Dict, List

import ray
from ray.util.dask.callbacks import local_ray_callbacks, unpack_ray_callbacks


@ray.remote
def _run(task: Any, key: Any, names: Any, before: Any, after: Any, *values: Any) -> Any:
    """A node of the graph, with the values of the nodes that it names, between two lists of hooks."""
    _fetch_held(task)
    states = [hook(key, list(values)) if hook else None for hook in before]
    result = _evaluate(task, dict(zip(names, values)))
    for hook, state in zip(after, states):
        if hook:
            hook(key, result, state)
    return result


def _fetch_held(node: Any) -> None:
    """Values in place of the references of persisted nodes that dask fused into this one."""
    if isinstance(node, (list, tuple)):
        for item in node:
            _fetch_held(item)
    elif isinstance(node, dict):
        for item in node.values():
            _fetch_held(item)
    elif hasattr(node, "dependencies"):
        if isinstance(getattr(node, "value", None), ray.ObjectRef):
            node.value = ray.get(node.value)
        _fetch_held(getattr(node, "args", ()))
        _fetch_held(getattr(node, "kwargs", {}))


def _evaluate(task: Any, known: Dict[Any, Any]) -> Any:
    if hasattr(task, "dependencies") and callable(task):  # a node of dask since 2024.12
        return task({key: known[key] for key in task.dependencies})
    from dask.core import istask

    if istask(task):
        function, *arguments = task
        return function(*[_evaluate(a, known) for a in arguments])
    if isinstance(task, list):
        return [_evaluate(item, known) for item in task]
    try:
        return known[task] if task in known else task
    except TypeError:  # not hashable: a plain value
        return task


_persisting = threading.local()  # .on: `dask.persist` is under way in this thread


def ray_dask_get(
    dsk: Any,
    keys: Any,
    *,
    ray_callbacks: Any = None,
    ray_persist: bool = False,
    ray_remote_args: Any = None,
    **ignored: Any,
) -> Any:
    """The values of `keys` in the graph `dsk`; with `ray_persist` their references."""
    if "resources" in ignored:
        raise ValueError(_RESOURCES)
    options = _options_of_keys(dsk, ray_remote_args or {})
    if hasattr(dsk, "__dask_graph__") and not hasattr(dsk, "layers"):  # an expression of dask since 2025
        dsk = dsk.__dask_graph__()
    graph = _as_nodes(dsk)
    with local_ray_callbacks(ray_callbacks) as active:
        hooks = unpack_ray_callbacks(active)
        refs = _nested(keys, _submit(graph, options, hooks))
        for hook in hooks.ray_postsubmit_all_cbs:
            hook(refs, graph)
        del graph
        result = refs if ray_persist or getattr(_persisting, "on", False) else _values(refs)
        for hook in hooks.ray_finish_cbs:
            hook(result)
    return result


_RESOURCES = (
    "dask's annotation `resources` means nothing here: use `ray_remote_args={'resources': {...}}` in "
    "dask.annotate() or in compute()."
)


def _options_of_keys(dsk: Any, given: Dict[str, Any]) -> Any:
    """A function that gives the options of a key's task: those of its layer on those of the whole call."""
    import dask

    around = dask.get_annotations()
    if "resources" in around:
        raise ValueError(_RESOURCES)
    common = {**around.get("ray_remote_args", {}), **given}
    of_keys: Dict[Any, Dict[str, Any]] = {}
    for layer in getattr(dsk, "layers", {}).values():
        notes = getattr(layer, "annotations", None) or {}
        if "resources" in notes:
            raise ValueError(_RESOURCES)
        if notes.get("ray_remote_args"):
            of_keys.update(dict.fromkeys(layer.get_output_keys(), notes["ray_remote_args"]))
    if hasattr(dsk, "__dask_annotations__"):
        notes = dsk.__dask_annotations__()
        if "resources" in notes:
            raise ValueError(_RESOURCES)
        of_keys.update(notes.get("ray_remote_args", {}))
    return lambda key: {**common, **of_keys.get(key, {})}


def _as_nodes(dsk: Any) -> Dict[Any, Any]:
    graph = dict(dsk)
    try:
        from dask._task_spec import convert_legacy_graph
    except ImportError:
        return graph
    return dict(convert_legacy_graph(graph))


def _held(node: Any) -> Any:
    """The reference that a persisted node holds; None of any other node."""
    value = getattr(node, "value", node)
    return value if isinstance(value, ray.ObjectRef) else None


def _submit(graph: Dict[Any, Any], options: Any, hooks: Any) -> Dict[Any, Any]:
    """A reference, or a value that a hook gave, for every key."""
    from dask.core import get_dependencies, toposort

    before, after = hooks.ray_pretask_cbs, hooks.ray_posttask_cbs
    made: Dict[Any, Any] = {}
    for key in toposort(graph):
        node = graph[key]
        made[key] = _held(node)
        if made[key] is not None:
            continue
        needed = list(get_dependencies(graph, key))
        inputs = {name: made[name] for name in needed}
        for hook in hooks.ray_presubmit_cbs:
            made[key] = hook(node, key, inputs)
            if made[key] is not None:
                break
        if made[key] is not None:
            continue
        task = _run.options(name=f"dask:{key!s}", **options(key))
        made[key] = task.remote(node, key, needed, before, after, *inputs.values())
        for hook in hooks.ray_postsubmit_cbs:
            hook(node, key, inputs, made[key])
    return made


def _nested(keys: Any, made: Dict[Any, Any]) -> Any:
    if isinstance(keys, list):
        return [_nested(each, made) for each in keys]
    return made[keys]


def _values(refs: Any) -> Any:
    """Values in place of references, all of them fetched at once."""
    flat: List[Any] = []

    def collect(item: Any) -> None:
        if isinstance(item, list):
            for each in item:
                collect(each)
        elif isinstance(item, ray.ObjectRef):
            flat.append(item)

    collect(refs)
    values = iter(ray.get(flat))

    def place(item: Any) -> Any:
        if isinstance(item, list):
            return [place(each) for each in item]
        return next(values) if isinstance(item, ray.ObjectRef) else item

    return place(refs)


def ray_dask_get_sync(dsk: Any, keys: Any, **options: Any) -> Any:
    """The same: submission is not a matter of threads here."""
    return ray_dask_get(dsk, keys, **options)


def dataframe_optimize(dsk: Any, keys: Any, **options: Any) -> Any:
    """Kept for programs that name it: dask plans its shuffles itself since 2025."""
    return dsk


def enable_dask_on_ray(shuffle: Any = "tasks", use_shuffle_optimization: bool = True) -> Any:
    """Makes it dask's scheduler from now on, or inside a `with` block."""
    import dask

    return dask.config.set(scheduler=ray_dask_get, shuffle=shuffle)


def disable_dask_on_ray() -> Any:
    """Gives dask its own scheduler again."""
    import dask

    return dask.config.set(scheduler=None, shuffle=None)


def patch_persist() -> Any:
    """`dask.persist` keeps references, so that the values stay in the store. Called once, at import."""
    import dask
    import dask.base

    plain = dask.base.persist

    def persist(*args: Any, **kwargs: Any) -> Any:
        _persisting.on = True
        try:
            return plain(*args, **kwargs)
        finally:
            _persisting.on = False

    persist.__doc__ = plain.__doc__
    dask.persist = dask.base.persist = persist
    return persist
