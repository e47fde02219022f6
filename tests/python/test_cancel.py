"""Cancelling many calls at once, among calls that go on, and tasks that a worker has not begun: none is missed."""

import asyncio
import os
import threading
import time

import pytest

import libray
from libray.exceptions import TaskCancelledError

pytestmark = pytest.mark.usefixtures("cluster")


@libray.remote(num_cpus=0, max_concurrency=2000)
class Sleeper:
    def __init__(self):
        self.begun = 0

    async def sleep(self):
        self.begun += 1
        await asyncio.sleep(60)

    async def nothing(self):
        pass

    async def number(self):
        return self.begun


def cancelled(ref):
    with pytest.raises(TaskCancelledError):
        libray.get(ref, timeout=30)
    return True


def test_a_thousand_running_calls(eventually):
    actor = Sleeper.remote()
    refs = [actor.sleep.remote() for _ in range(1000)]
    eventually(lambda: libray.get(actor.number.remote(), timeout=30) == 1000)
    began = time.monotonic()
    for ref in refs:
        libray.cancel(ref)
    assert all(cancelled(ref) for ref in refs)
    assert time.monotonic() - began < 40
    assert libray.get(actor.nothing.remote(), timeout=30) is None


def test_a_thousand_calls_that_wait_for_their_turn():
    @libray.remote(num_cpus=0)
    class Slow:
        def __init__(self):
            self.ran = []

        def step(self, i, seconds=0.0):
            time.sleep(seconds)
            self.ran.append(i)

        def seen(self):
            return self.ran

    actor = Slow.remote()
    first = actor.step.remote(-1, 2.0)
    refs = [actor.step.remote(i) for i in range(1000)]
    for ref in refs[::2]:
        libray.cancel(ref)
    assert libray.get(first, timeout=30) is None
    assert all(cancelled(ref) for ref in refs[::2])
    libray.get(refs[1::2], timeout=30)
    assert libray.get(actor.seen.remote(), timeout=30) == [-1, *range(1, 1000, 2)]


def test_one_call_among_many_others(eventually):
    """Other calls are taken from the same ring while the worker has yet to look at the cancellation."""
    actor = Sleeper.remote()
    ends = threading.Event()

    def disturb():
        while not ends.is_set():
            libray.get([actor.nothing.remote() for _ in range(50)], timeout=30)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for n in range(1, 101):
            ref = actor.sleep.remote()
            eventually(lambda: libray.get(actor.number.remote(), timeout=30) == n)
            libray.cancel(ref)
            cancelled(ref)
    finally:
        ends.set()
        thread.join()


def test_tasks_that_their_worker_gives_back(fresh, tmp_path):
    """They stood behind one that took its time: whoever they are given to next does not run them."""
    fresh(num_cpus=2)
    gate = tmp_path / "gate"

    @libray.remote
    def run(path=None, gate=None):
        while gate and not os.path.exists(gate):
            time.sleep(0.005)
        if path:
            open(path, "w").close()

    libray.get([run.remote() for _ in range(300)], timeout=60)  # known to be short: many go to one worker
    slow = run.remote(None, gate)
    refs = [run.remote(tmp_path / str(i), gate) for i in range(40)]
    for ref in refs[::2]:
        libray.cancel(ref)
    assert all(cancelled(ref) for ref in refs[::2])
    gate.touch()
    libray.get([slow, *refs[1::2]], timeout=60)
    gate.unlink()
    assert sorted(int(p.name) for p in tmp_path.iterdir()) == list(range(1, 40, 2))


def test_no_import_is_interrupted(fresh, tmp_path, eventually):
    """While a worker loads a task's code it is not interrupted: a module of which half is there would fail later tasks."""
    fresh(num_cpus=1, runtime_env={"env_vars": {"PYTHONPATH": str(tmp_path)}})
    (tmp_path / "half.py").write_text(
        "import pathlib, sys, time\n"
        f"path = pathlib.Path({str(tmp_path)!r})\n"
        "if 'libray.worker.main' in sys.modules:\n"
        "    (path / 'loads').touch()\n"
        "    try:\n"
        "        while not (path / 'go').exists(): time.sleep(0.005)\n"
        "    except BaseException:\n"
        "        (path / 'interrupted').touch()\n"
        "        raise\n"
        "def work(): return 'worked'\n"
    )

    class Loads:  # what its pickle does when it is read, any module may do when it is imported
        def __reduce__(self):
            return (__import__, ("half",))

    ran = tmp_path / "ran"

    @libray.remote
    def cancelled(value=Loads(), ran=ran):
        ran.touch()

    @libray.remote
    def after():
        import half

        return half.work()

    ref = cancelled.remote()
    eventually(lambda: (tmp_path / "loads").exists())
    libray.cancel(ref)
    time.sleep(0.2)  # where it would be interrupted
    (tmp_path / "go").touch()
    with pytest.raises(TaskCancelledError):
        libray.get(ref, timeout=30)
    assert libray.get(after.remote(), timeout=30) == "worked"
    assert not (tmp_path / "interrupted").exists() and not ran.exists()


@pytest.mark.parametrize("outcome", ["returns", "raises", "nothing"])
def test_what_becomes_of_who_catches_its_cancellation(tmp_path, eventually, outcome):
    """The same for tasks and async methods: what is returned is the result, whatever is raised is the cancellation."""

    def end(path):
        open(path + ".caught", "w").close()
        if outcome == "returns":
            return "value"
        raise ValueError("not this")

    @libray.remote(max_retries=0)
    def task(path):
        open(path, "w").close()
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            if outcome == "nothing":
                raise
            return end(path)

    @libray.remote
    class Actor:
        async def method(self, path):
            open(path, "w").close()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if outcome == "nothing":
                    raise
                return end(path)

    actor = Actor.remote()
    for name, call in (("task", task.remote), ("method", actor.method.remote)):
        path = str(tmp_path / name)
        ref = call(path)
        eventually(lambda: os.path.exists(path))
        libray.cancel(ref)
        if outcome == "returns":
            assert libray.get(ref, timeout=60) == "value"
        else:
            assert cancelled(ref)
        assert os.path.exists(path + ".caught") == (outcome != "nothing")
