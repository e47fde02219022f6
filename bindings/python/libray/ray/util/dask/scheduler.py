"""`dask.compute(scheduler=ray_dask_get)`: each node of a dask graph is one task; values stay in the store between."""

from typing import Any, Dict

import ray


@ray.remote
def _run(task: Any, names: Any, *values: Any) -> Any:
    """A node of the graph, with the values of the nodes that it names."""
    return _evaluate(task, dict(zip(names, values)))


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


def ray_dask_get(dsk: Any, keys: Any, **options: Any) -> Any:
    """The values of `keys` in the graph `dsk`."""
    from dask.core import get_dependencies, toposort

    if hasattr(dsk, "__dask_graph__"):  # an expression of dask since 2025
        dsk = dsk.__dask_graph__()
    graph = dict(dsk)
    try:
        from dask._task_spec import convert_legacy_graph

        graph = convert_legacy_graph(graph)
    except ImportError:
        pass
    refs: Dict[Any, Any] = {}
    for key in toposort(graph):
        needed = list(get_dependencies(graph, key))
        refs[key] = _run.remote(graph[key], needed, *[refs[name] for name in needed])

    def values(wanted: Any) -> Any:
        if isinstance(wanted, list):
            return type(wanted)(values(each) for each in wanted)
        return ray.get(refs[wanted])

    return values(keys)


ray_dask_get_sync = ray_dask_get
_before: list = []


def enable_dask_on_ray(*args: Any, **kwargs: Any) -> Any:
    """Makes it dask's scheduler from now on."""
    import dask

    setting = dask.config.set(scheduler=ray_dask_get)
    _before.append(setting)
    return setting


def disable_dask_on_ray() -> Any:
    import dask

    return dask.config.set(scheduler=None)
