"""Fixtures of the Python tests. One cluster serves a whole module unless a test asks for its
own."""

import fcntl
import gc
import json
import os
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import libray


@pytest.fixture(scope="session")
def wheel_build():
    """The folder in which wheels are built, one at a time: `with wheel_build() as folder`."""

    @contextmanager
    def locked():
        folder = Path(__file__).resolve().parents[2] / "build" / "wheel"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder.with_name("wheel.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder

    return locked


@pytest.fixture(scope="module")
def cluster():
    context = libray.init(num_cpus=4)
    yield context
    libray.shutdown()


@pytest.fixture
def fresh():
    """Starts clusters of its own: fresh(num_cpus=1)."""
    if libray.is_initialized():
        libray.shutdown()

    def start(**options):
        return libray.init(**options)

    yield start
    libray.shutdown()


@pytest.fixture
def run_script(tmp_path):
    """Runs a program in a new interpreter; gives (exit status, stdout, stderr)."""

    def run(source, *args, timeout=60, check=True, name="program.py", cwd=None, env=None):
        path = tmp_path / name
        path.write_text(textwrap.dedent(source))
        done = subprocess.run(
            [sys.executable, str(path), *args],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd or tmp_path,
            env={**os.environ, **(env or {})},
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run


def eventually(condition, seconds=20.0):
    """Waits until condition() is true; fails the test when that never happens."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        gc.collect()
        time.sleep(0.01)


@pytest.fixture(name="eventually")
def eventually_fixture():
    return eventually


def state_of(pid):
    """The letter that /proc has for it; "Z" also when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def alive(pid):
    """Whether the process exists and is not a zombie."""
    return state_of(pid) != "Z"


def children_of(pid):
    """[(pid, command)] of its children."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as f:
                parent = int(f.read().rsplit(")", 1)[1].split()[1])
            with open(f"/proc/{entry}/cmdline", "rb") as f:
                command = f.read().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            found.append((int(entry), command))
    return found


def wait_until_it_blocks(pid):
    """The main thread sleeps and has used no CPU for a while."""
    last = None
    for _ in range(400):
        with open(f"/proc/{pid}/task/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        if fields[0] == "S" and fields[11:13] == last:
            return
        last = fields[11:13]
        time.sleep(0.1)


def node_of(context):
    """What session.json says of the node: "pid" of the daemon, "gcs_pids" of the shards..."""
    with open(os.path.join(context["session_dir"], "session.json")) as f:
        return json.load(f)


@libray.remote
def pid_of_worker():
    return os.getpid()


@libray.remote
class Counter:
    def __init__(self):
        self.n = 0

    def add(self):
        self.n += 1
        return self.n

    def pid(self):
        return os.getpid()
