"""Awaiting references: one completion queue per event loop, watched by its descriptor; one helper
thread for concurrent futures and callbacks. No thread per call."""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import Any, Callable, Generator, List, Optional

from . import _core, _libray
from .exceptions import RayTaskError, TaskCancelledError

_MISSING = object()
_loops: "weakref.WeakKeyDictionary[Any, _LoopQueue]" = weakref.WeakKeyDictionary()


class _LoopQueue:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.queue = _libray.Queue()
        self.fd = self.queue.fd()
        self.loop = weakref.ref(loop)
        self.streams: "weakref.WeakKeyDictionary[Any, asyncio.Future[Any]]" = weakref.WeakKeyDictionary()
        loop.add_reader(self.fd, self.drain)

    def drain(self) -> None:
        for future, value, error in self.queue.poll(0):
            if future is None or future.done():
                continue
            if error is not None:
                future.set_exception(_settable(error))
            else:
                future.set_result(value)

    def close(self) -> None:
        loop = self.loop()
        left = self.queue.abandon()
        if loop is None or loop.is_closed():
            return
        try:
            loop.call_soon_threadsafe(self._close, loop, left)
        except RuntimeError:  # closed in this moment
            pass

    def _close(self, loop: Any, left: List[Any]) -> None:
        loop.remove_reader(self.fd)
        for future in left:
            if not future.done():
                future.set_exception(_shut_down())


def _shut_down() -> TaskCancelledError:
    return TaskCancelledError("libray was shut down before the result was there")


def _settable(error: BaseException) -> BaseException:
    if isinstance(error, StopIteration):  # futures refuse it
        plain = RayTaskError(
            getattr(error, "function_name", ""), str(error), getattr(error, "cause", None)
        )
        return plain
    return error


def queue_of(loop: asyncio.AbstractEventLoop) -> _LoopQueue:
    entry = _loops.get(loop)
    if entry is None or not entry.queue.current:
        if entry is not None:
            entry.close()
        entry = _loops[loop] = _LoopQueue(loop)
    return entry


def future_of(ref: Any, loop: Optional[asyncio.AbstractEventLoop] = None) -> "asyncio.Future[Any]":
    """An asyncio future of the running loop for a reference."""
    loop = loop or asyncio.get_running_loop()
    future = loop.create_future()
    try:
        value = _libray._try_get(ref, _MISSING)
    except Exception as e:
        future.set_exception(_settable(e))
        return future
    if value is not _MISSING:
        future.set_result(value)
    else:
        queue_of(loop).queue.add(ref, future)
    return future


def await_ref(ref: Any) -> Generator[Any, None, Any]:
    return future_of(ref).__await__()


class _Notifier:
    """The helper thread: delivers values to concurrent futures and callbacks."""

    def __init__(self) -> None:
        self.queue = _libray.Queue()
        self.stopping = False
        self.thread = threading.Thread(target=self._run, name="libray-notify", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while True:
            self._deliver(self.queue.poll(None))
            if self.stopping:
                for target in self.queue.abandon():
                    target(None, _shut_down())
                return

    @staticmethod
    def _deliver(ready: Any) -> None:
        # A function of its own, so that the last value and callback are not kept until the next ones come.
        for target, value, error in ready:
            if target is not None:
                target(value, error)

    def stop(self) -> None:
        self.stopping = True
        self.queue.wake()
        if threading.current_thread() is not self.thread:
            self.thread.join()


_notifier: Optional[_Notifier] = None
_notifier_lock = threading.Lock()


def _notify(ref: Any, target: Callable[[Any, Any], None]) -> None:
    global _notifier
    with _notifier_lock:
        if _notifier is None or not _notifier.queue.current:
            _notifier = _Notifier()
        _notifier.queue.add(ref, target)


def _stop_notifier() -> None:
    global _notifier
    with _notifier_lock:
        notifier, _notifier = _notifier, None
    if notifier is not None:
        notifier.stop()
    for entry in list(_loops.values()):
        entry.close()
    _loops.clear()


_core._on_shutdown.append(_stop_notifier)


def ref_future(ref: Any) -> Any:
    """A concurrent.futures.Future of the value."""
    from concurrent.futures import Future

    future: Any = Future()

    def deliver(value: Any, error: Any) -> None:
        if not future.set_running_or_notify_cancel():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)

    _notify(ref, deliver)
    return future


def ref_on_completed(ref: Any, callback: Callable[[Any], None]) -> None:
    def deliver(value: Any, error: Any) -> None:
        try:
            callback(value if error is None else error)
        except Exception:
            import traceback

            traceback.print_exc()

    _notify(ref, deliver)


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
