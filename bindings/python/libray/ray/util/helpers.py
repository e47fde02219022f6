"""`ray.util.as_completed` and `map_unordered`."""

from typing import Any, Dict, Iterable, Iterator, List, Sequence, Tuple

import ray


def _some(left: List[Any], chunk_size: int, options: Dict[str, Any]) -> Tuple[List[Any], List[Any]]:
    """Waits for one of them and takes what is ready by then, `chunk_size` at most."""
    ready, left = ray.wait(left, num_returns=1, **options)
    if ready and left and chunk_size > 1:
        more, left = ray.wait(left, num_returns=min(chunk_size - 1, len(left)), timeout=0)
        ready += more
    return ready, left


def _check(chunk_size: int, options: Dict[str, Any]) -> None:
    if chunk_size < 1:
        raise ValueError("`chunk_size` must be >= 1")
    if "num_returns" in options:
        raise ValueError("Use the `chunk_size` argument instead of `num_returns`.")


def as_completed(
    refs: Sequence[Any], *, chunk_size: int = 10, yield_obj_refs: bool = False, **options: Any
) -> Iterator[Any]:
    """Values (or, with `yield_obj_refs`, references) in the order in which they are ready. Up to `chunk_size` are
    taken at a time. `options` are those of `ray.wait`."""
    _check(chunk_size, options)
    left = list(refs)
    if len(set(left)) != len(left):
        raise ValueError("Wait requires a list of unique ray_waitables.")
    while left:
        ready, left = _some(left, chunk_size, options)
        for ref in ready:
            yield ref if yield_obj_refs else ray.get(ref)


def map_unordered(
    fn: Any,
    items: Iterable[Any],
    *,
    backpressure_size: Any = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    **options: Any,
) -> Iterator[Any]:
    """`fn.remote(item)` for each item, results as they come; at most `backpressure_size` calls are under way.
    `options` are those of `ray.wait`."""
    limit = backpressure_size if backpressure_size is not None else float("inf")
    if limit <= 0:
        raise ValueError("backpressure_size must be positive.")
    _check(chunk_size, options)
    source, running, exhausted = iter(items), [], False
    while running or not exhausted:
        while not exhausted and len(running) < limit:
            try:
                item = next(source)
            except StopIteration:
                exhausted = True
                break
            running.append(fn.remote(item))
        if not running:
            break
        ready, running = _some(running, chunk_size, options)
        for ref in ready:
            yield ref if yield_obj_refs else ray.get(ref)
