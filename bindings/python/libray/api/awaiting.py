"""Awaiting references: one completion queue per event loop, watched by its descriptor; one helper
thread for concurrent futures and callbacks. No thread per call.

Called by the extension for `await ref`, `ref.future()` and the like, on the thread of the caller; imported by the first
of them, because asyncio takes a while."""

from __future__ import annotations

import asyncio
import collections
import functools
import os
import queue
import threading
import time
import weakref
from typing import Any, Callable, Generator, List, Optional

from .. import _libray
from ..core import process
from ..exceptions import RayTaskError, TaskCancelledError

_MISSING = object()
_ATTRIBUTE = "_libray_queue"  # of an event loop: its _LoopQueue, which goes with it
_entries: "weakref.WeakSet[_LoopQueue]" = weakref.WeakSet()
_entries_lock = threading.RLock()  # of who changes or walks it; a collection may come back here


class _LoopQueue:
    """The completion queue of one event loop. The loop owns it; it holds the loop weakly, and the futures that wait
    are a cycle with it that the garbage collector sees (the extension's Queue)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.queue = _libray.Queue()
        self.fd = self.queue.fd()
        self.loop = weakref.ref(loop)
        self.streams: "weakref.WeakKeyDictionary[Any, asyncio.Future[Any]]" = weakref.WeakKeyDictionary()
        loop.add_reader(self.fd, self.drain)
        _entries.add(self)

    def drain(self) -> None:
        try:
            ready = self.queue.poll(0)
        finally:
            if self.queue.backlog:  # no memory: the descriptor does not tell of these any more
                loop = self.loop()
                if loop is not None:
                    loop.call_later(0.05, self.drain)
        for future, value, error in ready:
            if future is None or future.done():  # given up
                continue
            if error is ...:  # on disk: it would keep the loop waiting
                _fetch_later(value, functools.partial(self._settle_soon, future))
            else:
                _settle(future, value, error)

    def _settle_soon(self, future: Any, value: Any, error: Any) -> None:
        loop = self.loop()
        try:
            if loop is not None:
                loop.call_soon_threadsafe(_settle, future, value, error)
        except RuntimeError:  # closed meanwhile
            pass

    def close(self) -> None:
        """From any thread: whoever waits is told that libray was shut down."""
        loop = self.loop()
        left = self.queue.abandon()
        if loop is None or loop.is_closed():
            self.queue.close()
            return
        try:
            loop.call_soon_threadsafe(self._close, loop, left)
        except RuntimeError:  # closed in this moment
            pass

    def _close(self, loop: Any, left: List[Any]) -> None:
        loop.remove_reader(self.fd)
        self.queue.close()
        for future in left:
            _settle(future, None, _shut_down())


def _settle(future: Any, value: Any, error: Optional[BaseException]) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(_settable(error))
    else:
        future.set_result(value)


def _shut_down() -> TaskCancelledError:
    return TaskCancelledError("libray was shut down before the result was there")


def _settable(error: BaseException) -> BaseException:
    """What may be raised in a coroutine: StopIteration and its like would mean something to it."""
    control = (StopIteration, StopAsyncIteration, GeneratorExit, asyncio.CancelledError)
    if isinstance(error, control):
        return RayTaskError(
            getattr(error, "function_name", ""), str(error), getattr(error, "cause", None) or error
        )
    return error


def queue_of(loop: asyncio.AbstractEventLoop) -> _LoopQueue:
    entry: Optional[_LoopQueue] = getattr(loop, _ATTRIBUTE, None)
    if entry is None or not entry.queue.current:
        with _entries_lock:
            for other in list(_entries):  # of loops that were closed while somebody waited
                its_loop = other.loop()
                if other is entry or its_loop is None or its_loop.is_closed():
                    other.close()
                    _entries.discard(other)
            entry = _LoopQueue(loop)
        setattr(loop, _ATTRIBUTE, entry)
    return entry


def await_ref(ref: Any) -> Generator[Any, None, Any]:
    try:
        value = _libray._try_get(ref, _MISSING)
    except Exception as e:
        raise _settable(e)
    if value is not _MISSING:
        return value
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    queue = queue_of(loop).queue
    tag = queue.add(ref, future)
    try:
        return (yield from future)
    except BaseException:
        if future.cancelled() or not future.done():  # given up: the value is not kept for it
            queue.discard(tag)
        raise


def ref_as_future(ref: Any) -> "asyncio.Future[Any]":
    """An asyncio future of this thread's event loop."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = asyncio.get_event_loop()
    future = loop.create_future()
    queue = queue_of(loop).queue
    tag = queue.add(ref, future)
    future.add_done_callback(lambda done: queue.discard(tag) if done.cancelled() else None)
    return future


