"""Ctrl-C while a put waits for room in a full store."""

import os
import signal
import threading
import time

import pytest

import libray


@pytest.fixture
def full_store():
    """One that may spill next to nothing."""
    libray.init(num_cpus=1, object_store_memory=32 << 20, spill_bytes=1 << 20)
    yield
    libray.shutdown()


def interrupt_after(seconds):
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def fill(size):
    """Puts until one does not return."""
    kept = []
    value = os.urandom(size)
    while True:
        kept.append(libray.put(value))


@pytest.mark.parametrize("size", [4 << 20, 12 << 10], ids=["large", "small"])
def test_a_waiting_put_is_interrupted(full_store, size):
    timer = interrupt_after(4)
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            fill(size)
    finally:
        timer.cancel()
    assert time.monotonic() - began < 7
    # The store goes on.
    assert libray.get(libray.put(b"x" * 1000)) == b"x" * 1000
