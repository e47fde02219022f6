"""A store that is full of values in use: calls with a time limit keep it, and what could not be done meanwhile
is done once there is room."""

import asyncio
import os
import time

import numpy as np
import pytest

import libray
from libray.exceptions import GetTimeoutError, ObjectStoreFullError

MB = 1 << 20


@pytest.fixture
def full():
    """full(): fills the store of 32 MB with values that stay in use until the list that it gives is cleared."""
    libray.init(num_cpus=2, object_store_memory=32 * MB)

    def fill():
        refs = [libray.put(np.full(MB - 4096, i, np.uint8)) for i in range(40)]
        return [libray.get(ref, timeout=60) for ref in refs], refs  # the last of them are copies

    yield fill
    libray.shutdown()


@libray.remote(num_cpus=0)
class Maker:
    def wait(self, path):
        while not os.path.exists(path):
            time.sleep(0.005)

    def make(self, n):
        return b"x" * n


@libray.remote
class Keeper:
    def keep(self, boxes):
        self.boxes = boxes

    def sizes(self):
        return [len(v) for v in libray.get(self.boxes)]


def test_a_value_on_disk(full):
    on_disk = [libray.put(np.full(MB, i, np.uint8)) for i in range(40)]
    in_use, refs = full()
    for ref in on_disk[:2]:
        with pytest.raises((GetTimeoutError, ObjectStoreFullError)):
            libray.get(ref, timeout=0)
    in_use.clear()
    assert [int(v[0]) for v in (libray.get(r) for r in on_disk)] == list(range(40))


def test_many_values_on_disk_that_just_fit(full):
    """Each slice of a long wait begins where the last one ended."""
    on_disk = [libray.put(np.full(MB, i, np.uint8)) for i in range(60)]
    for _ in range(3):
        assert [int(v[0]) for v in libray.get(on_disk[:24], timeout=60)] == list(range(24))
        assert [int(v[0]) for v in libray.get(on_disk[30:54], timeout=60)] == list(range(30, 54))


def test_results_that_others_wait_for(full, tmp_path):
    """Whoever learns of them puts them into the store, but not in the time of a call that waits for other things."""
    gate, never = tmp_path / "gate", tmp_path / "never"
    n = 1500
    keeper, maker, other_maker = Keeper.remote(), Maker.remote(), Maker.remote()
    maker.wait.remote(str(gate))
    results = [maker.make.remote(8000) for _ in range(n)]
    libray.get(keeper.keep.remote(results))
    other = other_maker.wait.remote(str(never))
    in_use, refs = full()
    gate.touch()
    began = time.monotonic()
    libray.wait(results, num_returns=n, timeout=60)
    for _ in range(3):
        libray.wait([other], timeout=0.2)
    assert time.monotonic() - began < 4.5
    in_use.clear()
    assert libray.get(keeper.sizes.remote(), timeout=60) == [8000] * n
    never.touch()
    libray.get(other)


def values_of(arrays):
    return [(int(a[0]), int(a[-1]), len(a), a.flags.writeable) for a in arrays]


def test_more_than_the_store_holds(fresh):
    """What does not fit beside the values in use is read into this process's own memory."""
    fresh(num_cpus=2, object_store_memory=32 * MB)
    expected = [(i, i, 2 * MB + i, False) for i in range(30)]

    @libray.remote
    def make(i):
        return np.full(2 * MB + i, i, np.uint8)

    @libray.remote
    def read(boxed):
        return values_of(libray.get(boxed))

    async def gather(refs):
        return await asyncio.gather(*refs)

    refs = [libray.put(np.full(2 * MB + i, i, np.uint8)) for i in range(30)]
    assert values_of(libray.get(refs)) == expected
    assert values_of([libray.get(r) for r in refs]) == expected
    assert values_of(libray.get(refs, timeout=60)) == expected
    assert values_of([libray.get(r, timeout=60) for r in refs]) == expected
    assert libray.get(read.remote(refs), timeout=60) == expected
    assert values_of(asyncio.run(asyncio.wait_for(gather(refs), 60))) == expected
    assert values_of([f.result(60) for f in [r.future() for r in refs]]) == expected
    del refs
    assert values_of(libray.get([make.remote(i) for i in range(30)])) == expected


def test_small_values_beside_a_full_store(fresh):
    fresh(num_cpus=1, object_store_memory=16 * MB)
    small = [libray.put(np.full(20_000 + i, i, np.uint8)) for i in range(200)]
    large = [libray.put(np.full(MB, i, np.uint8)) for i in range(30)]
    in_use = libray.get(large)
    assert values_of(libray.get(small)) == [(i, i, 20_000 + i, False) for i in range(200)]
    assert values_of(in_use) == [(i, i, MB, False) for i in range(30)]
    copies = libray.get(small)
    del small, large, in_use
    assert values_of(copies) == [(i, i, 20_000 + i, False) for i in range(200)]


def test_a_timeout_says_that_the_store_is_full(full):
    in_use, refs = full()

    @libray.remote(max_retries=0)
    def make():
        return np.zeros(2 * MB, np.uint8)

    with pytest.raises(GetTimeoutError, match=r"object store is full: .* that this process holds take [123]\d\.\d MiB"):
        libray.get(make.remote(), timeout=3)
