"""`ray.util.iter`: a sequence in shards, each in an actor that applies the stages to its part; `gather_sync`,
`gather_async` and the like bring the items to whoever iterates.

A parallel iterator is a list of groups: actors, and the stages that those apply. A local iterator is a function that
makes a fresh iteration, so that it can be started again, combined and sent. Its argument `wait` is how long the
iteration may block, in seconds, before it yields NOT_READY (None: without end): a union asks its parts in turn."""

import collections
import random
import threading
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import ray
from ray.util.iter_metrics import MetricsContext, SharedMetrics


class _NotReady:
    def __reduce__(self) -> str:
        return "NOT_READY"


NOT_READY = _NotReady()
Stage = Callable[["LocalIterator"], "LocalIterator"]
_PAUSE_S = 0.05  # how long a union waits for one part before it looks at the next


def from_items(items: Sequence[Any], num_shards: int = 2, repeat: bool = False) -> "ParallelIterator":
    """The items, dealt to the shards in turn. `repeat`: without end."""
    kind = type(items[0]).__name__ if items else "None"
    name = f"from_items[{kind}, {len(items)}, shards={num_shards}{_repeats(repeat)}]"
    return from_iterators([list(items[i::num_shards]) for i in range(num_shards)], repeat, name)


def from_range(n: int, num_shards: int = 2, repeat: bool = False) -> "ParallelIterator":
    """The numbers below n; each shard has a range of them."""
    size = n // num_shards
    bounds = [i * size for i in range(num_shards)] + [n]
    name = f"from_range[{n}, shards={num_shards}{_repeats(repeat)}]"
    return from_iterators(
        [range(bounds[i], bounds[i + 1]) for i in range(num_shards)], repeat, name
    )


def from_iterators(
    generators: Sequence[Any], repeat: bool = False, name: Optional[str] = None
) -> "ParallelIterator":
    """A shard for each of `generators`: an iterable, or a function that makes one."""
    worker = ray.remote(ParallelIteratorWorker)
    actors = [worker.remote(source, repeat) for source in generators]
    return from_actors(
        actors, name or f"from_iterators[shards={len(actors)}{_repeats(repeat)}]"
    )


def from_actors(actors: Sequence[Any], name: Optional[str] = None) -> "ParallelIterator":
    """A shard for each actor; their classes inherit ParallelIteratorWorker."""
    return ParallelIterator([(list(actors), ())], name or f"from_actors[shards={len(actors)}]")


def _repeats(repeat: bool) -> str:
    return ", repeat=True" if repeat else ""


class ParallelIteratorWorker:
    """What a shard's actor is: gives the items of `item_generator` after the stages."""

    def __init__(self, item_generator: Any, repeat: bool) -> None:
        self._source, self._repeat = item_generator, repeat
        self._items: Optional[Iterator[Any]] = None
        self._count = 0
        self._slices: Dict[int, Any] = {}

    def _iterate(self) -> Iterator[Any]:
        if not callable(self._source):
            if self._repeat and iter(self._source) is self._source:
                raise TypeError(
                    "with repeat=True a shard needs a list or a function that makes its iterator, "
                    f"not {self._source!r}, which can be read once"
                )
            make: Callable[[], Any] = lambda: self._source
        else:
            make = self._source
        while True:
            yield from make()
            if not self._repeat:
                return

    def par_iter_init(self, stages: Sequence[Stage]) -> None:
        """Begins an iteration; one that was under way is forgotten."""
        local = LocalIterator(lambda wait: self._iterate(), "shard")
        for stage in stages:
            local = stage(local)
        self._items, self._count, self._slices = iter(local), 0, {}

    def _next(self) -> Any:
        if self._items is None:
            raise RuntimeError("par_iter_init begins an iteration: call it first")
        return next(self._items)

    def par_iter_next(self) -> List[Any]:
        """The next item in a list, which is empty at the end."""
        return self.par_iter_next_batch(0)

    def par_iter_next_batch(self, batch_ms: int) -> List[Any]:
        """The next item, and what follows it within so many milliseconds."""
        return _take_for(self._next, batch_ms)

    def par_iter_slice(self, step: int, start: int) -> List[Any]:
        """The next of the items number start, start + step, ...: several readers share one iteration."""
        return self.par_iter_slice_batch(step, start, 0)

    def par_iter_slice_batch(self, step: int, start: int, batch_ms: int) -> List[Any]:
        return _take_for(lambda: self._next_of(step, start), batch_ms)

    def _next_of(self, step: int, start: int) -> Any:
        own = self._slices.setdefault(start, collections.deque())
        while not own:
            item = self._next()
            self._slices.setdefault(self._count % step, collections.deque()).append(item)
            self._count += 1
        return own.popleft()


