"""Fixtures of the Python tests. One cluster serves a whole module unless a test asks for its
own."""

import fcntl
import gc
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


def alive(pid):
    """Whether the process exists and is not a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