# ---- values on disk: a thread that lives while there are some to be read

_fetch_lock = threading.RLock()  # a collection may come back here
_fetches: "collections.deque[Any]" = collections.deque()
_fetching = False


def _fetch_later(ref: Any, done: Callable[[Any, Any], None]) -> None:
    """Calls done(value, error) on another thread."""
    global _fetching
    with _fetch_lock:
        _fetches.append((ref, done))
        start, _fetching = not _fetching, True
    if start:
        threading.Thread(target=_fetch_all, name="libray-fetch", daemon=True).start()


def _fetch_all() -> None:
    global _fetching
    while True:
        with _fetch_lock:
            if not _fetches:
                _fetching = False
                return
            ref, done = _fetches.popleft()
        try:
            value, error = _libray.get(ref), None
        except BaseException as e:
            value, error = None, e
        _call(done, value, error)
        del ref, done, value, error


def _call(target: Callable[[Any, Any], None], value: Any, error: Any) -> None:
    """Whatever a callback raises, also SystemExit, ends no thread that others need."""
    try:
        target(value, error)
    except BaseException:
        import traceback

        traceback.print_exc()


def _settled(target: Any, value: Any, error: Any) -> bool:
    try:
        return hasattr(target, "settle") and target.settle(value, error)
    except BaseException:  # no memory: the longer way reports what it cannot do
        return False


class _Notifier:
    """Delivers values to concurrent futures and callbacks, in the order in which they come, on one thread as long as
    each callback is soon over. While one is not, another thread goes on with the rest.

    One thread at a time *leads*: it polls the queue and calls. Before it calls it lays down the turn, afterwards it
    takes the turn up again; if that is gone, another thread leads now. The stand-by takes it when the same call is
    still there after a moment. What both look at are atoms of the interpreter: no lock is held while callbacks run."""

    PATIENCE = 0.02

    def __init__(self) -> None:
        self.queue = _libray.Queue()
        self.stopping = False
        self.ready: "collections.deque[Any]" = collections.deque()  # polled, not delivered yet
        self.turn: List[None] = []  # one entry while the leader is in a call
        self.calls = 0  # begun so far
        self.standby: Optional[threading.Thread] = None
        self.resting = False  # the stand-by waits for the next call
        self.call_begins: "queue.SimpleQueue[None]" = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._lead, name="libray-notify", daemon=True)  # the leader
        self.thread.start()

    def _lead(self) -> None:
        while True:
            while self.ready:
                if not self._deliver():
                    return
            if self.stopping or not self.queue.current:
                break
            try:
                self.ready.extend(self.queue.poll(None))
            except MemoryError:  # what is ready stays in the queue
                time.sleep(0.05)
        self.stopping = True
        self.call_begins.put(None)  # the stand-by ends
        self._call_rest()
        for target in self.queue.abandon():
            _call(target, None, _shut_down())

    def _deliver(self) -> bool:
        """One of those that are ready. False: this thread does not lead any more."""
        # A function of its own, so that the last value and callback are not kept until the next ones come.
        target, value, error = self.ready.popleft()
        if target is None:
            return True
        if error is ...:  # on disk
            _fetch_later(value, functools.partial(self._fetched, target))
            return True
        if _settled(target, value, error):
            return True
        self.calls += 1
        if self.standby is None:
            self._start_standby()
        self.turn.append(None)
        if self.resting:  # looked at after the turn is there: see _stand_by
            self.resting = False
            self.call_begins.put(None)
        _call(target, value, error)
        if not self._take_turn():
            return False
        self.thread = threading.current_thread()
        return True

    def _start_standby(self) -> None:
        try:
            self.standby = threading.Thread(target=self._stand_by, name="libray-notify", daemon=True)
            self.standby.start()
        except RuntimeError:  # no thread is to be had: the next call tries again
            self.standby = None

    def _take_turn(self) -> bool:
        try:
            self.turn.pop()
        except IndexError:
            return False
        return True

    def _fetched(self, target: Any, value: Any, error: Any) -> None:
        self.ready.append((target, value, error))
        self.queue.wake()
        if self.stopping:  # nobody may come for it
            self._call_rest()

    def _call_rest(self) -> None:
        while True:
            try:
                target, value, error = self.ready.popleft()
            except IndexError:
                return
            if target is not None and error is not ...:
                _call(target, value, error)

    def _stand_by(self) -> None:
        while not self.stopping:
            calls = self.calls
            time.sleep(self.PATIENCE)
            if not self.turn:
                self.resting = True
                if not self.turn:  # else a call began that did not see it
                    self.call_begins.get()
                self.resting = False
            elif self.calls == calls and self._take_turn():
                self.thread = threading.current_thread()
                self.standby = None
                self._lead()
                return

    def stop(self) -> None:
        self.stopping = True
        self.queue.wake()
        while self.thread is not threading.current_thread() and self.thread.is_alive():
            self.thread.join(self.PATIENCE)  # another one may lead meanwhile


