"""asyncio and concurrent futures."""

import asyncio
import concurrent.futures
import gc
import logging
import os
import sys
import threading
import time
import weakref

import pytest

import libray
from conftest import eventually

pytestmark = pytest.mark.usefixtures("cluster")


@libray.remote
def work(x):
    time.sleep(0.002)
    return x


@libray.remote
def fail():
    raise LookupError("remote")


def test_await():
    async def main():
        ref = work.remote(5)
        assert await ref == 5 and await ref == 5
        with pytest.raises(LookupError, match="remote"):
            await fail.remote()
        return await asyncio.gather(*[work.remote(i) for i in range(200)])

    for _ in range(2):  # a second loop gets a queue of its own
        assert asyncio.run(main()) == list(range(200))


def test_await_in_two_threads():
    out = {}

    def run(k):
        async def main():
            return sum(await asyncio.gather(*[work.remote(i) for i in range(50)]))

        out[k] = asyncio.run(main())

    threads = [threading.Thread(target=run, args=(k,)) for k in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert out == {0: 1225, 1: 1225, 2: 1225}


def test_event_loops_that_begin_at_the_same_time(monkeypatch):
    from libray.api import awaiting

    class Slow(weakref.WeakSet):
        def __iter__(self):
            for item in super().__iter__():
                time.sleep(0.001)  # others have their turn
                yield item

    monkeypatch.setattr(awaiting, "_entries", Slow(awaiting._entries))
    errors = []

    async def main():
        assert await asyncio.wait_for(work.remote(3), 60) == 3

    def loops():
        try:
            for _ in range(10):
                asyncio.run(main())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=loops) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_future_that_is_asked_for_beside_the_end_is_completed(tmp_path):
    from libray.api import awaiting

    @libray.remote
    def wait(path):
        while not os.path.exists(path):
            time.sleep(0.01)

    ref = wait.remote(str(tmp_path / "go"))
    ref.future()  # the notifier is there

    class Slow:
        """Its queue, to which something is added while the notifier is told to stop."""

        def __init__(self, queue):
            self.queue = queue
            self.stop = threading.Thread(target=awaiting._stop_notifier)

        def add(self, *args):
            self.stop.start()
            self.stop.join(0.3)
            return self.queue.add(*args)

        def __getattr__(self, name):
            return getattr(self.queue, name)

    slow = awaiting._notifier.queue = Slow(awaiting._notifier.queue)
    future = ref.future()
    with pytest.raises(libray.exceptions.TaskCancelledError):
        future.result(timeout=60)
    slow.stop.join()
    (tmp_path / "go").touch()
    assert ref.future().result(timeout=60) is None  # by the next notifier


def test_timeout_of_an_await_does_no_harm(tmp_path):
    @libray.remote(num_cpus=0)
    def hold(path):
        while not os.path.exists(path):
            time.sleep(0.005)
        return 3

    async def main():
        ref = hold.remote(str(tmp_path / "go"))

        async def wait():
            return await ref

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(wait(), 0.02)
        (tmp_path / "go").touch()
        done, pending = await asyncio.wait([asyncio.ensure_future(wait())], timeout=30)
        assert not pending
        return done.pop().result()

    assert asyncio.run(main()) == 3


def test_as_completed():
    async def main():
        async def get(ref):
            return await ref

        return sorted(
            [await f for f in asyncio.as_completed([get(work.remote(i)) for i in range(30)])]
        )

    assert asyncio.run(main()) == list(range(30))


def test_concurrent_futures():
    futures = [work.remote(i).future() for i in range(100)]
    done, rest = concurrent.futures.wait(futures, timeout=60)
    assert not rest and sorted(f.result() for f in done) == list(range(100))
    with pytest.raises(LookupError):
        fail.remote().future().result(30)
    assert libray.put(3).future().result(30) == 3

    async def main():
        return await asyncio.wrap_future(work.remote(9).future())

    assert asyncio.run(main()) == 9


