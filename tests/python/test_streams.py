"""Generator tasks: order, back-pressure, errors, cancellation, asyncio."""

import asyncio
import concurrent.futures
import os
import sys
import threading
import time

import pytest

import libray
from libray import exceptions as exc

pytestmark = pytest.mark.usefixtures("cluster")


@libray.remote
def count(n):
    for i in range(n):
        yield i


def test_items_in_order():
    stream = count.remote(500)
    assert isinstance(stream, libray.ObjectRefGenerator)
    assert [libray.get(r) for r in stream] == list(range(500))
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(stream)
    assert list(count.remote(0)) == []


def test_large_items():
    import numpy as np

    @libray.remote
    def arrays(n):
        for i in range(n):
            yield np.full(50_000, i)

    assert [int(libray.get(r)[7]) for r in arrays.remote(20)] == list(range(20))


def test_error_is_the_last_item():
    @libray.remote
    def broken():
        yield 1
        raise ValueError("in the middle")

    stream = broken.remote()
    assert libray.get(next(stream)) == 1
    with pytest.raises(ValueError, match="in the middle"):
        libray.get(next(stream))
    with pytest.raises(StopIteration):
        next(stream)


def test_back_pressure(tmp_path, eventually):
    @libray.remote(_generator_backpressure_num_objects=3)
    def produce(folder):
        for i in range(10):
            open(os.path.join(folder, str(i)), "w").close()
            yield i

    stream = produce.remote(str(tmp_path))
    eventually(lambda: len(os.listdir(tmp_path)) >= 3)
    for _ in range(20):  # three items exist that nobody took: the generator rests
        assert len(os.listdir(tmp_path)) == 3
        time.sleep(0.005)
    assert [libray.get(r) for r in stream] == list(range(10))
    with pytest.raises(ValueError):
        produce.options(_generator_backpressure_num_objects=0)


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_back_pressure_of_a_whole_actor(tmp_path, eventually, kind):
    made = lambda: len(os.listdir(tmp_path))

    class Threads:
        def produce(self, tag, n=20, fails=False):
            for i in range(n):
                (tmp_path / f"{tag}-{i}").touch()
                yield i
            if fails:
                raise RuntimeError("in the middle")

    class Asyncio:
        async def produce(self, tag, n=20, fails=False):
            for item in Threads().produce(tag, n, fails):
                yield item

    options = {"max_concurrency": 3, "_actor_generator_backpressure_num_objects": 6}
    actor = libray.remote(Threads if kind == "threads" else Asyncio).options(**options).remote()

    def rests_at(n):
        eventually(lambda: made() >= n)
        for _ in range(20):
            assert made() == n
            time.sleep(0.005)

    first, second = actor.produce.remote("a"), actor.produce.remote("b")
    rests_at(6)
    assert libray.get(next(first)) == 0
    rests_at(7)  # one for one, whichever of the two makes it
    capped = actor.produce.options(_generator_backpressure_num_objects=2).remote("c")
    libray.cancel(second)  # what it had made counts no more
    assert [libray.get(r) for r in first] == list(range(1, 20))
    eventually(lambda: (tmp_path / "c-1").exists())
    assert not (tmp_path / "c-2").exists()  # its own limit is the smaller one
    with pytest.raises(exc.TaskCancelledError):
        for item in second:
            libray.get(item)
    assert [libray.get(r) for r in capped] == list(range(20))
    failed = actor.produce.remote("d", 5, True)  # ended: others have room again, though nobody took its items
    assert [libray.get(r) for r in actor.produce.remote("e", 50)] == list(range(50))
    *items, last = failed
    assert len(items) == 5
    with pytest.raises(RuntimeError, match="in the middle"):
        libray.get(last)
    with pytest.raises(ValueError, match="_actor_generator_backpressure_num_objects must be > 0"):
        libray.remote(_actor_generator_backpressure_num_objects=0)(Threads)


