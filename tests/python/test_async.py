"""asyncio and concurrent futures."""

import asyncio
import concurrent.futures
import os
import threading
import time

import pytest

import libray

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
    from libray import _async

    async def main():
        for _ in range(20):
            await asyncio.gather(*[work.options(num_cpus=0.01).remote(i) for i in range(20)])
        return _async.queue_of(asyncio.get_running_loop()).queue.pending()

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