def test_futures_with_callbacks_and_cancelled_ones(tmp_path):
    gate = str(tmp_path / "gate")
    hold = hold_then_give.remote(gate, 1)
    called, waits, dropped = [], hold.future(), hold.future()
    waits.add_done_callback(lambda f: called.append((f.result(), threading.current_thread() is threading.main_thread())))
    assert not waits.done() and not waits.running() and dropped.cancel() and dropped.cancelled()
    with pytest.raises(concurrent.futures.TimeoutError):
        waits.result(0.01)
    later = hold.future()
    open(gate, "w").close()
    assert waits.result(60) == later.result(60) == bytes(1) and later.exception() is None
    while not called:
        time.sleep(0.001)
    later.add_done_callback(lambda f: called.append(f))  # at once
    assert called == [(bytes(1), False), later] and not later.cancel()
    assert dropped.cancelled() and type(later).__name__ == "Future" and isinstance(later, concurrent.futures.Future)
    failed = fail.remote().future()
    assert isinstance(failed.exception(60), LookupError)
    got = [f for f in concurrent.futures.as_completed([fail.remote().future(), work.remote(3).future()], timeout=60)]
    assert sorted(f.exception() is None for f in got) == [False, True]


def test_on_completed():
    got = []
    event = threading.Event()

    def done(value):
        got.append(value)
        event.set()

    work.remote(4)._on_completed(done)
    assert event.wait(30) and got == [4]
    event.clear()
    fail.remote()._on_completed(done)
    assert event.wait(30) and isinstance(got[1], LookupError)


def test_many_awaits_leave_nothing():
    from libray.api import awaiting

    async def main():
        for _ in range(20):
            await asyncio.gather(*[work.options(num_cpus=0.01).remote(i) for i in range(20)])
        return awaiting.queue_of(asyncio.get_running_loop()).queue.pending()

    assert asyncio.run(main()) == 0


def test_shutdown_answers_those_who_wait(run_script):
    done = run_script("""
        import asyncio, libray, threading, time

        libray.init(num_cpus=1)

        @libray.remote
        def slow():
            time.sleep(100)

        ref = slow.remote()
        future = ref.future()
        got, blocks = [], threading.Event()

        def block():
            blocks.set()
            try:
                libray.get(ref)
            except Exception as e:
                got.append(type(e).__mro__)

        thread = threading.Thread(target=block)
        thread.start()

        async def main():
            waiting = asyncio.ensure_future(wait())
            blocks.wait(30)
            while open(f"/proc/self/task/{thread.native_id}/stat").read().rsplit(")", 1)[1].split()[0] != "S":
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)  # what it waited for may have been the interpreter
            libray.shutdown()
            try:
                await waiting
            except libray.exceptions.TaskCancelledError:
                return "cancelled"

        async def wait():
            return await ref

        print(asyncio.run(main()))
        thread.join(30)
        print(len(got), libray.exceptions.RayError in got[0])
        try:
            future.result(30)
        except libray.exceptions.TaskCancelledError:
            print("answered")
    """)
    assert done.stdout.split() == ["cancelled", "1", "True", "answered"]


@libray.remote(num_cpus=0)
def hold_then_give(path, size):
    while not os.path.exists(path):
        time.sleep(0.005)
    return bytes(size)


def test_awaits_in_closed_loops_leave_nothing(tmp_path, eventually):
    gate, refs = str(tmp_path / "gate"), []
    large = 300_000

    async def give_up():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(waits(), 0.01)

    async def waits():
        return await hold_then_give.remote(gate, large)

    async def abandon():  # the loop is closed while this one waits
        refs.append(asyncio.ensure_future(waits()))
        await asyncio.sleep(0)

    def loops():
        gc.collect()
        return sum(isinstance(o, asyncio.BaseEventLoop) for o in gc.get_objects())

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    asyncio.run(give_up())
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of tasks that were pending
    before = loops(), descriptors()
    for _ in range(10):
        asyncio.run(give_up())
        loop = asyncio.new_event_loop()
        loop.run_until_complete(abandon())
        loop.close()
    del loop
    refs.clear()
    assert loops() <= before[0] + 1 and descriptors() <= before[1] + 2
    open(gate, "w").close()
    eventually(lambda: all(row["size"] < large for row in libray._libray.query("store", b"")))


