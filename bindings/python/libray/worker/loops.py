"""The ways in which an actor's calls run besides one after the other: threads, or event loops. Called by main.py when the
actor was made; each group has its own threads or its own loop, the main thread serves the default group. The calls
themselves are taken and run by the extension (src/worker.cc, src/loop_worker.cc)."""

from __future__ import annotations

import functools
import threading
from typing import Any, Callable, Dict, List, Optional

from .. import _libray
from ..core import own_actor

own_loop: Any = None  # event loop of an asyncio actor's default group, made for its constructor


def _start_thread(run: Callable[[], Any], name: str) -> threading.Thread:
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


class _Threads:
    """The threads of one group: as many as calls ran at a time, up to its limit."""

    def __init__(self, group: int, limit: int) -> None:
        self.group = group
        self.limit = limit
        self.count = 0
        self.started: List[threading.Thread] = []

    def grow(self) -> bool:
        """Called with the GIL by a thread that took a call when no other of the group waits for one, nor is about to. Whether
        one was started."""
        if self.count >= self.limit:
            return False
        self.count += 1  # before the thread runs, which may call this
        try:
            self.started.append(_start_thread(self.run, f"actor-{self.group}-{self.count}"))
        except BaseException:
            self.count -= 1
            raise
        return True

    def run(self) -> None:
        _libray._worker_run(False, self.group, self.grow)


def _run_threads(mode: own_actor.Mode) -> str:
    """Each group has its own threads, the main thread is one of the default group's."""
    groups = [_Threads(i, n) for i, n in enumerate([mode.concurrency - 1, *mode.groups])]
    for group in groups[1:]:
        group.grow()
    end = str(_libray._worker_run(True, 0, groups[0].grow))
    if _libray._worker_exiting():  # calls that run go on to their end
        for group in groups:
            for thread in group.started:
                thread.join()
    return end


def _warn_of_blocking() -> None:
    """Called when `get` or `wait` blocks in an asyncio actor."""
    import asyncio
    import logging

    if asyncio._get_running_loop() is None:
        return  # a thread of its own: it stops nobody
    _libray._set_before_block(None)
    logging.getLogger(__name__).warning(
        "Using blocking get or wait inside an asyncio actor: this stops its event loop, and all its "
        "calls with it. Await the reference instead, many of them with asyncio.gather."
    )


def new_loop() -> Any:
    """An event loop that looks at the worker's rings before it sleeps; any other kind, which a policy
    of the user's may make, relies on the descriptor alone."""
    import asyncio
    import selectors

    class Selector(selectors.EpollSelector):
        """`take` runs calls that are there; it may make callbacks ready, which the loop looks for after
        this."""

        group = 0
        take: Optional[Callable[[], None]] = None

        def select(self, timeout: Optional[float] = None) -> Any:
            if self.take is not None and _libray._worker_poll(
                self.group, timeout if timeout is None or timeout > 0 else 0, self.fileno()
            ):
                self.take()
                timeout = 0
            return super().select(timeout)

    loop = asyncio.new_event_loop()
    if type(loop) is not asyncio.SelectorEventLoop:
        return loop
    loop.close()
    selector = Selector()
    loop = asyncio.SelectorEventLoop(selector)
    loop._libray_selector = selector  # type: ignore[attr-defined]
    return loop


