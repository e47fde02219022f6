"""The memory monitor ends whoever costs least, and says so; the others and the node go on."""

import os
import time

import pytest

import libray
from libray.exceptions import ActorDiedError, OutOfMemoryError

MB = 1 << 20


@pytest.fixture
def small(monkeypatch):
    """A node whose workers together may hold 400 MB."""
    monkeypatch.setenv("LIBRAY_MEMORY_LIMIT_BYTES", str(400 * MB))
    monkeypatch.setenv("LIBRAY_MEMORY_MONITOR_REFRESH_MS", "20")
    libray.init(num_cpus=2)
    yield
    libray.shutdown()


def fill(mb):
    block = bytearray(mb * MB)
    for i in range(0, len(block), 4096):
        block[i] = 1
    return block


@libray.remote(max_retries=0)
def greedy(mb):
    block = fill(mb)
    time.sleep(60)
    return len(block)


@libray.remote(max_retries=0)
def modest(path, filled=None):
    block = fill(50)
    if filled:
        open(filled, "w").close()
    while not os.path.exists(path):
        time.sleep(0.01)
    return len(block)


@libray.remote
class Keeper:
    def keep(self, mb):
        self.block = fill(mb)
        return os.getpid()

    def size(self):
        return len(self.block)


def test_the_error_names_the_task_and_its_memory(small):
    with pytest.raises(OutOfMemoryError, match=r"held \d{3} MiB.*greedy"):
        libray.get(greedy.remote(600), timeout=60)
    assert libray.get(modest.remote("/"), timeout=60) == 50 * MB


def test_older_and_smaller_work_goes_on(small, tmp_path, eventually):
    keeper = Keeper.options(max_restarts=0).remote()
    pid = libray.get(keeper.keep.remote(150), timeout=60)
    path = str(tmp_path / "done")
    older = modest.remote(path, str(tmp_path / "filled"))
    eventually((tmp_path / "filled").exists)
    with pytest.raises(OutOfMemoryError):
        libray.get(greedy.remote(400), timeout=60)
    open(path, "w").close()
    assert libray.get(older, timeout=60) == 50 * MB
    assert libray.get(keeper.keep.remote(1), timeout=60) == pid


def test_a_retry_finds_room(small, tmp_path):
    path = str(tmp_path / "first")

    @libray.remote(max_retries=1)
    def learns():
        if not os.path.exists(path):
            open(path, "w").close()
            fill(600)
            time.sleep(60)
        return "second"

    assert libray.get(learns.remote(), timeout=60) == "second"


def test_an_actor_alone_is_ended_too(small, eventually):
    keeper = Keeper.remote()
    with pytest.raises(ActorDiedError, match="short of memory"):
        libray.get(keeper.keep.remote(600), timeout=60)
        eventually(lambda: libray.get(keeper.size.remote(), timeout=60) == 0)  # it keeps all until it is ended


def test_without_a_monitor_nobody_is_ended(monkeypatch):
    monkeypatch.setenv("LIBRAY_MEMORY_LIMIT_BYTES", str(10 * MB))
    monkeypatch.setenv("LIBRAY_MEMORY_MONITOR_REFRESH_MS", "0")
    libray.init(num_cpus=1)
    try:
        assert libray.get(modest.remote("/"), timeout=60) == 50 * MB
    finally:
        libray.shutdown()
