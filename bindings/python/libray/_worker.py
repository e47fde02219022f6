"""The worker's main program, run in a process that the zygote forked. The loop itself is in the
extension; here are its surroundings: signals, the ways in which an actor may run, and the end."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from typing import Any, Callable, Dict, Optional, Tuple

from . import _as_ray, _core, _libray, _placement, _runtime_env, _serialization, _worker_output

_actor_options: Tuple[int, bool] = (1, False)  # (max_concurrency, is asyncio)
_loop: Any = None  # event loop of an asyncio actor


class ActorExit(BaseException):
    """Raised by exit_actor: not an Exception, so that user code does not catch it by accident."""


_exit_requested = False


def request_exit() -> None:
    global _exit_requested
    _exit_requested = True
    raise ActorExit()


def _on_sigint(signum: int, frame: Any) -> None:
    if _libray._take_interrupt():
        raise KeyboardInterrupt


def _make_actor(cls: Any) -> Callable[..., Any]:
    def construct(*args: Any, **kwargs: Any) -> Any:
        global _actor_options, _loop
        concurrency, is_async, group = kwargs.pop("__libray__", (1, False, b""))
        _actor_options = (concurrency, is_async)
        if group:  # for life
            _placement.enter_group(group[1:], group[0] != 0)
        if _actor_options[
            1
        ]:  # what the constructor makes (locks, queues) belongs to the actor's loop
            import asyncio

            _loop = asyncio.new_event_loop()
            asyncio.set_event_loop(_loop)
        _worker_output.set_actor(cls.__name__)
        instance = cls(*args, **kwargs)
        _worker_output.set_actor(_worker_output.actor_name(instance))
        return instance

    return construct


def _ready(instance: Any) -> Callable[[], bool]:
    return lambda: True


def _terminate(instance: Any) -> Callable[[], None]:
    return request_exit


def _call(instance: Any) -> Callable[..., Any]:
    return lambda function, *args, **kwargs: function(instance, *args, **kwargs)


_SPECIAL = {"__ray_ready__": _ready, "__ray_terminate__": _terminate, "__ray_call__": _call}


def find_method(instance: Any, name: str) -> Any:
    """What a call of `name` runs."""
    if name in _SPECIAL and not hasattr(type(instance), name):
        return _SPECIAL[name](instance)
    return getattr(instance, name)


def _run_threads(concurrency: int) -> str:
    threads = [
        threading.Thread(
            target=_libray._worker_run, args=(False,), name=f"actor-{i + 1}", daemon=True
        )
        for i in range(concurrency - 1)
    ]
    for thread in threads:
        thread.start()
    return str(_libray._worker_run(True))


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


class _AsyncActor:
    """An asyncio actor: one loop; tasks are taken when the worker's descriptor says so."""

    BATCH = 64

    def __init__(self, loop: Any, concurrency: int) -> None:
        import asyncio

        self.asyncio = asyncio
        self.loop = loop
        self.concurrency = concurrency
        self.running: Dict[int, Any] = {}
        self.fd = _libray._worker_fd()
        self.watching = False
        self.stopped = loop.create_future()

    def watch(self, on: bool) -> None:
        if on and not self.watching:
            self.loop.add_reader(self.fd, self.take)
        elif not on and self.watching:
            self.loop.remove_reader(self.fd)
        self.watching = on

    def take(self) -> None:
        for _ in range(self.BATCH):
            if len(self.running) >= self.concurrency:
                self.watch(False)
                return
            task = _libray._worker_take()
            if task is None:
                return
            if task is False:
                self.watch(False)
                if not self.stopped.done():
                    self.stopped.set_result(None)
                return
            self.start(task)

    def start(self, task: Any) -> None:
        key = task.key
        if self.concurrency == 1:  # strictly one after the other: also the synchronous ones
            self.running[key] = self.loop.create_task(self.run_late(task, key))
            return
        try:
            result = task.call()
        except BaseException as e:
            task.fail(e)
            return
        if task.is_stream:
            self.running[key] = self.loop.create_task(self.run_stream(task, key, result))
        elif self.asyncio.iscoroutine(result):
            self.running[key] = self.loop.create_task(self.run(task, key, result))
        else:
            self.finish(task, result)

    def finish(self, task: Any, result: Any) -> None:
        try:
            task.finish(result)
        except BaseException as e:
            task.fail(e)

    def ended(self, key: int) -> None:
        self.running.pop(key, None)
        if not self.watching and not self.stopped.done():
            self.watch(True)

    async def run_late(self, task: Any, key: int) -> None:
        try:
            result = task.call()
        except BaseException as e:
            task.fail(e)
            self.ended(key)
            return
        if task.is_stream:
            await self.run_stream(task, key, result)
        elif self.asyncio.iscoroutine(result):
            await self.run(task, key, result)
        else:
            self.finish(task, result)
            self.ended(key)

    async def run(self, task: Any, key: int, coroutine: Any) -> None:
        try:
            result = await coroutine
        except self.asyncio.CancelledError as e:
            if task.is_cancelled:
                task.finish_cancelled()
            else:
                task.fail(e)
        except BaseException as e:
            task.fail(e)
        else:
            self.finish(task, result)
        finally:
            self.ended(key)

    async def give(self, task: Any, item: Any) -> bool:
        pause = 0.0002
        while True:
            given = task.yield_now(item)
            if given is not None:
                return bool(given)
            await self.asyncio.sleep(pause)  # the consumer is behind
            pause = min(pause * 2, 0.01)

    async def run_stream(self, task: Any, key: int, result: Any) -> None:
        try:
            if hasattr(result, "__aiter__"):
                async for item in result:
                    if not await self.give(task, item):
                        await result.aclose()
                        task.finish_cancelled()
                        return
            else:
                if self.asyncio.iscoroutine(result):
                    result = await result
                for item in result:
                    if not await self.give(task, item):
                        task.finish_cancelled()
                        return
        except self.asyncio.CancelledError as e:
            if task.is_cancelled:
                task.finish_cancelled()
            else:
                task.fail(e)
        except BaseException as e:
            task.fail(e)
        else:
            task.end_stream()
        finally:
            self.ended(key)

    def cancel(self) -> None:
        for key in _libray._worker_cancelled():
            running = self.running.get(key)
            if running is not None:
                running.cancel()

    def main(self) -> str:
        self.loop.add_reader(_libray._worker_cancel_fd(), self.cancel)
        self.watch(True)
        _libray._set_before_block(_warn_of_blocking)
        self.loop.run_until_complete(self.stopped)
        return "end"


