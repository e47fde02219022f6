"""Generator tasks: order, back-pressure, errors, cancellation, asyncio."""

import asyncio
import os
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
    # The producer makes three items and may be inside the yield of the fourth.
    eventually(lambda: len(os.listdir(tmp_path)) >= 3)
    for _ in range(20):
        assert len(os.listdir(tmp_path)) <= 4
        time.sleep(0.005)
    assert [libray.get(r) for r in stream] == list(range(10))
    with pytest.raises(ValueError):
        produce.options(_generator_backpressure_num_objects=0)


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
    with pytest.raises(TypeError, match="cannot be pickled"):
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
