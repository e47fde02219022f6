"""User code that breaks its own worker from inside: the caller gets an answer, the node goes on."""

import os
import subprocess
import sys
import time

import pytest

import libray
from libray.exceptions import RayError
from conftest import Counter as Keeper


@pytest.fixture
def node():
    libray.init(num_cpus=2)
    yield
    libray.shutdown()


@libray.remote
def echo(value):
    return value


@libray.remote
def nothing():
    return "nothing"


@libray.remote(max_retries=0)
def overwrite(name, byte):
    """Fills every writable mapping of that name with a byte."""
    import ctypes

    filled = 0
    with open("/proc/self/maps") as f:
        for line in f.readlines():
            if name in line and " rw" in line:
                begin, end = (int(x, 16) for x in line.split()[0].split("-"))
                ctypes.memset(begin, byte, end - begin)
                filled += 1
    return filled


@libray.remote(max_retries=0)
def close_everything():
    os.closerange(3, 65536)


@libray.remote(max_retries=0)
def close_everything_and_go_on():
    os.closerange(3, 65536)
    held = [open("/dev/null", "wb") for _ in range(100)]  # the lowest numbers are somebody else's now
    return libray.get([echo.remote(len(held)), echo.remote(bytes(2 << 20))])


def answered(ref):
    """Its value or the error that it fails with: anything but silence."""
    try:
        return libray.get(ref, timeout=30)
    except RayError as e:
        assert not isinstance(e, TimeoutError), "neither a value nor an error came"
        return e


# The rings shared with clients; those shared with the daemon (control, lineage); the page of everybody's wake-up words;
# what the object store shares with this process.
@pytest.mark.parametrize("byte", [0x5A, 0x00, 0xFF])
@pytest.mark.parametrize("name", ["ray-link", "ray-channel", "ray-node", "libray-store-control"])
def test_shared_memory_full_of_garbage(node, name, byte):
    for _ in range(3):
        answered(overwrite.remote(name, byte))
        assert libray.get([echo.remote(i) for i in range(20)], timeout=30) == list(range(20))
    assert len(libray.get(echo.remote(bytes(2 << 20)), timeout=30)) == 2 << 20


@libray.remote(max_retries=0)
def overwrite_when(path, byte):
    while not os.path.exists(path):
        time.sleep(0.001)
    return overwrite._function("ray-link", byte)


@pytest.mark.parametrize("byte", [0x5A, 0x00, 0xFF])
def test_tasks_that_wait_in_memory_that_is_overwritten(node, tmp_path, byte):
    """What stands in the ring behind the task that spoils it runs as it was submitted, or fails: never as something else."""
    values = failed = 0
    for round in range(6):
        path = tmp_path / f"go-{round}"
        spoilers = [overwrite_when.remote(str(path), byte) for _ in range(2)]
        refs = [echo.remote(("value", i)) for i in range(40)] + [nothing.remote() for _ in range(10)]
        path.touch()
        for ref in spoilers:
            answered(ref)
        for i, ref in enumerate(refs):
            got = answered(ref)
            if isinstance(got, RayError):
                assert i < 40 and "has overwritten the memory" in str(got), got
                failed += 1
            else:
                assert got == (("value", i) if i < 40 else "nothing")
                values += 1
    assert values > 60 and values + failed == 300


class Ring:
    """The task ring of the one link of this worker (wire/protocol.h, LinkHeader)."""

    TAIL, HEAD, DATA, SIZE = 64, 128, 4096, 512 << 10

    def __init__(self):
        with open("/proc/self/maps") as f:
            places = [line.split()[0] for line in f if "ray-link" in line and " rw" in line]
        self.base = int(places[0].split("-")[0], 16)

    def word(self, at, kind="Q"):
        import ctypes
        import struct

        return struct.unpack(kind, ctypes.string_at(self.base + at, struct.calcsize(kind)))[0]

    def records(self):
        """Where the records lie that its worker has not given back."""
        at, found = self.word(self.HEAD), []
        while at < self.word(self.TAIL):
            place = self.DATA + at % self.SIZE
            size, type_ = self.word(place, "I"), self.word(place + 4, "H")
            if type_:
                found.append(place)
            at += (size + 7) // 8 * 8
        return found