def _run_actor() -> str:
    concurrency, is_async = _actor_options
    if is_async:
        return _AsyncActor(_loop, concurrency).main()
    if concurrency > 1:
        return _run_threads(concurrency)
    return str(_libray._worker_run(True))


def _end() -> None:
    """A graceful end: the actor's own hook, atexit handlers, buffers."""
    instance = _libray._actor_instance()
    hook = getattr(instance, "__ray_shutdown__", None)
    if hook is not None:
        try:
            hook()
        except BaseException:
            import traceback

            traceback.print_exc()


def _prepare() -> None:
    signal.signal(signal.SIGINT, _on_sigint)
    _worker_output.install()
    faulthandler.enable(2)  # a crash in C code leaves the Python stack on the driver's terminal
    path = os.environ.get(_core._PATH)
    if path:
        entries = path.split(os.pathsep)
        sys.path[:] = entries + [p for p in sys.path if p not in entries]
    _runtime_env.extend_path()
    _serialization.make_actor = _make_actor
    if os.environ.get(_as_ray.ENVIRONMENT):  # before anything is unpickled
        _as_ray.install_finder()
    if os.environ.get("LIBRAY_LOGGING"):
        from . import _logging

        _logging.apply_in_worker()


def run() -> int:
    """Joins the node and works until it says that this worker is to end."""
    _prepare()
    _core.adopt_worker(
        {
            "address": "",
            "namespace": "",
            "session_dir": "",
            "job_name": "",
            "num_cpus": 0.0,
            "store_bytes": 0,
            "spill_bytes": 0,
            "gcs_shards": 0,
            "resources": b"",
            "worker_argv": _core.worker_argv(),
        }
    )
    _libray._worker_setup(ActorExit)
    what: Optional[str] = None
    while what not in ("end", "retire"):
        what = _libray._worker_run(True) if what is None else _run_actor()
    if what == "retire":  # what this process submitted ends first
        _libray.shutdown(60.0)
    _end()
    return 0
