"""The `libray` tool over a Python program: while it runs, and after it was killed. The same questions
get the same answers, except for what only the living can tell."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from conftest import eventually
from test_process import session_processes

PROGRAM = """
    import sys, time
    import libray

    context = libray.init(num_cpus=2)

    @libray.remote
    def square(x):
        print("squares", x)
        return x * x

    @libray.remote(max_retries=0)
    def fails():
        raise ValueError("on purpose")

    @libray.remote
    class Counter:
        def __init__(self):
            self.n = 0
        def add(self):
            self.n += 1
            return self.n

    @libray.remote
    def hangs():
        time.sleep(1000)

    counter = Counter.options(name="the-counter").remote()
    libray.get([square.remote(i) for i in range(5)] + [counter.add.remote() for _ in range(3)])
    large = libray.put(b"x" * 3_000_000)
    made = square.remote(10)
    libray.get(made)
    try:
        libray.get(fails.remote())
    except ValueError:
        pass
    waits = hangs.remote()
    print(context["session_dir"], flush=True)
    time.sleep(1000)
"""


class Session:
    def __init__(self, folder):
        path = folder / "program.py"
        path.write_text(textwrap.dedent(PROGRAM))
        self.program = subprocess.Popen(
            [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.path = ""
        while "/session-" not in self.path:
            self.path = self.program.stdout.readline().strip()
            assert self.path, "the program ended"

    def tool(self, *arguments, check=True):
        done = subprocess.run(
            [sys.executable, "-m", "libray._cli", *arguments, "-s", self.path],
            capture_output=True,
            text=True,
            timeout=60,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done.stdout if check else done

    def rows(self, *arguments):
        return json.loads(self.tool(*arguments, "--json"))

    def kill(self):
        self.program.send_signal(signal.SIGKILL)
        self.program.wait()
        eventually(lambda: not session_processes(self.path))


@pytest.fixture(scope="module", params=["running", "dead"])
def session(request, tmp_path_factory):
    made = Session(tmp_path_factory.mktemp("program"))
    try:
        # The tables of a running session are a moment behind.
        deadline = time.monotonic() + 30
        while sum(r["state"] == "FAILED" for r in made.rows("tasks")) == 0:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        made.living = request.param == "running"
        if not made.living:
            made.kill()
        yield made
    finally:
        made.kill()


def test_status(session):
    text = session.tool("status")
    assert os.path.basename(session.path) in text
    node = next(line for line in text.splitlines() if line.startswith("node "))
    assert ("alive" in node) == session.living, text
    assert ("dead" in node) == (not session.living), text


def test_tasks(session):
    rows = session.rows("tasks")
    by_name = {}
    for row in rows:
        name = row["method"] or row["name"].split(".")[-1]
        by_name.setdefault(name, []).append(row["state"])
    assert by_name["square"] == ["FINISHED"] * 6 and by_name["add"] == ["FINISHED"] * 3
    assert by_name["fails"] == ["FAILED"] and by_name["hangs"] != ["FINISHED"]
    (failed,) = session.rows("tasks", "--state", "failed", "--function", "*fails")
    one = session.tool("tasks", failed["task"])
    assert "fails: ValueError: on purpose" in one
    assert "on purpose" in session.tool("errors")


def test_actors(session):
    (row,) = session.rows("actors")
    assert row["name"] == "the-counter" and row["class"].endswith("Counter")
    if session.living:
        assert row["state"] == "ALIVE"
    assert "the-counter" in session.tool("actors")


def test_objects(session):
    rows = session.rows("objects")
    assert sum(r["state"] == "READY" for r in rows) >= 9
    assert any(r["state"] == "ERROR" for r in rows)


def test_logs(session):
    listed = session.tool("logs")
    assert "rayd.log" in listed and "worker-" in listed
    names = [w for w in listed.split() if w.startswith("worker-") and w.endswith(".out")]
    assert any("squares 3" in session.tool("logs", name) for name in names)


def test_timeline(session, tmp_path):
    session.tool("timeline", "-o", str(tmp_path / "trace.json"))
    trace = json.loads((tmp_path / "trace.json").read_text())
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    assert sum("square" in e.get("name", "") and e["ph"] == "X" for e in events) == 6
    assert all(e["dur"] >= 0 for e in events if e["ph"] == "X")


def test_stack(session):
    done = session.tool("stack", check=False)
    if session.living:
        assert done.returncode == 0 and "in hangs" in done.stdout
    else:
        assert done.returncode == 1 and "is over" in done.stderr


def test_sessions(session):
    line = next(s for s in session.tool("sessions").splitlines() if os.path.basename(session.path) in s)
    assert ("alive" in line.lower()) == session.living, line
