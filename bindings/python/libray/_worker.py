"""The worker's main program, run in a process that the zygote forked. The loop itself is in the
extension; here are its surroundings: signals, the ways in which an actor may run, and the end."""

from __future__ import annotations

import faulthandler
import functools
import inspect
import os
import signal
import sys
import threading
from typing import Any, Callable, Dict, List, Optional

from . import _as_ray, _core, _gpus, _libray, _placement, _runtime_env, _serialization, _title, _worker_output

class ActorExit(SystemExit):
    """Raised by exit_actor in actors with threads: no Exception, so that user code does not catch it
    by accident. Catching it does not help: the actor ends."""


class _Mode:
    """How this actor runs its calls; set by its creator through the constructor's hidden argument."""

    def __init__(
        self,
        concurrency: int = 1,
        is_async: bool = False,
        groups: Any = (),
        name: str = "",
        placement: bytes = b"",
        stream_limit: int = 0,
    ) -> None:
        self.concurrency = concurrency
        self.is_async = is_async
        self.groups: List[int] = list(groups)  # limits of the concurrency groups 1, 2, ...
        self.name = name
        self.placement = placement  # note of its placement group, if it is in one
        self.stream_limit = stream_limit  # items of all its generators that nobody took; 0: no limit
        self.incarnation = 0  # how often it was restarted
        self.actor: Optional[str] = None  # its id


_mode = _Mode()
_loop: Any = None  # event loop of an asyncio actor's default group
_async_groups: List[Any] = []  # every group of an asyncio actor that has started


def _unknown_function(error: BaseException) -> bool:
    return getattr(error, "names_nothing", False) is True


def own_actor() -> Optional[str]:
    """Id of the actor that this process is, also in its own threads and between calls."""
    return _mode.actor or _libray.context()["actor"]


def request_exit() -> None:
    """exit_actor: the running call is the last one that starts."""
    _libray._worker_exit()
    if _mode.is_async:
        for group in _async_groups:  # an asyncio task that is no call may have asked: nothing else wakes them
            group.loop.call_soon_threadsafe(group.take)
        from .exceptions import AsyncioActorExit

        raise AsyncioActorExit()
    raise ActorExit(0)


def _on_sigint(signum: int, frame: Any) -> None:
    if _libray._take_interrupt():
        raise KeyboardInterrupt


async def _in_loop(cls: Any, args: Any, kwargs: Any) -> Any:
    """The constructor of an asyncio actor: it may start tasks, which go on when it is done."""
    return cls(*args, **kwargs)


def _mode_by_name(cls: Any, groups: Any) -> _Mode:
    """Of an actor that another language made, or that was made by name: what its creator could not know."""
    from ._actor import ActorInfo

    info = ActorInfo.of(cls, groups)
    return _Mode(_libray._constructor_concurrency(), info.is_async, list(info.groups.values()))


def _make_actor(cls: Any, by_name: bool = False, groups: Any = None) -> Callable[..., Any]:
    def construct(*args: Any, **kwargs: Any) -> Any:
        global _mode, _loop
        hidden = kwargs.pop("__libray__", ())
        _mode = _mode_by_name(cls, groups) if by_name else _Mode(*hidden)
        if _mode.placement:  # for life
            _placement.enter_group(_mode.placement[1:], _mode.placement[0] != 0)
        _mode.actor = _libray.context()["actor"]
        task = _libray._current_task()
        _mode.incarnation = task[3] if task else 0
        if _mode.groups:
            _libray._worker_groups([_mode.concurrency, *_mode.groups])
        if _mode.stream_limit:
            _libray._limit_streams(_mode.stream_limit)
        if _mode.is_async:
            # What the constructor makes (locks, queues) belongs to the actor's loop.
            import asyncio

            _loop = _new_loop()
            asyncio.set_event_loop(_loop)
        _worker_output.set_actor(cls.__name__)
        try:
            if _mode.is_async:
                instance = _loop.run_until_complete(_in_loop(cls, args, kwargs))
            else:
                instance = cls(*args, **kwargs)
        except Exception as error:
            _tell_of_constructor(cls, error)
            raise
        _worker_output.set_actor(_worker_output.actor_name(instance))
        return instance

    return construct


def leave_child(error: Optional[BaseException]) -> None:
    """Ends a child that the user's code forked and that has come to the end of its function, as a program ends that comes
    to its own end: with its exit status, its traceback, its exit handlers."""
    import atexit
    import traceback

    code: Any = 0
    try:
        if isinstance(error, SystemExit):
            code = 0 if error.code is None else error.code
            if not isinstance(code, int):
                print(code, file=sys.stderr)
                code = 1
        elif error is not None and not isinstance(error, StopIteration):
            code = 1
            traceback.print_exception(type(error), error, error.__traceback__)
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that the child started
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        code = code or 1
    finally:
        os._exit(code & 0xFF)


def _tell_of_constructor(cls: Any, error: Exception) -> None:
    from . import exceptions

    if isinstance(error, exceptions.AsyncioActorExit):
        return
    try:
        print(exceptions.creation_text(error, cls.__name__), file=sys.stderr)
    except Exception:  # the user's exception, or what the user's code made of standard error
        pass


def _ready(instance: Any) -> Callable[[], bool]:
    return lambda: True


def _terminate(instance: Any) -> Callable[[], None]:
    return request_exit


def _call(instance: Any) -> Callable[..., Any]:
    return lambda function, *args, **kwargs: function(instance, *args, **kwargs)


