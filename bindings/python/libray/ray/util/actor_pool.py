"""`ray.util.ActorPool`: work spread over actors that are busy with one call each.

The protected members keep Ray's names, for subclasses rely on them: `_idle_actors`, `_future_to_actor` (the
reference, or for several returns the tuple of them, to (index, actor)), `_index_to_future`, `_next_task_index`,
`_next_return_index`, `_pending_submits`, `_return_actor`.
"""

from typing import Any, Callable, Iterable, Iterator, List, Optional

import ray


class ActorPool:
    """`ActorPool([a1, a2]).map(lambda actor, value: actor.double.remote(value), values)`."""

    def __init__(self, actors: Iterable[Any]) -> None:
        self._idle_actors: List[Any] = list(actors)
        self._future_to_actor: dict = {}
        self._index_to_future: dict = {}
        self._next_task_index = 0
        self._next_return_index = 0
        self._pending_submits: list = []

    def map(self, fn: Callable[[Any, Any], Any], values: Iterable[Any]) -> Iterator[Any]:
        """Results in the order of the values. What the pool still held is dropped."""
        self._drop_rest()
        for value in values:
            self.submit(fn, value)

        def results() -> Iterator[Any]:
            while self.has_next():
                yield self.get_next()

        return results()

    def map_unordered(self, fn: Callable[[Any, Any], Any], values: Iterable[Any]) -> Iterator[Any]:
        """Results as they come."""
        self._drop_rest()
        for value in values:
            self.submit(fn, value)

        def results() -> Iterator[Any]:
            while self.has_next():
                yield self.get_next_unordered()

        return results()

    def _drop_rest(self) -> None:
        """Forgets what was submitted; an actor that still works on it gets the next call behind that."""
        while self.has_next():
            self._take(next(iter(self._future_to_actor)), get=False)

    def submit(self, fn: Callable[[Any, Any], Any], value: Any) -> None:
        """Calls `fn(actor, value)`, which must return a reference, once an actor is free."""
        if not self._idle_actors:
            self._pending_submits.append((fn, value))
            return
        actor = self._idle_actors.pop()
        future = fn(actor, value)
        key = tuple(future) if isinstance(future, list) else future
        self._future_to_actor[key] = (self._next_task_index, actor)
        self._index_to_future[self._next_task_index] = future
        self._next_task_index += 1

    def has_next(self) -> bool:
        """Whether a result is left to take."""
        return bool(self._future_to_actor)

    def get_next(self, timeout: Optional[float] = None, ignore_if_timedout: bool = False) -> Any:
        """The next result in the order of submission."""
        if not self.has_next():
            raise StopIteration("No more results to get")
        if self._next_return_index >= self._next_task_index:
            raise ValueError("It is not allowed to call get_next() after get_next_unordered().")
        future = self._index_to_future[self._next_return_index]
        if not self._ready([future], timeout):
            if not ignore_if_timedout:
                raise TimeoutError("Timed out waiting for result")
            self._take(future, get=False)
            raise TimeoutError(f"Timed out waiting for result. The task {future} has been ignored.")
        return self._take(future)

    def get_next_unordered(
        self, timeout: Optional[float] = None, ignore_if_timedout: bool = False
    ) -> Any:
        """The result that is there first."""
        if not self.has_next():
            raise StopIteration("No more results to get")
        ready = self._ready(list(self._future_to_actor), timeout)
        if not ready:
            if not ignore_if_timedout:
                raise TimeoutError("Timed out waiting for result")
            return None
        return self._take(ready[0])

    @staticmethod
    def _ready(futures: list, timeout: Optional[float]) -> list:
        """The first of the futures that is ready; a list of references stands for all of them, by its first."""
        first = {f[0] if isinstance(f, (list, tuple)) else f: f for f in futures}
        ready, _ = ray.wait(list(first), num_returns=1, timeout=timeout)
        return [first[ref] for ref in ready]

    def _take(self, future: Any, get: bool = True) -> Any:
        key = tuple(future) if isinstance(future, list) else future
        index, actor = self._future_to_actor.pop(key)
        stored = self._index_to_future.pop(index)
        # What came out of order is not looked for again.
        self._next_return_index = max(self._next_return_index, index + 1)
        if not get:
            return self._return_actor(actor)
        try:
            value = ray.get(list(stored) if isinstance(stored, (list, tuple)) else stored)
        except ray.exceptions.ActorDiedError:  # it stays out of the pool
            self._return_actor(actor, is_alive=False)
            raise
        except BaseException:
            self._return_actor(actor)
            raise
        self._return_actor(actor)
        return value

    def _return_actor(self, actor: Any, is_alive: bool = True) -> None:
        if is_alive:
            self._idle_actors.append(actor)
        if self._pending_submits and self._idle_actors:
            self.submit(*self._pending_submits.pop(0))

    def has_free(self) -> bool:
        """Whether an actor is idle and nothing waits for it."""
        return bool(self._idle_actors) and not self._pending_submits

    def pop_idle(self) -> Any:
        """Takes an idle actor out of the pool; None when there is none."""
        return self._idle_actors.pop() if self.has_free() else None

    def push(self, actor: Any) -> None:
        """Puts an actor into the pool."""
        busy = [a for _, a in self._future_to_actor.values()]
        if actor in self._idle_actors or actor in busy:
            raise ValueError("Actor already belongs to current ActorPool")
        self._return_actor(actor)