def test_dropping_the_generator_stops_the_producer(tmp_path, eventually):
    @libray.remote
    def forever(path):
        try:
            i = 0
            while True:
                yield i
                i += 1
        finally:
            open(path, "w").close()

    stream = forever.remote(str(tmp_path / "ended"))
    assert libray.get(next(stream)) == 0
    del stream
    eventually(lambda: (tmp_path / "ended").exists())


def test_cancel():
    @libray.remote
    def slow():
        yield 1
        time.sleep(60)
        yield 2

    stream = slow.remote()
    assert libray.get(next(stream)) == 1
    libray.cancel(stream)
    with pytest.raises(exc.TaskCancelledError):
        for ref in stream:
            libray.get(ref)


def test_async_iteration():
    async def main():
        got = []
        async for ref in count.remote(50):
            got.append(await ref)
        return got

    assert asyncio.run(main()) == list(range(50))


def test_wait_over_generators(tmp_path):
    @libray.remote
    def gated(path):
        while not os.path.exists(path):
            time.sleep(0.005)
        yield 1

    slow, fast = gated.remote(str(tmp_path / "go")), count.remote(3)
    ref = libray.put(1)
    ready, rest = libray.wait([slow, fast, ref], num_returns=2)
    assert ready == [fast, ref] and rest == [slow]
    assert libray.wait([slow], timeout=0.02) == ([], [slow])
    (tmp_path / "go").touch()
    assert libray.wait([slow]) == ([slow], [])
    assert libray.get(next(slow)) == 1
    assert libray.wait([slow]) == ([slow], [])  # at its end: ready for ever


def test_streams_cannot_be_passed_on():
    with pytest.raises(TypeError, match="cannot pickle"):
        count.remote(count.remote(3))


def test_many_streams_at_once():
    streams = [count.remote(20) for _ in range(30)]
    assert [[libray.get(r) for r in s] for s in streams] == [list(range(20))] * 30


def test_fixed_num_returns_of_a_generator():
    @libray.remote(num_returns=3)
    def three():
        yield 1
        yield 2
        yield 3

    assert libray.get(three.remote()) == [1, 2, 3]


def test_generators_with_a_fixed_number_of_returns():
    @libray.remote(num_returns=3)
    def items(n, broken=False):
        for i in range(n):
            yield i
        if broken:
            raise KeyError("after")

    assert libray.get(items.remote(3)) == [0, 1, 2]
    assert libray.get(items.remote(9)) == [0, 1, 2]  # more than that is dropped
    a, b, c = items.remote(2)
    assert libray.get([a, b]) == [0, 1]
    with pytest.raises(ValueError, match="returned 2 objects, but num_returns=3"):
        libray.get(c)
    a, b, c = items.remote(1, broken=True)
    assert libray.get(a) == 0
    for late in (b, c):
        with pytest.raises(KeyError):
            libray.get(late)
    assert libray.get(items.options(num_returns=1).remote(5)) == 0
    with pytest.raises(ValueError):
        libray.get(items.options(num_returns=1).remote(0))


@pytest.mark.parametrize("returns", [3, "dynamic"])
def test_a_cancelled_generator_is_cancelled_as_a_whole(tmp_path, eventually, returns):
    @libray.remote(num_returns=returns, max_retries=0)
    def items(path):
        yield 0
        open(path, "w").close()
        time.sleep(60)
        yield 1
        yield 2

    made = items.remote(str(tmp_path / "begun"))
    refs = made if returns == 3 else [made]
    eventually((tmp_path / "begun").exists)
    libray.cancel(refs[0])
    for ref in refs:
        with pytest.raises(exc.TaskCancelledError):
            libray.get(ref, timeout=60)


@pytest.mark.parametrize("returns", [2, "dynamic"])
def test_a_generator_that_ends_its_process_crashes_as_a_whole(tmp_path, eventually, returns):
    from conftest import alive

    @libray.remote(num_returns=returns, max_retries=0)
    def items(path):
        yield 0
        with open(path, "w") as file:
            file.write(str(os.getpid()))
        sys.exit(3)

    path = tmp_path / "pid"
    made = items.remote(str(path))
    for ref in made if returns == 2 else [made]:
        with pytest.raises(exc.WorkerCrashedError):
            libray.get(ref, timeout=60)
    eventually(lambda: not alive(int(path.read_text())))


