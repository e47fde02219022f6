"""`ray.util.as_completed` and `map_unordered`."""

from typing import Any, Iterable, Iterator, Sequence

import ray


def as_completed(
    refs: Sequence[Any], *, chunk_size: int = 10, yield_obj_refs: bool = False
) -> Iterator[Any]:
    """Values (or, with `yield_obj_refs`, references) in the order in which they are ready. Up to `chunk_size` are
    waited for at a time."""
    if chunk_size < 1:
        raise ValueError("`chunk_size` must be >= 1")
    left = list(refs)
    if len(set(left)) != len(left):
        raise ValueError("as_completed needs references that differ")
    while left:
        ready, left = ray.wait(left, num_returns=1)
        more, left = ray.wait(left, num_returns=min(chunk_size, len(left)), timeout=0) if left else ([], [])
        for ref in ready + more:
            yield ref if yield_obj_refs else ray.get(ref)


def map_unordered(
    fn: Any,
    items: Iterable[Any],
    *,
    backpressure_size: Any = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
) -> Iterator[Any]:
    """`fn.remote(item)` for each item, results as they come; at most `backpressure_size` calls are under way."""
    if chunk_size < 1:
        raise ValueError("`chunk_size` must be >= 1")
    limit = backpressure_size if backpressure_size is not None else float("inf")
    if limit < chunk_size:
        raise ValueError("backpressure_size needs to be at least as large as chunk_size")
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
        ready, running = ray.wait(running, num_returns=1)
        if running:
            more, running = ray.wait(running, num_returns=min(chunk_size, len(running)), timeout=0)
            ready += more
        for ref in ready:
            yield ref if yield_obj_refs else ray.get(ref)