_SPECIAL = {"__ray_ready__": _ready, "__ray_terminate__": _terminate, "__ray_call__": _call}


def find_method(instance: Any, name: str) -> Any:
    """What a call of `name` runs."""
    cls = type(instance)
    if not hasattr(cls, name):
        if name in _SPECIAL:
            return _SPECIAL[name](instance)
        if not hasattr(instance, name):
            from ._cross import UnknownFunction

            raise UnknownFunction(f"the actor class {cls.__qualname__} has no method '{name}'")
        return getattr(instance, name)
    # The class decides: an attribute of the same name that the instance was given hides no method.
    bind = getattr(inspect.getattr_static(cls, name), "__get__", None)
    return getattr(cls, name) if bind is None else bind(instance, cls)


def _start_thread(run: Callable[[], Any], name: str) -> threading.Thread:
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


class _Threads:
    """The threads of one group: as many as calls ran at a time, up to its limit."""

    def __init__(self, group: int, limit: int) -> None:
        self.group = group
        self.limit = limit
        self.started: List[threading.Thread] = []

    def grow(self) -> None:
        """Called with the GIL by a thread that took a call when no other of the group waits for one."""
        if len(self.started) < self.limit:
            name = f"actor-{self.group}-{len(self.started) + 1}"
            self.started.append(_start_thread(self.run, name))

    def run(self) -> None:
        _libray._worker_run(False, self.group, self.grow)


def _run_threads(mode: _Mode) -> str:
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


def _new_loop() -> Any:
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
        self.running[key] = (
            self.loop.create_task(call.steps(self.run_stream(call, key, result))), call
        )

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
        _async_groups.append(self)
        if _libray._worker_exiting():
            self.loop.call_soon(self.take)
        _libray._set_before_block(_warn_of_blocking)
        self.loop.run_until_complete(self.stopped)
        return "end"


def _run_loops(mode: _Mode) -> str:
    """Each group has a loop of its own; the default group's is the constructor's, in the main
    thread."""
    import asyncio

    def run(group: int, limit: int) -> None:
        loop = _new_loop()
        asyncio.set_event_loop(loop)
        _AsyncActor(loop, limit, group).main()

    threads = [
        _start_thread(functools.partial(run, group, limit), f"actor-{group}")
        for group, limit in enumerate(mode.groups, 1)
    ]
    end = _AsyncActor(_loop, mode.concurrency, 0).main()
    if _libray._worker_exiting():
        for thread in threads:
            thread.join()
    return end


def _run_actor() -> str:
    if _mode.is_async:
        return _run_loops(_mode)
    if _mode.concurrency > 1 or _mode.groups:
        return _run_threads(_mode)
    return str(_libray._worker_run(True))


def _end() -> None:
    """A graceful end: the actor's own hook, then its finaliser and those of what it owns, while the runtime still works.
    The zygote's child goes on with atexit handlers and buffers."""
    instance = _libray._actor_instance()
    if instance is None:
        return
    if not _terminated:
        try:
            _libray._worker_exit()  # nothing runs any more: from here on the node limits the time
        except Exception:  # the node is gone
            return
    hook = getattr(instance, "__ray_shutdown__", None)
    if hook is not None:
        try:
            hook()
        except BaseException:
            import traceback

            traceback.print_exc()
    del instance, hook
    _libray._drop_actor()
    import gc

    gc.collect()


_terminated = False  # SIGTERM came


def _on_sigterm(signum: int, frame: Any) -> None:
    """The process ends at once, but in order: what runs is interrupted and lost, as by any other death of its process
    (an actor that may restart does so); finalisers and atexit handlers run."""
    global _terminated
    if not _terminated:
        _terminated = True
        print("this worker ends: it received SIGTERM", file=sys.stderr)
        raise SystemExit(128 + signum)


def _handle_sigterm() -> None:
    signal.signal(signal.SIGTERM, _on_sigterm)
    _core.own_handlers.append(_on_sigterm)
    _libray._wake_for_sigterm()


title_room: Any = ()  # addresses of this process's arguments, which the kernel shows


def find_title_room() -> None:
    """Called in the zygote, whose arguments its workers share."""
    global title_room
    try:
        with open("/proc/self/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        begin, end = int(fields[45]), int(fields[46])
    except (OSError, IndexError, ValueError):
        return
    if 0 < begin < end:
        title_room = (begin, end)


def _prepare() -> None:
    signal.signal(signal.SIGINT, _on_sigint)
    _worker_output.install()
    _libray._answer_stack_requests()
    faulthandler.enable(2)  # a crash in C code leaves the Python stack on the driver's terminal
    path = os.environ.get(_core._PATH)
    if path:
        entries = path.split(os.pathsep)
        sys.path[:] = entries + [p for p in sys.path if p not in entries]
    _runtime_env.extend_path()
    _gpus.prepare_worker()
    _serialization.make_actor = _make_actor
    if os.environ.get(_as_ray.ENVIRONMENT):  # before anything is unpickled
        _as_ray.install_finder()
    _title.install()
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
    _libray._worker_setup(ActorExit, _unknown_function)
    if title_room:
        _libray._title_room(*title_room)
    try:
        _handle_sigterm()
        what: Optional[str] = None
        while what not in ("end", "retire"):
            what = _libray._worker_run(True) if what is None else _run_actor()
        if what == "retire" and not _terminated:  # what this process submitted ends first
            _libray.shutdown(60.0)
    except SystemExit:
        if not _terminated:
            raise
    _end()
    return 128 + signal.SIGTERM if _terminated else 0
