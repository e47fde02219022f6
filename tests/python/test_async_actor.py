"""Coroutine methods run their first step at once: what that must not change. Tasks, contexts,
cancellation, errors, order, and a loop that stays alive."""

import asyncio
import contextvars
import sys
import threading
import time
import weakref

import pytest

import libray

pytestmark = pytest.mark.usefixtures("cluster")

variable = contextvars.ContextVar("variable", default="unset")


@libray.remote(num_cpus=0)
class Tasks:
    """Keeps what its calls see of asyncio."""

    def __init__(self):
        self.seen = []
        self.kept = None
        self.called = []
        self.weak = weakref.WeakKeyDictionary()

    async def name_of_task(self):
        return asyncio.current_task().get_name()

    async def same_before_and_after(self):
        before = asyncio.current_task()
        await asyncio.sleep(0.01)
        return before is asyncio.current_task() and before in asyncio.all_tasks()

    async def is_a_task(self):
        task = asyncio.current_task()
        return isinstance(task, asyncio.Task) and not task.done()

    def plain_has_a_task(self):
        return isinstance(asyncio.current_task(), asyncio.Task)

    async def others(self):
        return len([t for t in asyncio.all_tasks() if t is not asyncio.current_task()])

    async def rename(self, name):
        asyncio.current_task().set_name(name)

    async def keep(self):
        self.kept = asyncio.current_task()
        return "kept"

    async def kept_is_done(self):
        await asyncio.wait([self.kept], timeout=30)
        return self.kept.done() and self.kept is not asyncio.current_task()

    async def tell_when_over(self, word):
        asyncio.current_task().add_done_callback(lambda _: self.called.append(word))

    async def told(self):
        while not self.called:
            await asyncio.sleep(0.001)
        return self.called

    async def mark_weakly(self):
        found = self.weak.get(asyncio.current_task())
        self.weak[asyncio.current_task()] = "mark"
        return found

    async def cancel_itself(self, wait):
        asyncio.current_task().cancel()
        if not wait:
            return "ended first"
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "cancelled"

    async def cancel_itself_in(self, inner):
        task = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.current_task().cancel()
        try:
            await task
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return task.cancelled()

    async def child(self):
        async def inner():
            return asyncio.current_task()

        task = asyncio.ensure_future(inner())
        return await task is task


@pytest.fixture
def tasks():
    return Tasks.remote()


def test_each_call_is_a_task_of_its_own(tasks):
    assert libray.get(tasks.is_a_task.remote()) and libray.get(tasks.plain_has_a_task.remote())
    assert all(libray.get([tasks.same_before_and_after.remote() for _ in range(20)]))
    names = libray.get([tasks.name_of_task.remote() for _ in range(3)])
    assert len(names) == 3 and libray.get(tasks.child.remote())


def test_idle_loop_shows_no_tasks(tasks):
    for _ in range(5):
        assert libray.get(tasks.others.remote()) == 0
        assert libray.get(tasks.same_before_and_after.remote())


def test_calls_leave_no_traces_on_the_tasks_of_later_ones(tasks):
    libray.get(tasks.rename.remote("renamed"))
    assert libray.get(tasks.name_of_task.remote()) != "renamed"
    assert libray.get([tasks.mark_weakly.remote() for _ in range(3)]) == [None] * 3
    libray.get(tasks.tell_when_over.remote("over"))
    assert libray.get(tasks.told.remote()) == ["over"]
    assert libray.get(tasks.told.remote()) == ["over"]  # not told again by a later call
    assert libray.get(tasks.keep.remote()) == "kept"
    assert libray.get(tasks.kept_is_done.remote())


def test_a_call_that_cancels_itself(tasks):
    assert libray.get(tasks.cancel_itself.remote(False)) == "ended first"
    assert libray.get(tasks.is_a_task.remote())  # the next one is not cancelled
    assert libray.get(tasks.same_before_and_after.remote())
    assert libray.get(tasks.cancel_itself.remote(True)) == "cancelled"
    assert libray.get(tasks.cancel_itself_in.remote(True)) is True  # what it waited for is, too


@libray.remote(num_cpus=0)
class Waits:
    def __init__(self):
        self.log = []
        self.event = asyncio.Event()

    async def context(self, value):
        before = variable.get()
        variable.set(value)
        await asyncio.sleep(0.005)
        return before, variable.get()

    async def context_at_once(self, value):
        before = variable.get()
        variable.set(value)
        return before

    async def limited(self, seconds):
        try:
            await asyncio.wait_for(asyncio.sleep(30), seconds)
        except asyncio.TimeoutError:
            return "timed out"

    async def limited_block(self, seconds):
        try:
            async with asyncio.timeout(seconds):
                await asyncio.sleep(30)
        except TimeoutError:
            return "timed out"

    async def wait(self, word):
        self.log.append("begin " + word)
        try:
            await self.event.wait()
        except asyncio.CancelledError:
            self.log.append("cancelled " + word)
            raise
        self.log.append("end " + word)
        return word

    async def note(self, word):
        self.log.append(word)

    async def look(self):
        return list(self.log)

    async def open(self):
        self.event.set()

    async def fail(self, when):
        if when == "first":
            raise LookupError("in the first step")
        await asyncio.sleep(0)
        raise LookupError("in a later step")

    async def awaits_something_odd(self):
        class Odd:
            def __await__(self):
                yield 5

        await Odd()

    async def bare_yield(self):
        for _ in range(3):
            await asyncio.sleep(0)
        return "yielded"

    async def done_future(self):
        future = asyncio.get_running_loop().create_future()
        future.set_result(4)
        return await future