def _take_for(take: Callable[[], Any], batch_ms: int) -> List[Any]:
    out: List[Any] = []
    end = time.monotonic() + batch_ms / 1000
    while not out or time.monotonic() < end:
        try:
            out.append(take())
        except StopIteration:
            break
    return out


class ParallelIterator:
    """See the functions of this module that make one."""

    def __init__(self, groups: List[Tuple[List[Any], Tuple[Stage, ...]]], name: str) -> None:
        self.groups, self.name = groups, name

    def __iter__(self) -> Any:
        raise TypeError(
            "a parallel iterator has no order of its own: iterate over it.gather_sync() or it.gather_async()"
        )

    def __repr__(self) -> str:
        return f"ParallelIterator[{self.name}]"

    def _with(self, stage: Stage, name: str) -> "ParallelIterator":
        groups = [(actors, (*stages, stage)) for actors, stages in self.groups]
        return ParallelIterator(groups, self.name + name)

    def _start(self) -> List[Any]:
        """The actors, each at the beginning of an iteration."""
        begun, actors = [], []
        for members, stages in self.groups:
            begun += [actor.par_iter_init.remote(list(stages)) for actor in members]
            actors += members
        ray.get(begun)
        return actors

    # What the shards do.

    def transform(self, fn: Callable[[Iterable[Any]], Iterable[Any]]) -> "ParallelIterator":
        """Each shard's items go through `fn`, which takes an iterator and gives one."""
        return self._with(lambda local: local.transform(fn), ".transform()")

    def for_each(
        self, fn: Callable[[Any], Any], max_concurrency: int = 1, resources: Optional[Dict[str, Any]] = None
    ) -> "ParallelIterator":
        """`fn` of each item. With another `max_concurrency` (0: no limit) so many are tasks at a time."""
        if max_concurrency < 0:
            raise ValueError("max_concurrency must be non-negative")
        return self._with(lambda local: local.for_each(fn, max_concurrency, resources), ".for_each()")

    def filter(self, fn: Callable[[Any], bool]) -> "ParallelIterator":
        return self._with(lambda local: local.filter(fn), ".filter()")

    def batch(self, n: int) -> "ParallelIterator":
        """Lists of n items; the last of a shard may be shorter."""
        return self._with(lambda local: local.batch(n), f".batch({n})")

    def flatten(self) -> "ParallelIterator":
        return self._with(lambda local: local.flatten(), ".flatten()")

    def combine(self, fn: Callable[[Any], List[Any]]) -> "ParallelIterator":
        """All that `fn` makes of each item."""
        return self._with(lambda local: local.combine(fn), ".combine()")

    def local_shuffle(self, shuffle_buffer_size: int, seed: Optional[int] = None) -> "ParallelIterator":
        """Mixes each shard's items, so many at a time."""
        return self._with(
            lambda local: local.shuffle(shuffle_buffer_size, seed),
            f".local_shuffle(shuffle_buffer_size={shuffle_buffer_size}, seed={seed})",
        )

    def repartition(self, num_partitions: int, batch_ms: int = 0) -> "ParallelIterator":
        """The same items in another number of shards."""
        actors = self._start()

        def reader(index: int) -> Callable[[], Iterator[Any]]:
            def read() -> Iterator[Any]:
                asked = {
                    a.par_iter_slice_batch.remote(num_partitions, index, batch_ms): a for a in actors
                }
                while asked:
                    (ref,), _ = ray.wait(list(asked))
                    actor, items = asked.pop(ref), ray.get(ref)
                    if items:
                        again = actor.par_iter_slice_batch.remote(num_partitions, index, batch_ms)
                        asked[again] = actor
                    yield from items

            return read

        readers = [reader(i) for i in range(num_partitions)]
        return from_iterators(
            readers, name=f"{self.name}.repartition[num_partitions={num_partitions}]"
        )

    # How the items come together.

    def _rows(self, wait: Optional[float]) -> Iterator[Any]:
        """One (actor, item) of each shard that still has some, again and again."""
        actors = self._start()
        while actors:
            asked = [a.par_iter_next.remote() for a in actors]
            while len(ray.wait(asked, num_returns=len(asked), timeout=wait)[0]) < len(asked):
                yield NOT_READY
            row = [(actor, items[0]) for actor, items in zip(actors, ray.get(asked)) if items]
            if row:
                yield row
            actors = [actor for actor, _ in row]

    def gather_sync(self) -> "LocalIterator":
        """The shards' items in turn: the first of each, the second of each, ..."""

        def make(wait: Optional[float]) -> Iterator[Any]:
            for row in self._rows(wait):
                if row is NOT_READY:
                    yield row
                    continue
                for actor, item in row:
                    _set_source(actor)
                    yield item

        return LocalIterator(make, f"{self}.gather_sync()")

    def batch_across_shards(self) -> "LocalIterator":
        """Lists of one item of each shard that still has some."""

        def make(wait: Optional[float]) -> Iterator[Any]:
            for row in self._rows(wait):
                yield row if row is NOT_READY else [item for _, item in row]

        return LocalIterator(make, f"{self}.batch_across_shards()")

    def gather_async(self, batch_ms: int = 0, num_async: int = 1) -> "LocalIterator":
        """The shards' items as they come; `num_async` calls of each actor are under way."""
        if num_async < 1:
            raise ValueError("num_async must be positive")

        def make(wait: Optional[float]) -> Iterator[Any]:
            asked: Dict[Any, Any] = {}
            for actor in self._start():
                for _ in range(num_async):
                    asked[actor.par_iter_next_batch.remote(batch_ms)] = actor
            while asked:
                ready, _ = ray.wait(list(asked), timeout=wait)
                if not ready:
                    yield NOT_READY
                    continue
                actor, items = asked.pop(ready[0]), ray.get(ready[0])
                if items:
                    asked[actor.par_iter_next_batch.remote(batch_ms)] = actor
                for item in items:
                    _set_source(actor)
                    yield item

        return LocalIterator(make, f"{self}.gather_async()")

    def union(self, other: "ParallelIterator") -> "ParallelIterator":
        """The shards of both."""
        if not isinstance(other, ParallelIterator):
            raise TypeError(f"other must be a ParallelIterator, got {type(other)}")
        return ParallelIterator(self.groups + other.groups, f"ParallelUnion[{self}, {other}]")

    def take(self, n: int) -> List[Any]:
        return self.gather_sync().take(n)

    def show(self, n: int = 20) -> None:
        self.gather_sync().show(n)

    # Single shards.

    def num_shards(self) -> int:
        return sum(len(actors) for actors, _ in self.groups)

    def _only(self, wanted: Sequence[int], name: str) -> "ParallelIterator":
        numbered = [(actor, stages) for actors, stages in self.groups for actor in actors]
        return ParallelIterator([([numbered[i][0]], numbered[i][1]) for i in wanted], name)

    def select_shards(self, shards_to_keep: List[int]) -> "ParallelIterator":
        if len(set(shards_to_keep)) != len(shards_to_keep):
            raise ValueError(f"a shard is named twice: {shards_to_keep}")
        return self._only(shards_to_keep, f"{self}.select_shards({len(shards_to_keep)} total)")

    def shards(self) -> List["LocalIterator"]:
        return [self.get_shard(i) for i in range(self.num_shards())]

    def get_shard(self, shard_index: int, batch_ms: int = 0, num_async: int = 1) -> "LocalIterator":
        """The items of one shard, for whoever works on them."""
        one = self._only([shard_index], f"{self.name}.shard[{shard_index}]")
        return LocalIterator(one.gather_async(batch_ms, num_async).make, one.name)


