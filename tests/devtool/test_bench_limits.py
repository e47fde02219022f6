"""bench/python/bare_ring.cc, the yardstick of Python's rows: each record is one call of the function at the far end, and a far
end that is gone is told. How long it takes is nobody's business here."""
import mmap
import os
import signal
import struct
import sys
from pathlib import Path

import pytest

BUILD = Path(os.environ.get("LIBRAY_BUILD", Path(__file__).resolve().parents[2] / "build" / "release"))
sys.path.insert(0, str(BUILD / "bench"))
bare_ring = pytest.importorskip("bare_ring", reason="the benchmarks are not built")


def with_far_end(function, use):
    """What `use(memory, child)` returns while a child serves the function."""
    memory = mmap.mmap(-1, bare_ring.SIZE)
    child = os.fork()
    if child == 0:
        try:
            bare_ring.serve(memory, function)
        except BaseException:
            pass
        os._exit(1)
    try:
        return use(memory, child)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_one_call_for_each_record():
    calls = mmap.mmap(-1, 8)

    def count():
        struct.pack_into("q", calls, 0, struct.unpack_from("q", calls)[0] + 1)
        return b"ok"

    def use(memory, child):
        return bare_ring.drive(memory, child, 3, 1000) + bare_ring.drive(memory, child, 2, 1)

    took = with_far_end(count, use)
    assert struct.unpack_from("q", calls) == (3002,)
    assert len(took) == 5 and all(ns > 0 for ns in took)


@pytest.mark.parametrize("result", ["text", b"x" * 49, None])
def test_a_far_end_that_cannot_answer_is_told(result):
    with pytest.raises(RuntimeError, match="far end"):
        with_far_end(lambda: result, lambda memory, child: bare_ring.drive(memory, child, 1, 1))


def test_memory_that_cannot_hold_the_rings_is_refused():
    with pytest.raises(ValueError):
        bare_ring.drive(mmap.mmap(-1, bare_ring.SIZE // 2), os.getpid(), 1, 1)
