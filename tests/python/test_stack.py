"""`libray stack`: what every thread of a session's processes does, also while its code hangs; and that
asking changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import libray
from conftest import alive, eventually, wait_until_it_blocks
from test_process import session_processes

SESSION = []


def stack(*arguments, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "libray._cli", "stack", "-s", SESSION[-1], *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def stack_of(pid):
    (row,) = json.loads(stack("--json", pid).stdout)
    return row


@pytest.fixture(scope="module", autouse=True)
def session():
    SESSION.append(libray.init(num_cpus=4)["session_dir"])
    yield
    libray.shutdown()


@libray.remote
class Stuck:
    """Its calls do not come back; what they wait for is told by the file they make."""

    def pid(self):
        return os.getpid()

    def loop_in_python(self, mark):
        open(mark, "w").close()
        while True:
            pass

    def hold_the_gil(self, mark):
        import ctypes

        open(mark, "w").close()
        ctypes.PyDLL(None).usleep(100_000_000)  # PyDLL does not give the GIL up

    def sleep_in_c(self, mark):
        import ctypes

        open(mark, "w").close()
        ctypes.CDLL(None).usleep(100_000_000)
        open(mark + ".woken", "w").close()  # a signal ended it

    def threads(self, mark):
        import threading

        def waits_in_a_thread():
            open(mark, "w").close()
            threading.Event().wait()

        threading.Thread(target=waits_in_a_thread, daemon=True).start()
        time.sleep(100)

    def deep(self, n, mark):
        if n:
            return self.deep(n - 1, mark)
        open(mark, "w").close()
        time.sleep(100)


def start(method, tmp_path, *arguments):
    """Its pid, once the method hangs."""
    actor = Stuck.remote()
    pid = libray.get(actor.pid.remote())
    mark = str(tmp_path / "mark")
    getattr(actor, method).remote(*arguments, mark)
    eventually(lambda: os.path.exists(mark))
    if method != "loop_in_python":
        wait_until_it_blocks(pid)
    return actor, pid, mark


@pytest.mark.parametrize("method", ["loop_in_python", "hold_the_gil", "sleep_in_c"])
def test_a_worker_that_hangs(tmp_path, method):
    actor, pid, mark = start(method, tmp_path)
    for _ in range(3):
        row = stack_of(pid)
        assert row["role"] == "worker" and row["reason"] == ""
        assert f"in {method}" in row["python"] and "test_stack.py" in row["python"]
        assert {t["name"] for t in row["threads"]} >= {"ray-receiver", "ray-pulse"}
        assert any(t["tid"] == pid for t in row["threads"])
    assert alive(pid) and not os.path.exists(mark + ".woken"), "being asked changes nothing"
    libray.kill(actor)


def test_a_busy_worker_is_asked_often(tmp_path):
    """Frames come and go while they are read; neither the worker nor its results suffer."""

    @libray.remote
    class Busy:
        def pid(self):
            return os.getpid()

        def fibonacci(self, n):
            return n if n < 2 else self.fibonacci(n - 1) + self.fibonacci(n - 2)

        def work(self, until):
            import threading

            rounds = []

            def run():
                while not os.path.exists(until):
                    rounds.append(self.fibonacci(15) == 610)

            threads = [threading.Thread(target=run) for _ in range(3)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            return all(rounds) and len(rounds) > 3

    busy = Busy.remote()
    pid = libray.get(busy.pid.remote())
    result = busy.work.remote(str(tmp_path / "enough"))
    seen = 0  # reads that met it at work; the first ones may come before it began
    for _ in range(200):
        seen += "fibonacci" in stack_of(pid)["python"]
        if seen > 10:
            break
    (tmp_path / "enough").touch()
    assert seen > 10
    assert libray.get(result) is True and libray.get(busy.pid.remote()) == pid


def test_all_threads_and_all_processes(tmp_path):
    actor, pid, _ = start("threads", tmp_path)
    row = stack_of(pid)
    assert "waits_in_a_thread" in row["python"] and "in threads" in row["python"]
    rows = {r["pid"]: r for r in json.loads(stack("--json").stdout)}
    assert "test_all_threads_and_all_processes" in rows[os.getpid()]["python"]
    assert rows[os.getpid()]["role"] == "driver"
    roles = {r["role"] for r in rows.values()}
    assert roles >= {"node", "gcs", "driver", "worker"} and "zygote" not in roles
    for r in rows.values():  # the daemons are C++: their threads and what they wait for
        assert r["threads"] and all(t["state"] for t in r["threads"])
        if r["role"] == "node":
            assert r["python"] == "" and any("poll" in t["wchan"] for t in r["threads"])
    libray.kill(actor)


def test_a_native_worker(tmp_path):
    """C code of a library runs in a worker without Python: the kernel says what it waits for."""
    pause = libray.c_function("libc.so.6", "usleep", "i32(u32)").remote(20_000_000)
    deadline = time.monotonic() + 20
    while True:
        assert time.monotonic() < deadline
        rows = [r for r in json.loads(stack("--json").stdout) if r["role"] == "worker"]
        asleep = [r for r in rows if any("nanosleep" in t["wchan"] and t["tid"] == r["pid"] for t in r["threads"])]
        if asleep:
            break
    assert "no Python stack" in asleep[0]["reason"]
    libray.cancel(pause, force=True)


def test_the_text_is_for_people(tmp_path):
    actor, pid, _ = start("deep", tmp_path, 40)
    text = stack(pid).stdout
    assert text.startswith(f"worker {pid} ") and text.count("in deep") == 41
    assert "ray-receiver: sleeping" in text
    libray.kill(actor)


def test_what_cannot_answer_says_why(tmp_path):
    actor, pid, _ = start("sleep_in_c", tmp_path)
    os.kill(pid, signal.SIGSTOP)
    try:
        row = stack_of(pid)
        assert "kill -CONT" in row["reason"] and row["python"] == ""
    finally:
        os.kill(pid, signal.SIGCONT)
    libray.kill(actor)
    done = stack(os.getppid(), check=False)
    assert done.returncode == 1 and "does not belong to session" in done.stderr


def test_closed_descriptors(tmp_path):
    """A file of the user's that got the number is not written to."""

    @libray.remote
    class Closer:
        def reuse(self, path):
            for name in os.listdir("/proc/self/fd"):
                try:
                    if "libray-stack" in os.readlink(f"/proc/self/fd/{name}"):
                        with open(path, "w+") as f:
                            os.dup2(f.fileno(), int(name))
                        return os.getpid(), int(name)
                except OSError:
                    pass

        def size(self, fd):
            return os.fstat(fd).st_size

    closer, path = Closer.remote(), str(tmp_path / "own")
    pid, fd = libray.get(closer.reuse.remote(path))
    assert "descriptors were closed" in stack_of(pid)["reason"]
    os.kill(pid, signal.SIGRTMIN + 7)  # even when it is asked all the same
    assert libray.get(closer.size.remote(fd)) == 0
    libray.kill(closer)


def test_own_handler_stays(run_script):
    done = run_script("""
        import faulthandler, os, signal, subprocess, sys
        import libray
        got = []
        signal.signal(signal.SIGRTMIN + 7, lambda *a: got.append(1))
        session = libray.init(num_cpus=1)["session_dir"]
        os.kill(os.getpid(), signal.SIGRTMIN + 7)
        assert got == [1]
        out = subprocess.run([sys.executable, "-m", "libray._cli", "stack", "-s", session, str(os.getpid())],
                             capture_output=True, text=True)
        assert out.returncode == 0 and "no Python stack" in out.stdout, out
        print("ok")
    """)
    assert done.stdout == "ok\n"


def test_a_session_that_is_over(run_script):
    session = run_script("import libray\nprint(libray.init(num_cpus=1)['session_dir'])").stdout.strip()
    eventually(lambda: not session_processes(session))
    done = subprocess.run(
        [sys.executable, "-m", "libray._cli", "stack", "-s", session], capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stdout == ""
    assert "is over: none of its processes lives" in done.stderr
