"""A driver that a signal has stopped (Ctrl-Z) holds workers and resources: others get them, and it goes on as if nothing
had been."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

import libray
from conftest import alive, pid_of_worker, state_of

# Stops itself at a moment of its choice; the parent wakes it up. Every run of a task leaves a line.
DRIVER = """
import os, signal, sys, time
import libray
folder, address = sys.argv[1], sys.argv[2]
libray.init(address)

@libray.remote(max_retries=0)
def mark(i, seconds=0.0):
    fd = os.open(f"{folder}/ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, b"%d\\n" % i)
    os.close(fd)
    time.sleep(seconds)
    return i

def stop():
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture
def node():
    context = libray.init(num_cpus=2, num_gpus=1)
    yield context
    libray.shutdown()


@pytest.fixture
def driver(node, tmp_path, eventually):
    """Starts a driver of the same node and returns when it has stopped itself."""
    started = []

    def start(source):
        program = tmp_path / "driver.py"
        program.write_text(DRIVER + textwrap.dedent(source))
        process = subprocess.Popen([sys.executable, str(program), str(tmp_path), node["session_dir"]],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        eventually(lambda: state_of(process.pid) == "T" or process.poll() is not None, seconds=60)
        assert process.poll() is None, process.communicate()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def resume(process):
    os.kill(process.pid, signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def runs(tmp_path):
    return sorted(int(line) for line in (tmp_path / "ran").read_text().split())


def test_others_get_the_idle_workers_resources(driver, tmp_path):
    """It stops right after its last result, with all processors of the node leased."""
    process = driver("""
        assert libray.get([mark.remote(i) for i in range(100)], timeout=60) == list(range(100))
        stop()
        assert libray.get([mark.remote(i) for i in range(100, 200)], timeout=60) == list(range(100, 200))
    """)
    assert len(libray.get([pid_of_worker.remote() for _ in range(20)], timeout=30)) == 20
    both = pid_of_worker.options(num_cpus=2)
    assert alive(libray.get(both.remote(), timeout=30))
    resume(process)
    assert runs(tmp_path) == list(range(200))


def test_what_it_waits_for_is_run_once(driver, tmp_path):
    """It stops with hundreds of tasks under way: those that had begun end, the others run when it is back."""
    process = driver("""
        refs = [mark.remote(i, 0.05) for i in range(100)]
        libray.wait(refs, num_returns=4, timeout=60)
        stop()
        assert libray.get(refs, timeout=60) == list(range(100))
        print("done")
    """)
    assert len(libray.get([pid_of_worker.remote() for _ in range(20)], timeout=30)) == 20
    assert alive(libray.get(pid_of_worker.options(num_cpus=2).remote(), timeout=30))
    assert "done" in resume(process)
    assert runs(tmp_path) == list(range(100))


def test_a_gpu_comes_back_after_the_task(driver, tmp_path):
    process = driver("""
        ref = mark.options(num_gpus=1, num_cpus=0).remote(1, 3)
        while not os.path.exists(f"{folder}/ran"):
            time.sleep(0.01)
        waiting = mark.options(num_gpus=1, num_cpus=0).remote(2)
        stop()
        assert libray.get([ref, waiting], timeout=60) == [1, 2]
        print("done")
    """)
    assert libray.get(pid_of_worker.options(num_gpus=1, num_cpus=0).remote(), timeout=30)
    assert "done" in resume(process)
    assert runs(tmp_path) == [1, 2]


def test_nested_tasks_are_waited_for(driver, tmp_path):
    """A worker of the stopped driver that waits for tasks of its own goes on: its result is there afterwards."""
    process = driver("""
        @libray.remote(max_retries=0)
        def outer(n):
            return libray.get([mark.remote(i, 0.2) for i in range(n)])

        ref = outer.remote(20)
        while not os.path.exists(f"{folder}/ran"):
            time.sleep(0.01)
        stop()
        assert libray.get(ref, timeout=60) == list(range(20))
        print("done")
    """)
    assert len(libray.get([pid_of_worker.remote() for _ in range(20)], timeout=30)) == 20
    assert "done" in resume(process)
    assert runs(tmp_path) == list(range(20))


def test_one_that_is_killed_while_stopped_leaves_nothing(driver, eventually):
    process = driver("""
        libray.get([mark.remote(i) for i in range(10)], timeout=60)
        stop()
    """)
    assert libray.get([pid_of_worker.remote() for _ in range(20)], timeout=30)
    process.kill()
    eventually(lambda: libray.available_resources().get("CPU") == 2)
