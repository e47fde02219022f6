"""A store that is full of values in use: calls with a time limit keep it, and what could not be done meanwhile
is done once there is room."""

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
        refs, values = [libray.put(np.full(MB - 4096, i, np.uint8)) for i in range(40)], []
        for ref in refs:
            try:
                values.append(libray.get(ref, timeout=0.3))
            except (GetTimeoutError, ObjectStoreFullError):
                return values, refs
        raise AssertionError("it all fits")

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
    began = time.monotonic()
    for ref in on_disk[:2]:
        with pytest.raises((GetTimeoutError, ObjectStoreFullError)):
            libray.get(ref, timeout=0)
        with pytest.raises((GetTimeoutError, ObjectStoreFullError)):
            libray.get([ref, refs[0]], timeout=0.2)
    assert time.monotonic() - began < 4
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