class _AsyncActor:
    """One group of an asyncio actor: a loop; calls are taken when the loop has nothing else to do or
    the group's descriptor says so. LoopCalls runs their first steps; those that wait are in `running`."""

    BATCH = 64

    def __init__(self, loop: Any, concurrency: int, group: int) -> None:
        import asyncio
        import collections.abc

        collections.abc.Coroutine.register(_libray.Steps)
        # Not asyncio.iscoroutine: before Python 3.12 it takes a generator for one.
        self.is_coroutine = lambda result: isinstance(result, collections.abc.Coroutine)
        self.asyncio = asyncio
        self.loop = loop
        self.concurrency = concurrency
        self.running: Dict[int, Any] = {}  # key -> (asyncio task, call)
        self.calls = _libray.LoopCalls(loop, group, self.suspended, self.start_stream, self.ended)
        self.fd = _libray._worker_fd(group)
        self.cancel_fd = _libray._worker_cancel_fd()
        self.selector = getattr(loop, "_libray_selector", None)
        if self.selector is not None:
            self.selector.group = group
        self.watching = False
        self.stopping = False
        self.stopped = loop.create_future()

    def watch(self, on: bool) -> None:
        if on and not self.watching:
            self.loop.add_reader(self.fd, self.take)
        elif not on and self.watching:
            self.loop.remove_reader(self.fd)
        self.watching = on
        if self.selector is not None:
            self.selector.take = self.take if on else None

    def take(self) -> None:
        left = self.BATCH
        while left > 0:
            room = min(left, self.concurrency - len(self.running))
            if room <= 0:
                self.watch(False)
                return
            more = self.calls.take(room)
            if more is None:
                return
            if more is False:
                self.watch(False)
                self.stopping = True
                self.maybe_stopped()
                return
            left -= room

    def maybe_stopped(self) -> None:
        # The end of the node does not wait for what runs, the end by its own will does.
        if self.stopped.done() or (self.running and _libray._worker_exiting()):
            return
        self.stopped.set_result(None)

    def suspended(self, key: int, task: Any, call: Any) -> None:
        self.running[key] = (task, call)

    def start_stream(self, call: Any, result: Any) -> None:
        key = call.key
        task = self.loop.create_task(call.steps(self.run_stream(call, key, result)))
        self.running[key] = (task, call)

        def cancelled_unbegun(_: Any) -> None:  # then nothing of run_stream ran, which ends the call otherwise
            if self.running.get(key) == (task, call):
                call.finish_cancelled()
                self.ended(key)

        task.add_done_callback(cancelled_unbegun)

    def ended(self, key: int) -> None:
        self.running.pop(key, None)
        if self.stopping:
            self.maybe_stopped()
        elif not self.watching and not self.stopped.done():
            self.watch(True)

    async def give(self, task: Any, item: Any) -> bool:
        for one in task.group(item):
            if not await self.give_one(task, one):
                return False
        return True

    async def give_one(self, task: Any, item: Any) -> bool:
        given = task.yield_now(item)
        return bool(given) if given is not None else await self.patiently(task.yield_now, item)

    async def room(self, task: Any) -> bool:
        """Waits until one more item may be made."""
        room = task.room_now()
        return bool(room) if room is not None else await self.patiently(task.room_now)

    async def patiently(self, step: Any, *args: Any) -> bool:
        pause = 0.0002
        while True:
            await self.asyncio.sleep(pause)  # the consumer is behind
            done = step(*args)
            if done is not None:
                return bool(done)
            pause = min(pause * 2, 0.01)

    async def run_stream(self, task: Any, key: int, result: Any) -> None:
        try:
            if self.is_coroutine(result):
                result = await result
            wanted = await self.room(task)
            if not wanted:
                pass
            elif hasattr(result, "__aiter__"):
                async for item in result:
                    wanted = await self.give(task, item) and await self.room(task)
                    if not wanted:
                        break
                if not wanted:
                    await result.aclose()
            else:
                for item in result:
                    wanted = await self.give(task, item) and await self.room(task)
                    if not wanted:
                        break
        except self.asyncio.CancelledError:
            task.finish_cancelled()
        except BaseException as e:
            task.fail(e)
        else:
            task.end_stream() if wanted else task.finish_cancelled()
        finally:
            self.ended(key)

    def cancel(self) -> None:
        for key in _libray._worker_cancelled(self.cancel_fd):
            running = self.running.get(key)
            if running is not None and running[1].is_cancelled:
                running[0].cancel()

    def main(self) -> str:
        self.loop.add_reader(self.cancel_fd, self.cancel)
        self.watch(True)
        own_actor.async_groups.append(self)
        if _libray._worker_exiting():
            self.loop.call_soon(self.take)
        _libray._set_before_block(_warn_of_blocking)
        self.loop.run_until_complete(self.stopped)
        return "end"


def _run_loops(mode: own_actor.Mode) -> str:
    """Each group has a loop of its own; the default group's is the constructor's, in the main
    thread."""
    import asyncio

    def run(group: int, limit: int) -> None:
        loop = new_loop()
        asyncio.set_event_loop(loop)
        _AsyncActor(loop, limit, group).main()

    threads = [
        _start_thread(functools.partial(run, group, limit), f"actor-{group}")
        for group, limit in enumerate(mode.groups, 1)
    ]
    end = _AsyncActor(own_loop, mode.concurrency, 0).main()
    if _libray._worker_exiting():
        for thread in threads:
            thread.join()
    return end


def run_actor() -> str:
    """Runs the calls of the actor that was just made, in the way of its mode, until the process is to end."""
    mode = own_actor.mode
    if mode.is_async:
        return _run_loops(mode)
    if mode.concurrency > 1 or mode.groups:
        return _run_threads(mode)
    return str(_libray._worker_run(True))
