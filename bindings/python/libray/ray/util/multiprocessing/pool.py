"""A pool of actors with the interface of `multiprocessing.Pool`.

Work is cut into chunks; a chunk is one call of an actor. Each actor has at most two chunks under way, one running and
one waiting, so that none idles and none hoards. When a chunk is done, a callback of its reference wakes the pool's
thread, which delivers the result, runs the user's callbacks and hands out the next chunk."""

import collections
import itertools
import mmap
import os
import queue
import tempfile
import threading
import uuid
from multiprocessing import TimeoutError
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

import ray
from libray.core import process

_IN_FLIGHT = 2


class PoolTaskError(Exception):
    """The exception of one item of a chunk."""

    def __init__(self, underlying: BaseException) -> None:
        super().__init__(underlying)
        self.underlying = underlying


@ray.remote(num_cpus=0)
class PoolActor:
    """Runs chunks: `[(function, args, kwargs), ...]` to a list of values and PoolTaskErrors."""

    def __init__(
        self,
        initializer: Optional[Callable[..., Any]] = None,
        initargs: Tuple[Any, ...] = (),
        marks: str = "",
        slot: int = 0,
    ) -> None:
        self._marks, self._slot = (_Marks(marks) if marks else None), slot
        self._scope: Any = None  # the initializer's globals
        self._set: Dict[str, Any] = {}  # what it set there
        if initializer is None:
            return
        self._scope = _globals_of(initializer)
        before = dict(self._scope or ())
        initializer(*initargs)
        missing = object()
        for name, value in (self._scope or {}).items():
            if before.get(name, missing) is not value:
                self._set[name] = value

    def _show_globals(self, function: Any) -> None:
        """The function of a script travels with globals of its own, not the initializer's: it gets what that set."""
        scope = _globals_of(function) if self._set else None
        if scope is None or scope is self._scope or scope.get("__name__") != self._scope.get("__name__"):
            return
        scope.update(self._set)

    def ping(self) -> None:
        """Started."""

    def run_batch(self, function: Callable[..., Any], batch: List[Any], number: int = 0) -> List[Any]:
        if self._marks is not None:
            self._marks[self._slot] = number
        self._show_globals(function)
        results = []
        for args, kwargs in batch:
            try:
                results.append(function(*args, **kwargs))
            except Exception as error:
                results.append(PoolTaskError(error))
        return results


class _Marks:
    """The number of the chunk that each actor began last, in a file that pool and actors map: when an actor dies the
    pool knows which of its chunks never ran."""

    def __init__(self, path: str, slots: int = 0) -> None:
        with open(path, "w+b" if slots else "r+b") as file:
            if slots:
                file.truncate(8 * slots)
            self._map = mmap.mmap(file.fileno(), 0)

    def __getitem__(self, slot: int) -> int:
        return int.from_bytes(self._map[8 * slot : 8 * slot + 8], "little")

    def __setitem__(self, slot: int, number: int) -> None:
        self._map[8 * slot : 8 * slot + 8] = number.to_bytes(8, "little")


def _globals_of(function: Any) -> Any:
    """Globals of the function below a partial, a bound method or an object that can be called; None: it has none."""
    for _ in range(10):
        if hasattr(function, "__globals__"):
            return function.__globals__
        for below in ("func", "__func__", "__wrapped__"):
            if hasattr(function, below):
                function = getattr(function, below)
                break
        else:
            function = type(function).__call__
    return None