class _Source:
    actor: Any = None  # of the item that an iteration gave last, in this process

    def __reduce__(self) -> str:
        return "_source"


_source = _Source()


def _set_source(actor: Any) -> None:
    _source.actor = actor
    metrics = getattr(_here, "metrics", None)
    if metrics is not None:
        metrics.current_actor = actor


class _Here(threading.local):
    """Of this thread. Pickled by name, for stages that travel refer to this module's globals."""

    metrics: Optional[MetricsContext] = None  # of the iterator whose next item is being made

    def __reduce__(self) -> str:
        return "_here"


_here = _Here()


class LocalIterator:
    """An iteration in this process. `for` and `next` share one run; a copy that was sent begins anew. What is made of
    an iterator shares its metrics, and so do the parts of a union."""

    def __init__(
        self,
        make: Callable[[Optional[float]], Iterator[Any]],
        name: str,
        shared_metrics: Optional[SharedMetrics] = None,
    ) -> None:
        self.make, self.name = make, name
        self.shared_metrics = shared_metrics or SharedMetrics()
        self._running: Optional[Iterator[Any]] = None

    def __reduce__(self) -> Any:
        return (LocalIterator, (self.make, self.name))

    @staticmethod
    def get_metrics() -> MetricsContext:
        """The metrics of the iterator whose stage asks."""
        if _here.metrics is None:
            raise ValueError("Cannot access context outside an iterator.")
        return _here.metrics

    def _derived(self, make: Callable[[Optional[float]], Iterator[Any]], name: str) -> "LocalIterator":
        return LocalIterator(make, name, self.shared_metrics)

    def _run(self) -> Iterator[Any]:
        items = self.make(None)
        end = object()
        while True:
            outer, _here.metrics = _here.metrics, self.shared_metrics.get()
            try:
                item = next(items, end)
            finally:
                _here.metrics = outer
            if item is end:
                return
            if item is not NOT_READY:
                yield item

    def __iter__(self) -> Iterator[Any]:
        if self._running is None:
            self._running = self._run()
        return self._running

    def __next__(self) -> Any:
        return next(iter(self))

    def __repr__(self) -> str:
        return f"LocalIterator[{self.name}]"

    def transform(self, fn: Callable[[Iterable[Any]], Iterable[Any]]) -> "LocalIterator":
        """The items go through `fn`, which takes an iterator and gives one."""
        return self._derived(lambda wait: iter(fn(_ready(self.make(None)))), self.name + ".transform()")

    def _each(self, step: Callable[[Any], Iterable[Any]], name: str) -> "LocalIterator":
        def make(wait: Optional[float]) -> Iterator[Any]:
            for item in self.make(wait):
                if item is NOT_READY:
                    yield item
                else:
                    yield from step(item)

        return self._derived(make, self.name + name)

    def for_each(
        self, fn: Callable[[Any], Any], max_concurrency: int = 1, resources: Optional[Dict[str, Any]] = None
    ) -> "LocalIterator":
        if max_concurrency < 0:
            raise ValueError("max_concurrency must be non-negative")
        if max_concurrency == 1:
            return self._each(lambda item: (fn(item),), ".for_each()")

        def make(wait: Optional[float]) -> Iterator[Any]:
            remote = ray.remote(fn).options(**(resources or {}))
            pending: Any = collections.deque()
            for item in self.make(wait):
                if item is NOT_READY:
                    yield item
                    continue
                if max_concurrency and len(pending) >= max_concurrency:
                    yield ray.get(pending.popleft())
                pending.append(remote.remote(item))
            while pending:
                yield ray.get(pending.popleft())

        return self._derived(make, self.name + ".for_each()")

    def filter(self, fn: Callable[[Any], bool]) -> "LocalIterator":
        return self._each(lambda item: (item,) if fn(item) else (), ".filter()")

    def flatten(self) -> "LocalIterator":
        return self._each(lambda item: item, ".flatten()")

    def combine(self, fn: Callable[[Any], List[Any]]) -> "LocalIterator":
        return self._each(fn, ".combine()")

    def zip_with_source_actor(self) -> "LocalIterator":
        """(actor that the item came from, item)."""
        return self._each(lambda item: ((_source.actor, item),), ".zip_with_source_actor()")

    def batch(self, n: int) -> "LocalIterator":
        def make(wait: Optional[float]) -> Iterator[Any]:
            items: List[Any] = []
            for item in self.make(wait):
                if item is NOT_READY:
                    yield item
                    continue
                items.append(item)
                if len(items) >= n:
                    yield items
                    items = []
            if items:
                yield items

        return self._derived(make, f"{self.name}.batch({n})")

    def shuffle(self, shuffle_buffer_size: int, seed: Optional[int] = None) -> "LocalIterator":
        """Draws from a buffer of so many items at random."""

        def make(wait: Optional[float]) -> Iterator[Any]:
            chance, items = random.Random(seed), []
            for item in self.make(wait):
                if item is NOT_READY:
                    yield item
                    continue
                items.append(item)
                if len(items) >= shuffle_buffer_size:
                    yield items.pop(chance.randrange(len(items)))
            while items:
                yield items.pop(chance.randrange(len(items)))

        size = "None" if shuffle_buffer_size is None else shuffle_buffer_size
        return self._derived(make, f"{self.name}.shuffle(shuffle_buffer_size={size}, seed={seed})")

    def take(self, n: int) -> List[Any]:
        """The next n items, or as many as there are."""
        return [item for _, item in zip(range(n), self)]

    def show(self, n: int = 20) -> None:
        for item in self.take(n):
            print(item)

    def duplicate(self, n: int) -> List["LocalIterator"]:
        """n iterators with the same items, of one iteration; what a slow one has not read yet is kept."""
        if n < 2:
            raise ValueError("duplicate makes two or more")
        waiting = [collections.deque() for _ in range(n)]  # type: ignore[var-annotated]
        shared: List[Iterator[Any]] = []

        def maker(own: Any) -> Callable[[Optional[float]], Iterator[Any]]:
            def make(wait: Optional[float]) -> Iterator[Any]:
                if not shared:
                    shared.append(self.make(_PAUSE_S))
                while True:
                    if not own:
                        item = next(shared[0], shared)
                        if item is shared:
                            return
                        if item is NOT_READY:
                            yield item
                            continue
                        for queue in waiting:
                            queue.append(item)
                    yield own.popleft()

            return make

        return [self._derived(maker(q), f"{self.name}.duplicate[{i}]") for i, q in enumerate(waiting)]

    def union(
        self,
        *others: "LocalIterator",
        deterministic: bool = False,
        round_robin_weights: Optional[List[float]] = None,
    ) -> "LocalIterator":
        """The items of all, as they come; `deterministic`: in turn, however long one takes. A weight is how many
        items an iterator gives when it is its turn ("*": as many as it has ready)."""
        parts = [self, *others]
        for part in others:
            if not isinstance(part, LocalIterator):
                raise TypeError(f"other must be a LocalIterator, got {type(part)}")
        weights: List[Any] = list(round_robin_weights or [1] * len(parts))
        if len(weights) != len(parts):
            raise ValueError(f"{len(parts)} iterators need as many weights, got {len(weights)}")

        def make(wait: Optional[float]) -> Iterator[Any]:
            pause = None if deterministic else _PAUSE_S / len(parts)
            active = [(weight, part.make(pause)) for weight, part in zip(weights, parts)]
            while active:
                for entry in list(active):
                    weight, items = entry
                    left = float("inf") if weight == "*" else float(weight)
                    if left < 1:  # a share of the rounds
                        left = 1 if random.random() < left else 0
                    while left >= 1:
                        item = next(items, active)
                        if item is active:
                            active.remove(entry)
                            break
                        yield item
                        if item is NOT_READY and not deterministic:
                            break
                        left -= 1

        name = f"LocalUnion[{self}, {', '.join(map(str, others))}]"
        return LocalIterator(make, name, SharedMetrics(parents=[part.shared_metrics for part in parts]))


def _ready(items: Iterator[Any]) -> Iterator[Any]:
    return (item for item in items if item is not NOT_READY)


__all__ = [
    "LocalIterator",
    "ParallelIterator",
    "ParallelIteratorWorker",
    "from_actors",
    "from_items",
    "from_iterators",
    "from_range",
]
