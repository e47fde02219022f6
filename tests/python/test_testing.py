"""`libray.testing`: its answers follow what programs do."""

import os
import time

import libray
import pytest
from libray import testing


@libray.remote
def nap(seconds):
    time.sleep(seconds)
    return os.getpid()


@libray.remote
class Counter:
    def add(self):
        return os.getpid()


def test_objects(cluster):
    slow = nap.remote(0.5)
    assert not testing.object_exists(slow)
    libray.get(slow)
    assert testing.object_exists(slow)
    before = testing.store_bytes()
    large = libray.put(bytes(8 << 20))
    assert testing.wait_until(lambda: testing.in_store(large))
    assert testing.store_bytes() - before >= 8 << 20
    assert not testing.in_store(libray.put(1))
    same = large
    assert testing.ref_count(large) >= 1
    del large, same
    testing.wait_until(lambda: testing.store_bytes() - before < 8 << 20)


def test_actors_workers_and_tasks(cluster):
    counter = Counter.remote()
    pid = libray.get(counter.add.remote())
    testing.wait_until(lambda: testing.actor_state(counter) == "ALIVE")
    row = next(w for w in testing.workers() if w["pid"] == pid)
    assert row["kind"] == "worker" and row["actor"] == counter._actor_id_hex
    assert any(w["pid"] == os.getpid() and w["kind"] == "driver" for w in testing.workers())
    libray.kill(counter)
    testing.wait_until(lambda: testing.actor_state(counter) == "DEAD")
    testing.wait_until(lambda: all(w["pid"] != pid for w in testing.workers()))
    libray.get([nap.remote(0) for _ in range(3)])
    finished = testing.wait_until(lambda: testing.tasks("nap", "FINISHED"))
    assert all(row["name"].endswith(".nap") for row in finished)
    assert testing.wait_until(lambda: testing.tasks("Counter.add"))
    assert testing.tasks("no_such_function") == []
    with pytest.raises(AssertionError, match="did not become true"):
        testing.wait_until(lambda: False, seconds=0.05)