def test_an_await_that_is_given_up_keeps_no_result(tmp_path, eventually):
    gate = str(tmp_path / "gate")

    async def main():
        from libray.api import awaiting

        queue = awaiting.queue_of(asyncio.get_running_loop()).queue
        task = asyncio.ensure_future(waits())
        await asyncio.sleep(0.01)
        assert queue.pending() == 1
        task.cancel()
        await asyncio.wait([task])
        assert queue.pending() == 0
        future = hold_then_give.remote(gate, 10).as_future()
        future.cancel()
        await asyncio.sleep(0)
        assert queue.pending() == 0

    async def waits():
        return await hold_then_give.remote(gate, 10)

    asyncio.run(main())
    open(gate, "w").close()


def test_as_future_is_one_of_asyncio():
    async def main():
        future = work.remote(5).as_future()
        assert asyncio.isfuture(future) and future.get_loop() is asyncio.get_running_loop()
        with pytest.raises(LookupError, match="remote"):
            await fail.remote().as_future()
        done, _ = await asyncio.wait([work.remote(1).as_future(), work.remote(2).as_future()])
        return await future, sorted(f.result() for f in done)

    assert asyncio.run(main()) == (5, [1, 2])


def test_callbacks_that_leave_by_system_exit_stop_nobody(capfd):
    def leave(_):
        sys.exit("leaves")

    for _ in range(2):
        work.remote(1)._on_completed(leave)
        future = work.remote(2).future()
        future.add_done_callback(leave)
        assert future.result(30) == 2
    assert work.remote(3).future().result(30) == 3
    assert "leaves" in capfd.readouterr().err


def test_a_result_that_cannot_be_made_takes_no_other_with_it(tmp_path):
    """The exceptions of some cannot be made for want of memory, while dozens of others are delivered with them."""
    from libray import _libray, exceptions

    def make_error(code, message, *payload):
        if "no memory for this" in message:
            raise MemoryError("made by the test")
        return exceptions.make_error(code, message, *payload)

    @libray.remote(num_cpus=0.01)
    def task(k, path):
        while not os.path.exists(path):
            time.sleep(0.002)
        if k % 10 == 3:
            raise ValueError("no memory for this")
        return k

    async def main(path):
        refs = [task.remote(k, path) for k in range(30)]
        futures = [r.as_future() for r in refs]
        open(path, "w").close()
        libray.wait(refs, num_returns=len(refs))  # all are there before the loop looks
        return await asyncio.gather(*futures, return_exceptions=True)

    _libray.set_hooks({"make_error": make_error})
    try:
        results = asyncio.run(main(str(tmp_path / "gate")))
    finally:
        _libray.set_hooks({"make_error": exceptions.make_error})
    for k, result in enumerate(results):
        assert isinstance(result, MemoryError) if k % 10 == 3 else result == k


def test_a_callback_that_waits_stops_no_other_future():
    release, entered, delivered, seen = threading.Event(), threading.Semaphore(0), threading.Event(), []

    def wait(done):
        entered.release()
        release.wait(60)
        seen.append(done.result())

    def ask(value):  # a callback may itself wait for futures
        seen.append(work.remote(value + 1).future().result(60))
        delivered.set()

    for i in range(3):
        work.remote(i).future().add_done_callback(wait)
    for _ in range(3):
        assert entered.acquire(timeout=60)
    assert [f.result(60) for f in [work.remote(i).future() for i in range(100)]] == list(range(100))
    work.remote(10)._on_completed(ask)
    assert delivered.wait(60) and seen == [11]
    release.set()
    assert [f.result(60) for f in [work.remote(i).future() for i in range(100)]] == list(range(100))
    eventually(lambda: sorted(seen) == [0, 1, 2, 11])


def test_the_end_with_callbacks_that_wait(run_script):
    done = run_script("""
        import libray, threading
        libray.init(num_cpus=1)

        @libray.remote
        def work(x):
            return x

        @libray.remote
        def never():
            threading.Event().wait()

        entered, release = threading.Semaphore(0), threading.Event()
        def wait(done):
            entered.release()
            release.wait()
            print("value", done.result())

        futures = [work.remote(i).future() for i in range(2)]
        for f in futures: f.add_done_callback(wait)
        for _ in range(2): entered.acquire()
        left = never.remote().future()
        libray.shutdown()
        print(type(left.exception(60)).__name__)
        release.set()
        for f in futures: f.result()
        libray.init(num_cpus=1)
        print(work.remote(3).future().result(60))
        """)
    lines = done.stdout.splitlines()
    assert "TaskCancelledError" in lines and "3" in lines, done.stdout