_notifier: Optional[_Notifier] = None
_notifier_lock = threading.RLock()  # a collection may come back here


def _notify(ref: Any, target: Callable[[Any, Any], None]) -> Callable[[], None]:
    """Calls target(value, error) on a helper thread; what it returns gives that up."""
    global _notifier
    with _notifier_lock:
        if _notifier is None or not _notifier.queue.current:
            _notifier = _Notifier()
        its_queue = _notifier.queue
        tag = its_queue.add(ref, target)  # before the notifier can be told to stop: what it has then, it ends
    return functools.partial(its_queue.discard, tag)


def _stop_notifier() -> None:
    global _notifier
    with _notifier_lock:
        notifier, _notifier = _notifier, None
    if notifier is not None:
        notifier.stop()
    with _entries_lock:
        for entry in list(_entries):
            entry.close()
        _entries.clear()


process.on_shutdown.append(_stop_notifier)


def _forget() -> None:
    """In a forked child: the threads are the parent's, and so are the loops that wait."""
    global _entries_lock, _fetch_lock, _fetching, _notifier, _notifier_lock
    _entries_lock, _fetch_lock, _notifier_lock = threading.RLock(), threading.RLock(), threading.RLock()
    _fetches.clear()
    _fetching, _notifier = False, None
    _entries.clear()


os.register_at_fork(after_in_child=_forget)


def ref_future(ref: Any) -> Any:
    """A concurrent.futures.Future of the value."""
    future = _future_class()()
    future.give_up = _notify(ref, future)
    return future


@functools.lru_cache(maxsize=None)
def _future_class() -> Any:
    from concurrent.futures import Future

    class RefFuture(Future):  # type: ignore[type-arg]
        """A future that the notifier ends: at once where nobody else's code is to run then, see settle()."""

        give_up: Optional[Callable[[], None]] = None  # nobody is to tell us any more

        def cancel(self) -> bool:
            cancelled = super().cancel()
            if cancelled and self.give_up is not None:
                self.give_up()
            return cancelled

        def settle(self, value: Any, error: Any) -> bool:
            """False: there are callbacks, or it was cancelled. As set_result() and set_exception() do, in one go."""
            with self._condition:
                if self._done_callbacks or self._state != "PENDING":
                    return False
                self._result, self._exception = value, error
                self._state = "FINISHED"
                for waiter in self._waiters:
                    waiter.add_exception(self) if error is not None else waiter.add_result(self)
                self._condition.notify_all()
            return True

        def __call__(self, value: Any, error: Any) -> None:
            if not self.set_running_or_notify_cancel():
                return
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(value)

    RefFuture.__name__ = RefFuture.__qualname__ = "Future"
    return RefFuture


def ref_on_completed(ref: Any, callback: Callable[[Any], None]) -> None:
    _notify(ref, lambda value, error: callback(value if error is None else error))


async def next_of(stream: Any) -> Any:
    """The next reference of a generator task. Waiting takes nothing from the generator, so an await that is given
    up loses nothing, and several loops and threads may take from one generator: each item goes to one of them."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            item = stream._take()
        except StopIteration:
            raise StopAsyncIteration from None
        if item is not None:
            return item
        entry = queue_of(loop)
        told = entry.streams.get(stream)  # shared by all that wait in this loop
        if told is None or told.done():
            told = loop.create_future()
            entry.queue.add(stream, told)
            entry.streams[stream] = told
        await asyncio.wait([told])
        told.result()


# From here on the extension calls these at once; until now it called those who import this module (libray/__init__.py).
_libray.set_hooks(
    {
        "await_ref": await_ref,
        "ref_future": ref_future,
        "ref_as_future": ref_as_future,
        "ref_on_completed": ref_on_completed,
    }
)