def test_contexts_belong_to_the_calls():
    a = Waits.remote()
    got = libray.get([a.context.remote(i) for i in range(10)])
    assert got == [("unset", i) for i in range(10)]
    assert libray.get([a.context_at_once.remote(i) for i in range(10)]) == ["unset"] * 10


def test_limits_of_time_in_the_first_step():
    a = Waits.remote()
    assert libray.get(a.limited.remote(0.02)) == "timed out"
    if sys.version_info >= (3, 11):
        assert libray.get(a.limited_block.remote(0.02)) == "timed out"


def test_order_of_the_first_steps():
    a = Waits.remote()
    refs = []
    for i in range(300):
        refs.append(a.note.remote(f"n{i}"))
        if i % 50 == 0:
            refs.append(a.wait.remote(f"w{i}"))
    log = libray.get(a.look.remote())
    expected = []
    for i in range(300):
        expected.append(f"n{i}")
        if i % 50 == 0:
            expected.append(f"begin w{i}")
    assert log == expected
    libray.get(a.open.remote())
    libray.get(refs)
    assert libray.get(a.look.remote())[-6:] == [f"end w{i}" for i in range(0, 300, 50)]


def test_errors_of_first_and_later_steps():
    a = Waits.remote()
    for when in ("first", "later"):
        with pytest.raises(LookupError, match=f"in (the|a) {when} step"):
            libray.get(a.fail.remote(when))
    with pytest.raises(RuntimeError, match="yield"):
        libray.get(a.awaits_something_odd.remote())
    assert libray.get(a.bare_yield.remote()) == "yielded"
    assert libray.get(a.done_future.remote()) == 4


def test_cancelled_calls_see_it(eventually):
    a = Waits.remote()
    refs = [a.wait.remote(str(i)) for i in range(4)]
    eventually(lambda: len(libray.get(a.look.remote())) == 4)
    libray.cancel(refs[1])
    libray.cancel(refs[3])
    for ref in (refs[1], refs[3]):
        with pytest.raises(libray.exceptions.TaskCancelledError):
            libray.get(ref, timeout=60)
    libray.get(a.open.remote())
    assert libray.get([refs[0], refs[2]]) == ["0", "2"]
    log = libray.get(a.look.remote())
    assert {"cancelled 1", "cancelled 3", "end 0", "end 2"} <= set(log) and len(log) == 8


@libray.remote(num_cpus=0)
class Gives:
    async def numbers(self, n):
        for i in range(n):
            yield i

    @libray.method(num_returns="dynamic")
    def plain(self, n):
        yield from range(n)
        raise LookupError("after")

    @libray.method(num_returns="dynamic")
    async def not_so(self):
        yield 1

    async def cancel_all(self):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        return sum(task.cancel() for task in others)


def test_dynamic_returns():
    a = Gives.remote()
    *refs, last = libray.get(a.plain.remote(3))
    assert libray.get(refs) == [0, 1, 2]
    with pytest.raises(LookupError, match="after"):
        libray.get(last)
    with pytest.raises(TypeError, match="streaming"):
        libray.get(a.not_so.remote())


def test_a_stream_that_is_cancelled_before_its_first_step_ends():
    a = Gives.options(max_concurrency=4).remote()
    for _ in range(100):
        streams = [a.numbers.remote(3) for _ in range(3)]
        cancelled = libray.get(a.cancel_all.remote(), timeout=60)  # of those that have not begun, if it came with them
        for stream in streams:
            try:
                assert len([libray.get(ref, timeout=60) for ref in stream]) == 3
            except libray.exceptions.TaskCancelledError:
                pass
        if cancelled:
            break
    assert cancelled
    assert [libray.get(ref) for ref in a.numbers.remote(2)] == [0, 1]  # no slot is lost


@libray.remote(num_cpus=0)
class Alive:
    def __init__(self):
        self.ticks = 0

    async def start(self):
        async def tick():
            while True:
                self.ticks += 1
                await asyncio.sleep(0.005)

        self.task = asyncio.ensure_future(tick())

    async def nothing(self):
        pass

    async def count(self):
        return self.ticks

    async def from_a_thread(self):
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def later():
            time.sleep(0.05)
            loop.call_soon_threadsafe(event.set)

        threading.Thread(target=later).start()
        began = time.monotonic()
        await asyncio.wait_for(event.wait(), 30)
        return time.monotonic() - began


def test_timers_go_on_under_many_calls(eventually):
    a = Alive.remote()
    libray.get(a.start.remote())
    before = libray.get(a.count.remote())
    began = time.monotonic()
    while time.monotonic() - began < 1:
        libray.get([a.nothing.remote() for _ in range(100)])
    assert libray.get(a.count.remote()) - before > 10


def test_sleeping_loop_wakes_for_calls_and_threads():
    a = Alive.remote()
    for pause in (0, 0.0001, 0.001, 0.01, 0.1):
        for _ in range(5):
            time.sleep(pause)
            libray.get(a.nothing.remote(), timeout=30)
    assert libray.get(a.from_a_thread.remote(), timeout=60) < 20
    assert libray.get([a.nothing.remote() for _ in range(2000)]) == [None] * 2000


def test_limited_concurrency_counts_suspended_calls():
    @libray.remote(num_cpus=0, max_concurrency=3)
    class Limited:
        def __init__(self):
            self.now = self.most = 0

        async def enter(self, i):
            self.now += 1
            self.most = max(self.most, self.now)
            if i % 2:
                await asyncio.sleep(0.001)
            self.now -= 1
            return i

        async def high(self):
            return self.most

    a = Limited.remote()
    assert libray.get([a.enter.remote(i) for i in range(200)]) == list(range(200))
    assert 1 < libray.get(a.high.remote()) <= 3