@libray.remote(max_concurrency=2)
class Threaded:
    def until(self, path):
        while not os.path.exists(path):
            time.sleep(0.001)
        return "until"

    def spoil(self):
        """Makes nonsense of the call that waits behind this one and another."""
        import ctypes

        ring = Ring()
        while len(ring.records()) < 3:
            time.sleep(0.001)
        ctypes.memset(ring.base + ring.records()[2], 3, 4)
        return "spoilt"

    def echo(self, value):
        return value


def test_calls_behind_garbage_in_an_actors_ring(node, tmp_path):
    """What runs is answered, and what had not begun goes through another ring."""
    actor = Threaded.remote()
    assert libray.get(actor.echo.remote(0), timeout=30) == 0
    until, spoilt = actor.until.remote(str(tmp_path / "go")), actor.spoil.remote()
    behind = [actor.echo.remote(i) for i in range(20)]
    assert answered(spoilt) == "spoilt"
    (tmp_path / "go").touch()
    assert answered(until) == "until"
    assert [answered(ref) for ref in behind] == list(range(20))
    assert answered(actor.echo.remote("more")) == "more"


# A driver of the same node, and what it does to its memory. Its parent is another driver, which is to notice nothing.
SPOILT_DRIVER = """
import ctypes, os, sys
import libray
address, name, byte = sys.argv[1], sys.argv[2], int(sys.argv[3])
libray.init(address)

@libray.remote(max_retries=0)
def echo(value):
    return value

@libray.remote
class Actor:
    def echo(self, value):
        return value

actor = Actor.remote()
assert libray.get([echo.remote(i) for i in range(20)], timeout=30) == list(range(20))
assert len(libray.get(actor.echo.remote(bytes(2 << 20)), timeout=30)) == 2 << 20
waiting = [echo.remote(i) for i in range(100)]
with open("/proc/self/maps") as f:
    places = [line.split()[0].split("-") for line in f if name in line and " rw" in line]
print("fills", len(places), flush=True)  # the runtime may give up the second when the first is broken, and this dies
for place in places:
    begin, end = (int(x, 16) for x in place)
    ctypes.memset(begin, byte, end - begin)
try:
    libray.get(waiting, timeout=2)
    libray.get([echo.remote(i) for i in range(20)], timeout=2)
    libray.get(actor.echo.remote(bytes(2 << 20)), timeout=2)
except libray.exceptions.RayError:
    pass
os._exit(0)
"""


@pytest.mark.parametrize("byte", [0x5A, 0x00, 0xFF])
@pytest.mark.parametrize("name", ["ray-link", "ray-channel", "ray-node", "libray-store-control"])
def test_a_driver_that_spoils_its_memory(tmp_path, eventually, name, byte):
    """It fails as it may; the other driver's tasks and actor go on, and what it held comes back."""
    context = libray.init(num_cpus=2)
    try:
        keeper = Keeper.options(num_cpus=0).remote()
        assert libray.get(keeper.add.remote(), timeout=30) == 1
        program = tmp_path / "driver.py"
        program.write_text(SPOILT_DRIVER)
        command = [sys.executable, str(program), context["session_dir"], name, str(byte)]
        other = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        n = 1
        while other.poll() is None:
            n += 1
            assert libray.get(keeper.add.remote(), timeout=30) == n
            assert libray.get([echo.remote(i) for i in range(20)], timeout=30) == list(range(20))
        out, err = other.communicate(timeout=60)
        assert "fills" in out and "fills 0" not in out, err
        assert len(libray.get(echo.remote(bytes(2 << 20)), timeout=30)) == 2 << 20
        eventually(lambda: libray.available_resources().get("CPU") == 2)
    finally:
        libray.shutdown()


def test_no_descriptors_left(node):
    for _ in range(3):
        answered(close_everything.remote())
        assert libray.get([echo.remote(i) for i in range(20)], timeout=30) == list(range(20))


def test_a_nested_call_without_descriptors(node):
    """The worker can no longer wake the daemon as others do: nobody may rely on it in vain."""
    for _ in range(3):
        answered(close_everything_and_go_on.remote())
        began = time.monotonic()
        assert libray.get([echo.remote(i) for i in range(20)], timeout=30) == list(range(20))
        assert time.monotonic() - began < 15