def test_fixed_returns_of_a_retried_generator(tmp_path):
    @libray.remote(num_returns=2, retry_exceptions=True)
    def items(path):
        yield 0
        if not os.path.exists(path):
            open(path, "w").close()
            raise KeyError("once")
        yield 1

    assert libray.get(items.remote(str(tmp_path / "failed"))) == [0, 1]


def test_dynamic_returns():
    @libray.remote(num_returns="dynamic")
    def items(n, broken=False):
        for i in range(n):
            yield [i]
        if broken:
            raise KeyError("after")

    ref = items.remote(4)
    assert isinstance(ref, libray.ObjectRef)
    made = libray.get(ref)
    assert isinstance(made, libray.DynamicObjectRefGenerator) and len(made) == 4
    assert libray.get(list(made)) == [[0], [1], [2], [3]]
    assert libray.get(list(libray.get(ref))[3]) == [3]  # as often as one likes

    @libray.remote
    def total(refs):
        return sum(libray.get(r)[0] for r in refs)

    assert libray.get(total.remote(ref)) == 6
    first, last = libray.get(items.remote(1, broken=True))
    assert libray.get(first) == [0]
    with pytest.raises(KeyError):
        libray.get(last)
    assert len(libray.get(items.remote(0))) == 0
    with pytest.raises(ValueError, match="generator"):
        libray.remote(num_returns="dynamic")(lambda: 1)


def test_what_a_generator_tells():
    stream = count.remote(2)
    assert libray.get(stream.completed()) is None
    assert stream.next_ready() and not stream.is_finished()
    assert libray.get([next(stream), next(stream)]) == [0, 1]
    assert stream.is_finished() and stream.next_ready()
    assert libray.get(stream) is stream

    @libray.remote
    def broken():
        yield 1
        raise ValueError("at the end")

    stream = broken.remote()
    with pytest.raises(ValueError, match="at the end"):
        libray.get(stream.completed())
    with pytest.raises(NotImplementedError):
        stream.send(1)


def test_a_look_for_the_end_takes_nothing_from_a_thread_that_waits():
    @libray.remote
    def slow():
        for i in range(3):
            time.sleep(0.1)
            yield i

    for _ in range(3):
        stream, got = slow.remote(), []
        thread = threading.Thread(target=lambda: got.extend(libray.get(r) for r in stream))
        thread.start()
        while thread.is_alive():
            stream.is_finished()
        assert got == [0, 1, 2] and stream.is_finished()


def test_the_end_of_a_generator_that_was_dropped_can_be_awaited(tmp_path):
    @libray.remote
    def work(path, n):
        for k in range(n):
            yield k
        path.write_text("done")

    for n, window in ((3, -1), (100, 2)):  # a producer that waited for room goes on
        path = tmp_path / f"{n}"
        end = work.options(_generator_backpressure_num_objects=window).remote(path, n).completed()
        assert libray.get(end, timeout=60) is None and path.read_text() == "done"
        stream = work.options(_generator_backpressure_num_objects=window).remote(tmp_path / f"{n} more", n)
        next(stream)
        end = stream.completed()
        del stream
        assert libray.get(end, timeout=60) is None


def test_retried_generator_gives_each_item_once(tmp_path):
    @libray.remote(max_retries=2)
    def fragile(path):
        for i in range(6):
            if i == 4 and not os.path.exists(path):
                open(path, "w").close()
                os._exit(1)
            yield i

    assert libray.get(list(fragile.remote(str(tmp_path / "died")))) == [0, 1, 2, 3, 4, 5]