class AsyncResult:
    """What `apply_async`, `map_async` and `starmap_async` give."""

    def __init__(
        self,
        n_chunks: int,
        single: bool,
        callback: Optional[Callable[[Any], Any]],
        error_callback: Optional[Callable[[BaseException], Any]],
    ) -> None:
        self._chunks: List[Optional[list]] = [None] * n_chunks
        self._missing = n_chunks
        self._single = single
        self._callback, self._error_callback = callback, error_callback
        self._done = threading.Event()
        self._error: Optional[BaseException] = None
        self._value: Any = None
        if n_chunks == 0:
            self._finish()

    def _deliver(self, index: int, results: Any) -> None:
        """On the pool's thread: a chunk's list, or the error that took the chunk as a whole."""
        if self._done.is_set():
            return
        if isinstance(results, BaseException):
            results = [PoolTaskError(results)]
        if self._chunks[index] is None:
            self._chunks[index] = results
            self._missing -= 1
        if self._missing == 0:
            self._finish()

    def _finish(self) -> None:
        flat = list(itertools.chain.from_iterable(chunk or () for chunk in self._chunks))
        self._chunks = []
        errors = [r.underlying for r in flat if isinstance(r, PoolTaskError)]
        if errors:
            self._error = errors[0]
        else:
            self._value = flat[0] if self._single else flat
        try:
            if self._error is not None and self._error_callback is not None:
                self._error_callback(self._error)
            elif self._error is None and self._callback is not None:
                self._callback(self._value)
        finally:
            self._done.set()

    def wait(self, timeout: Optional[float] = None) -> None:
        """Waits until the result is there or `timeout` seconds are over."""
        self._done.wait(timeout)

    def get(self, timeout: Optional[float] = None) -> Any:
        """The value; raises the exception of the function, or TimeoutError."""
        if not self._done.wait(timeout):
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._value

    def ready(self) -> bool:
        return self._done.is_set()

    def successful(self) -> bool:
        """Whether it ended without an exception; ValueError before it has ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error is None


class IMapIterator:
    """Iterator of `imap` and `imap_unordered`. The input is read as results are taken: it may be endless. As in Ray,
    an item that failed comes as a PoolTaskError (with `underlying`) and is not raised."""

    def __init__(
        self, pool: "Pool", function: Callable[..., Any], iterable: Iterable[Any], chunksize: int, ordered: bool
    ) -> None:
        if chunksize < 1:
            raise ValueError("chunksize must be at least 1")
        self._pool, self._function, self._ordered = pool, function, ordered
        self._source = iter(iterable)
        self._chunksize = chunksize
        self._condition = threading.Condition()
        self._arrived: Dict[int, Any] = {}  # chunks by index
        self._order: collections.deque = collections.deque()  # indices as they arrived
        self._submitted = self._taken = 0
        self._items: collections.deque = collections.deque()
        self._exhausted = False
        self._fill()

    def _fill(self) -> None:
        window = _IN_FLIGHT * self._pool._processes + 1
        while not self._exhausted and self._submitted - self._taken < window:
            batch = [((item,), {}) for item in itertools.islice(self._source, self._chunksize)]
            if not batch:
                self._exhausted = True
                return
            self._pool._submit(self._function, batch, self._deliver, self._submitted)
            self._submitted += 1

    def _deliver(self, index: int, results: Any) -> None:
        with self._condition:
            self._arrived[index] = (
                [PoolTaskError(results)] if isinstance(results, BaseException) else results
            )
            self._order.append(index)
            self._condition.notify_all()

    def __iter__(self) -> "IMapIterator":
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: Optional[float] = None) -> Any:
        """The next result; TimeoutError when it is not there in time (it can be asked for again)."""
        if not self._items:
            if self._taken == self._submitted and self._exhausted:
                raise StopIteration
            with self._condition:
                if not self._condition.wait_for(self._is_next_there, timeout):
                    raise TimeoutError
                index = self._taken if self._ordered else self._order.popleft()
                self._items.extend(self._arrived.pop(index))
                self._taken += 1
            self._fill()
        return self._items.popleft()

    def _is_next_there(self) -> bool:
        return self._taken in self._arrived if self._ordered else bool(self._order)


class OrderedIMapIterator(IMapIterator):
    """Results in the order of the input."""


class UnorderedIMapIterator(IMapIterator):
    """Results as they come."""


class _Chunk:
    """One call of an actor."""

    def __init__(
        self, number: int, function: Any, batch: List[Any], deliver: Callable[[int, Any], None], index: int
    ) -> None:
        self.number, self.function, self.batch = number, function, batch
        self.deliver, self.index = deliver, index


class _Slot:
    """One actor of the pool."""

    def __init__(self, index: int, actor: Any) -> None:
        self.index, self.actor = index, actor
        self.in_flight = 0
        self.given = 0
        self.ran: Optional[int] = None  # when it has died: the chunk that it had begun last


class Pool:
    """`processes` actors (default: one per CPU of the cluster), each started with `initializer(*initargs)`; an actor is
    replaced after `maxtasksperchild` chunks. `ray_remote_args` are options of the actors."""

    def __init__(
        self,
        processes: Optional[int] = None,
        initializer: Optional[Callable[..., Any]] = None,
        initargs: Optional[Iterable[Any]] = None,
        maxtasksperchild: Optional[int] = None,
        context: Any = None,
        ray_address: Optional[str] = None,
        ray_remote_args: Optional[Dict[str, Any]] = None,
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._initializer, self._initargs = initializer, tuple(initargs or ())
        self._most = maxtasksperchild
        self._options = dict(ray_remote_args or {})
        self._closed = False
        self._terminated = False
        self._processes = self._start_cluster(processes, ray_address)
        self._lock = threading.RLock()
        self._pending: collections.deque = collections.deque()
        self._unfinished = 0
        self._idle = threading.Condition(self._lock)
        self._numbers = itertools.count(1)
        self._barren = 0  # actors in a row that died before they began a chunk
        self._marks_path = os.path.join(process.session_dir() or tempfile.gettempdir(), f"pool-{uuid.uuid4().hex}")
        self._marks = _Marks(self._marks_path, self._processes)
        self._slots = [_Slot(i, self._start_actor(i)) for i in range(self._processes)]
        ray.get([slot.actor.ping.remote() for slot in self._slots])
        self._events: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pool-results", daemon=True)
        self._thread.start()

    def _start_cluster(self, processes: Optional[int], address: Optional[str]) -> int:
        if processes is not None and processes <= 0:
            raise ValueError("Processes in the pool must be >0.")
        if not ray.is_initialized():
            address = address or os.environ.get("RAY_ADDRESS")
            if address:
                ray.init(address=address)
            else:
                ray.init(num_cpus=processes)
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if processes is None:
            return max(cpus, 1)
        if cpus < processes:
            raise ValueError(
                f"Tried to start a pool with {processes} processes on an existing cluster, but there are only {cpus} "
                "CPUs in the cluster."
            )
        return processes

    def _start_actor(self, slot: int) -> Any:
        self._marks[slot] = 0
        return PoolActor.options(**self._options).remote(
            self._initializer, self._initargs, self._marks_path, slot
        )

    # ---- the machinery: _submit on any thread, _run on the pool's own

    def _submit(
        self, function: Any, batch: List[Any], deliver: Callable[[int, Any], None], index: int
    ) -> None:
        with self._lock:
            if self._terminated:
                raise ValueError("Pool not running")
            self._unfinished += 1
            self._pending.append(_Chunk(next(self._numbers), function, batch, deliver, index))
            self._dispatch()

    def _dispatch(self) -> None:
        """With the lock held: chunks go to the actors that have the fewest."""
        while self._pending:
            slot = min(self._slots, key=lambda s: s.in_flight)
            if slot.in_flight >= (_IN_FLIGHT if self._most is None else 1):
                return
            chunk = self._pending.popleft()
            if self._most is not None and slot.given >= self._most:
                slot.actor.__ray_terminate__.remote()
                slot.actor, slot.given = self._start_actor(slot.index), 0
            events = self._events
            try:
                ref = slot.actor.run_batch.remote(chunk.function, chunk.batch, chunk.number)
            except Exception as error:  # what cannot be pickled
                events.put((None, chunk, error))
                continue
            slot.in_flight += 1
            slot.given += 1
            ref._on_completed(
                lambda value, slot=slot, chunk=chunk: events.put((slot, chunk, value))
            )

    def _take_back(self, slot: _Slot, chunk: _Chunk, value: Any) -> bool:
        """With the lock held: a chunk has left its actor. True: it never ran, for the actor died before, and another
        will run it. An actor that died is replaced."""
        slot.in_flight -= 1
        died = isinstance(value, ray.exceptions.ActorDiedError)
        if not died or isinstance(value, ray.exceptions.RayTaskError) or self._terminated:
            self._barren = 0
            return False
        if slot.ran is None:
            slot.ran = self._marks[slot.index]
            self._barren = 0 if slot.ran else self._barren + 1
            self._slots[self._slots.index(slot)] = _Slot(slot.index, self._start_actor(slot.index))
        if chunk.number == slot.ran or value.actor_init_failed or self._barren > 2 * self._processes:
            return False
        self._pending.appendleft(chunk)
        return True

    def _run(self) -> None:
        while True:
            event = self._events.get()
            if event is None:
                return
            slot, chunk, value = event
            with self._lock:
                again = slot is not None and self._take_back(slot, chunk, value)
                if not self._terminated:
                    self._dispatch()
            if again:
                continue
            try:
                chunk.deliver(chunk.index, value)
            except BaseException:  # of a user's callback, also sys.exit()
                import traceback

                traceback.print_exc()
            with self._lock:
                self._unfinished -= 1
                self._idle.notify_all()

    # ---- what users call

    def _check(self) -> None:
        if self._closed:
            raise ValueError("Pool not running")

    def apply(
        self, func: Callable[..., Any], args: Any = None, kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:
        """`func(*args, **kwargs)` in the pool."""
        return self.apply_async(func, args, kwargs).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Any = None,
        kwargs: Optional[Dict[str, Any]] = None,
        callback: Optional[Callable[[Any], Any]] = None,
        error_callback: Optional[Callable[[BaseException], Any]] = None,
    ) -> AsyncResult:
        self._check()
        result = AsyncResult(1, True, callback, error_callback)
        self._submit(_plain(func), [(tuple(args or ()), dict(kwargs or {}))], result._deliver, 0)
        return result

    def map(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: Optional[int] = None) -> List[Any]:
        """`[func(x) for x in iterable]`."""
        return self.map_async(func, iterable, chunksize).get()

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: Optional[int] = None,
        callback: Optional[Callable[[Any], Any]] = None,
        error_callback: Optional[Callable[[BaseException], Any]] = None,
    ) -> AsyncResult:
        return self._map([(x,) for x in iterable], func, chunksize, callback, error_callback)

    def starmap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: Optional[int] = None) -> List[Any]:
        """`[func(*args) for args in iterable]`."""
        return self.starmap_async(func, iterable, chunksize).get()

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: Optional[int] = None,
        callback: Optional[Callable[[Any], Any]] = None,
        error_callback: Optional[Callable[[BaseException], Any]] = None,
    ) -> AsyncResult:
        return self._map([tuple(x) for x in iterable], func, chunksize, callback, error_callback)

    def _map(
        self,
        items: List[Tuple[Any, ...]],
        func: Any,
        chunksize: Optional[int],
        callback: Any,
        error_callback: Any,
    ) -> AsyncResult:
        self._check()
        if chunksize is None:
            chunksize = max(1, -(-len(items) // (self._processes * 4)))
        chunks = [items[k : k + chunksize] for k in range(0, len(items), chunksize)]
        result = AsyncResult(len(chunks), False, callback, error_callback)
        func = _plain(func)
        for index, chunk in enumerate(chunks):
            self._submit(func, [(args, {}) for args in chunk], result._deliver, index)
        return result

    def imap(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: Optional[int] = 1
    ) -> Iterator[Any]:
        """Results in the order of the input, as they come."""
        self._check()
        return OrderedIMapIterator(self, _plain(func), iterable, chunksize or 1, True)

    def imap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: Optional[int] = 1
    ) -> Iterator[Any]:
        """Results as they come."""
        self._check()
        return UnorderedIMapIterator(self, _plain(func), iterable, chunksize or 1, False)

    def close(self) -> None:
        """No more work is taken; the actors end when all is done."""
        self._closed = True

    def terminate(self) -> None:
        """Ends the actors at once; what is under way gets an error."""
        self._closed = True
        with self._lock:
            if self._terminated:
                return
            self._terminated = True
            lost, self._pending = list(self._pending), collections.deque()
            slots, self._slots = self._slots, []
        for slot in slots:
            ray.kill(slot.actor)
        self._forget_marks()
        for chunk in lost:
            self._events.put((None, chunk, ray.exceptions.ActorDiedError("the pool was terminated")))

    def join(self) -> None:
        """Waits for the end of all work, after `close` or `terminate`."""
        if not self._closed:
            raise ValueError("Pool is still running")
        with self._idle:
            self._idle.wait_for(lambda: self._unfinished == 0)
        with self._lock:
            slots, self._slots = self._slots, []
            self._terminated = True
        for slot in slots:
            slot.actor.__ray_terminate__.remote()
        self._forget_marks()
        self._events.put(None)

    def _forget_marks(self) -> None:
        try:
            os.unlink(self._marks_path)
        except OSError:  # it went before
            pass

    def __enter__(self) -> "Pool":
        self._check()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.terminate()

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")


def _plain(function: Any) -> Any:
    """A remote function stands for the function below it."""
    definition = getattr(function, "_definition", None)
    return function if definition is None else definition.load()


