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


def test_tasks_that_no_worker_tells_of_have_an_end(fresh):
    """They never ran, or their worker died: the tables know all the same how they ended."""

    fresh(num_cpus=1)

    @libray.remote(max_retries=0)
    def fails():
        raise ValueError("no")

    @libray.remote(max_retries=0)
    def needs(x):
        return x

    @libray.remote(max_retries=1)
    def crashes():
        os._exit(1)

    @libray.remote
    def waits():
        return 1

    @libray.remote(num_cpus=0)
    class Ends:
        def end(self):
            os._exit(1)

        def later(self):
            return 1

    impossible = waits.options(resources={"nothing": 1}).remote()
    libray.cancel(impossible)
    actor = Ends.remote()
    refs = [needs.remote(fails.remote()), crashes.remote(), impossible, actor.end.remote(), actor.later.remote()]
    for ref in refs:
        with pytest.raises(libray.exceptions.RayError):
            libray.get(ref, timeout=60)
    want = {"needs": "FAILED", "crashes": "FAILED", "waits": "CANCELLED", "end": "FAILED", "later": "FAILED"}
    for name, state in want.items():
        testing.wait_until(lambda: [row["state"] for row in testing.tasks(name)] == [state])
