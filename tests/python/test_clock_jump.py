"""A wall clock that jumps by an hour, forward and back: nothing hangs, nobody is declared dead, no time is
negative."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

PROGRAM = """
import json, mmap, os, signal, struct, sys, time
import libray
from libray.exceptions import GetTimeoutError

offset = mmap.mmap(os.open(os.environ["CLOCK_SHIM"], os.O_RDWR), 8)

def jump(hours):
    offset[:8] = struct.pack("=q", int(hours * 3600e9))

@libray.remote
def f(x, seconds=0.0, mark=None):
    if mark:
        open(mark, "w").close()
    time.sleep(seconds)
    return x

@libray.remote(max_restarts=1)
class Actor:
    def __init__(self):
        self.n = 0
    def add(self):
        self.n += 1
        return self.n
    def pid(self):
        return os.getpid()

def work(actor, n):
    "Everything that has a timer somewhere."
    assert libray.get([f.remote(i) for i in range(50)], timeout=30) == list(range(50))
    assert libray.get(actor.add.remote(), timeout=30) == n
    assert len(libray.get(f.remote(bytes(1 << 20)), timeout=30)) == 1 << 20
    ready, rest = libray.wait([f.remote(1), f.remote(2, 0.3)], num_returns=2, timeout=30)
    assert len(ready) == 2
    began = time.monotonic()
    try:
        libray.get(f.remote(1, 2), timeout=0.2)
        raise SystemExit("no timeout")
    except GetTimeoutError:
        assert 0.1 < time.monotonic() - began < 1.5
    other = Actor.options(name=f"a{n}").remote()      # a request to the control store
    assert libray.get(other.add.remote(), timeout=30) == 1
    libray.kill(other)

wall = time.time()
context = libray.init(num_cpus=2)
actor = Actor.remote()
work(actor, 1)
for n, hours in enumerate([1, -1, 0, 5], 2):
    mark = os.path.abspath(f"runs-{n}")
    running = f.remote("across the jump", 1, mark)
    while not os.path.exists(mark):
        time.sleep(0.01)
    jump(hours)
    assert abs(time.time() - wall - hours * 3600) < 300, "the shim does not work"
    assert libray.get(running, timeout=30) == "across the jump"
    time.sleep(1)  # timers that the jump upset would have run by then
    work(actor, n)

# A shard that is restarted is reached again: reconnecting has its timers, too.
jump(-2)
with open(context["session_dir"] + "/session.json") as file:
    for shard in json.load(file)["gcs_pids"]:
        os.kill(shard, signal.SIGKILL)
work(actor, n + 1)
from libray.api.timeline import trace_events
events = trace_events()
assert events
for e in events:
    assert 0 <= e["dur"] < 60e6, e
began = time.monotonic()
libray.shutdown()
assert time.monotonic() - began < 15
print("done")
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler for the shim")
    out = tmp_path_factory.mktemp("shim") / "clock_shim.so"
    source = Path(__file__).with_name("clock_shim.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", out, source], check=True)
    return out


def test_the_clock_jumps(shim, run_script, tmp_path):
    offset = tmp_path / "offset"
    offset.write_bytes(struct.pack("=q", 0))
    done = run_script(PROGRAM, timeout=240, env={"LD_PRELOAD": str(shim), "CLOCK_SHIM": str(offset)})
    assert "done" in done.stdout
    assert "Traceback" not in done.stderr
