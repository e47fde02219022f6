"""User code that breaks its own worker from inside: the caller gets an answer, the node goes on."""

import os

import pytest

import libray
from libray.exceptions import RayError


@pytest.fixture
def node():
    libray.init(num_cpus=2)
    yield
    libray.shutdown()


@libray.remote
def echo(value):
    return value


@libray.remote(max_retries=0)
def overwrite(name):
    """Fills every writable mapping of that name with garbage."""
    import ctypes

    filled = 0
    with open("/proc/self/maps") as f:
        for line in f.readlines():
            if name in line and " rw" in line:
                begin, end = (int(x, 16) for x in line.split()[0].split("-"))
                ctypes.memset(begin, 0x5A, end - begin)
                filled += 1
    return filled


@libray.remote(max_retries=0)
def close_everything():
    os.closerange(3, 4096)


def answered(ref):
    """Its value or the error that it fails with: anything but silence."""
    try:
        return libray.get(ref, timeout=30)
    except RayError as e:
        assert not isinstance(e, TimeoutError), "neither a value nor an error came"
        return e


@pytest.mark.parametrize("name", ["ray-link", "ray-channel"])
def test_rings_full_of_garbage(node, name):
    for _ in range(3):
        answered(overwrite.remote(name))
        assert libray.get([echo.remote(i) for i in range(20)], timeout=30) == list(range(20))
    assert len(libray.get(echo.remote(bytes(2 << 20)), timeout=30)) == 2 << 20


def test_no_descriptors_left(node):
    for _ in range(3):
        answered(close_everything.remote())
        assert libray.get([echo.remote(i) for i in range(20)], timeout=30) == list(range(20))
