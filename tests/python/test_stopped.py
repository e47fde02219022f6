"""Processes that a signal has stopped: neither dead nor late, and nobody may wait for them for ever."""

import os
import signal
import subprocess
import sys
import time

import pytest

import libray
from libray.exceptions import ActorDiedError, WorkerCrashedError
from conftest import Counter, alive, children_of, node_of, pid_of_worker


@pytest.fixture
def node(monkeypatch):
    monkeypatch.setenv("LIBRAY_STOPPED_WORKER_SECONDS", "3")
    context = libray.init(num_cpus=2)
    yield context
    libray.shutdown()


@libray.remote
def mark(path, seconds=0.0):
    """Leaves a line for every time that it ran."""
    with open(path, "a") as f:
        f.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return os.getpid()


def runs(path):
    return path.read_text().split() if path.exists() else []


def cont(pid):
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass


def test_tasks_behind_a_stopped_worker_run_elsewhere(node, tmp_path):
    """Once each, also when the worker goes on afterwards."""
    pids = set(libray.get([pid_of_worker.remote() for _ in range(20)]))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        paths = [tmp_path / str(i) for i in range(20)]
        refs = [mark.remote(str(path)) for path in paths]
        ran_on = set(libray.get(refs, timeout=40))
        assert not ran_on & pids
    finally:
        for pid in pids:
            cont(pid)
    time.sleep(0.5)
    assert [len(runs(path)) for path in paths] == [1] * 20


def test_a_running_task_fails_with_the_reason(node, tmp_path, eventually):
    slow = mark.options(max_retries=0)
    path = tmp_path / "ran"
    ref = slow.remote(str(path), 0.5)
    eventually(lambda: runs(path))
    pid = int(runs(path)[0])
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(WorkerCrashedError, match=r"stopped by a signal for \d+ s.*kill -CONT"):
        libray.get(ref, timeout=40)
    assert time.monotonic() - began < 20
    cont(pid)
    assert not alive(pid)
    assert libray.get(pid_of_worker.remote(), timeout=30) != pid


def test_a_running_task_with_retries_runs_again(node, tmp_path, eventually):
    path = tmp_path / "ran"
    ref = mark.options(max_retries=1).remote(str(path), 1)
    eventually(lambda: runs(path))
    first = int(runs(path)[0])
    os.kill(first, signal.SIGSTOP)
    assert libray.get(ref, timeout=40) != first
    assert len(runs(path)) == 2


def test_a_worker_that_goes_on_in_time_is_left_alone(node, tmp_path, eventually):
    path = tmp_path / "ran"
    ref = mark.options(max_retries=0).remote(str(path), 0.2)
    eventually(lambda: runs(path))
    pid = int(runs(path)[0])
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2)
    os.kill(pid, signal.SIGCONT)
    assert libray.get(ref, timeout=30) == pid
    assert len(runs(path)) == 1


def test_a_stopped_actor_dies_with_the_reason(node):
    actor = Counter.remote()
    pid = libray.get(actor.pid.remote())
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ActorDiedError, match="kill -CONT"):
        libray.get(actor.add.remote(), timeout=40)


def test_a_stopped_actor_that_nobody_calls_is_left_alone(node):
    actor = Counter.remote()
    pid = libray.get(actor.pid.remote())
    os.kill(pid, signal.SIGSTOP)
    ref = pid_of_worker.remote()
    libray.get(ref, timeout=30)
    time.sleep(5)
    os.kill(pid, signal.SIGCONT)
    assert libray.get(actor.add.remote(), timeout=30) == 1


def test_a_worker_under_a_debugger_is_left_alone(node, tmp_path, eventually):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    attach, detach = 16, 17  # PTRACE_ATTACH, PTRACE_DETACH
    path = tmp_path / "ran"
    ref = mark.options(max_retries=0).remote(str(path), 0.2)
    eventually(lambda: runs(path))
    pid = int(runs(path)[0])
    if libc.ptrace(attach, pid, None, None) != 0:
        libray.cancel(ref)
        pytest.skip(f"no ptrace here: {os.strerror(ctypes.get_errno())}")
    os.waitpid(pid, 0)
    time.sleep(9)
    assert libc.ptrace(detach, pid, None, None) == 0
    cont(pid)
    assert libray.get(ref, timeout=30) == pid
    assert len(runs(path)) == 1


def test_a_stopped_daemon_does_not_stop_what_runs(node, capfd, eventually):
    """Calls over links that exist go on, and nothing is lost when it resumes."""
    actor = Counter.remote()
    assert libray.get(actor.add.remote()) == 1
    daemon = node_of(node)["pid"]
    os.kill(daemon, signal.SIGSTOP)
    try:
        refs = [actor.add.remote() for _ in range(500)]
        assert libray.get(refs, timeout=20) == list(range(2, 502))
        later = [pid_of_worker.remote() for _ in range(50)]
        eventually(lambda: f"kill -CONT {daemon}" in capfd.readouterr().err)
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert len(libray.get(later, timeout=30)) == 50
    assert libray.get(actor.add.remote(), timeout=20) == 502


def test_a_stopped_zygote_is_replaced(monkeypatch):
    context = libray.init(num_cpus=1)
    try:
        daemon = node_of(context)["pid"]
        libray.get(pid_of_worker.remote(), timeout=30)
        zygote = next(pid for pid, command in children_of(daemon) if "_zygote" in command)
        os.kill(zygote, signal.SIGSTOP)
        # Another worker is needed: the first one holds the only processor's lease in a nested get.
        actors = [Counter.options(num_cpus=0).remote() for _ in range(4)]
        assert libray.get([a.add.remote() for a in actors], timeout=60) == [1] * 4
        assert not alive(zygote)
    finally:
        libray.shutdown()


def test_a_stopped_shard_is_replaced(node):
    shards = node_of(node)["gcs_pids"]
    assert shards
    for pid in shards:
        os.kill(pid, signal.SIGSTOP)
    # Names are claimed in the control store: the creation waits for it.
    ref = mark.remote("/dev/null", 12)
    actor = Counter.options(name="needs-the-store").remote()
    assert libray.get(actor.add.remote(), timeout=60) == 1
    assert libray.get(ref, timeout=60)
    assert not any(alive(pid) for pid in shards)


PROGRAM = """
import json, os, signal, sys, time
import libray
context = libray.init(num_cpus=1)

@libray.remote
def f():
    return os.getpid()

libray.get(f.remote())
print(context["session_dir"], flush=True)
with open(context["session_dir"] + "/session.json") as f:
    os.kill(json.load(f)["pid"], signal.SIGSTOP)
"""


@pytest.mark.parametrize("ending", ["os._exit(0)", "os.kill(os.getpid(), 9)", "libray.shutdown()", ""])
def test_nothing_is_left_of_a_stopped_node(run_script, eventually, ending):
    began = time.monotonic()
    done = run_script(PROGRAM + ending + "\n", check=False)
    assert time.monotonic() - began < 60
    session = done.stdout.split()[0]
    eventually(lambda: not subprocess.run(["pgrep", "-f", session], capture_output=True).stdout)
    assert not [name for name in os.listdir(session) if name.endswith(".sock")]