def test_waiting_for_a_generator_takes_nothing_from_it(tmp_path, eventually):
    @libray.remote(_generator_backpressure_num_objects=1)
    def produce(folder):
        for i in range(3):
            open(os.path.join(folder, str(i)), "w").close()
            yield i

    stream = produce.remote(str(tmp_path))
    assert libray.wait([stream, libray.put(1)], num_returns=2, timeout=30)[1] == []
    assert stream.next_ready()
    assert os.listdir(tmp_path) == ["0"]
    assert libray.get(list(stream)) == [0, 1, 2]
    with pytest.raises(ValueError, match="unique"):
        libray.wait([stream, stream])


def test_no_limit_unless_one_is_given(tmp_path):
    @libray.remote
    def produce(path):
        yield from range(500)
        open(path, "w").close()

    stream = produce.remote(str(tmp_path / "end"))
    libray.get(stream.completed(), timeout=60)
    assert (tmp_path / "end").exists()
    assert libray.get(list(stream)) == list(range(500))


def test_a_cancelled_wait_loses_no_item(tmp_path):
    @libray.remote
    def gated(path):
        while not os.path.exists(path):
            time.sleep(0.005)
        yield from range(5)

    async def main():
        stream = gated.remote(str(tmp_path / "go"))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.__anext__(), 0.05)
        assert (await stream._next_async(timeout_s=0.05)).is_nil()
        (tmp_path / "go").touch()
        several = await asyncio.gather(*[stream.__anext__() for _ in range(3)])
        rest = [ref async for ref in stream]
        return sorted(await asyncio.gather(*several, *rest))

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]


def gated_numbers(n):
    @libray.remote
    def numbers(path):
        while not os.path.exists(path):
            time.sleep(0.005)
        yield from range(n)

    return numbers


@pytest.mark.parametrize("ask", ["next", "is_finished"])
def test_items_keep_their_order_around_a_wait_that_was_given_up(tmp_path, ask):
    async def main():
        stream = gated_numbers(6).remote(str(tmp_path / "go"))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.__anext__(), 0.05)
        (tmp_path / "go").touch()
        while not stream.next_ready():  # the loop is busy: nobody looks at its queue
            time.sleep(0.001)
        taken = [libray.get(next(stream)) for _ in range(2)] if ask == "next" else []
        assert not stream.is_finished()
        await asyncio.sleep(0.01)
        return taken + [await ref async for ref in stream]

    assert asyncio.run(main()) == list(range(6))


def test_wait_and_next_beside_a_wait_that_was_given_up(tmp_path):
    @libray.remote
    def one(go, end):
        while not os.path.exists(go):
            time.sleep(0.005)
        yield 1
        while not os.path.exists(end):
            time.sleep(0.005)

    async def main():
        stream = one.remote(str(tmp_path / "go"), str(tmp_path / "end"))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.__anext__(), 0.05)
        (tmp_path / "go").touch()
        ready, _ = libray.wait([stream], timeout=30)
        assert ready == [stream]
        assert libray.get(next(stream)) == 1
        (tmp_path / "end").touch()
        assert [ref async for ref in stream] == []

    asyncio.run(main())


def test_several_loops_take_from_one_generator(tmp_path):
    stream = gated_numbers(300).remote(str(tmp_path / "go"))

    async def consume():
        return [await ref async for ref in stream]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        parts = [pool.submit(asyncio.run, consume()) for _ in range(4)]
        (tmp_path / "go").touch()
        got = [part.result(timeout=60) for part in parts]
    assert all(part == sorted(part) for part in got)
    assert sorted(x for part in got for x in part) == list(range(300))


def test_an_actor_has_more_generators_at_once_than_any_table_has_slots(tmp_path):
    @libray.remote
    class Many:
        async def numbers(self, end):
            yield 1
            while not os.path.exists(end):
                await asyncio.sleep(0.01)
            yield 2

        async def ping(self):
            return "pong"

    many = Many.options(max_concurrency=200).remote()
    streams = [many.numbers.remote(str(tmp_path / "end")) for _ in range(150)]
    for stream in streams:
        assert libray.get(stream._next_sync(30)) == 1
    assert libray.get(many.ping.remote(), timeout=30) == "pong"
    (tmp_path / "end").touch()
    for stream in streams:
        assert [libray.get(ref) for ref in stream] == [2]
