"""The control store stands still: local work goes on, its memory stays within a bound, and all of it is in the tables
afterwards. Functions that are made on the fly fill nobody's memory."""

import gc
import glob
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import libray
from conftest import node_of


def memory_mb(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1]) // 1024


class Standstill:
    """Stops the shards, also those that replace the stopped ones."""

    def __init__(self, context):
        self.context, self.over = context, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.over.wait(0.02):
            self.signal(signal.SIGSTOP)

    def signal(self, number):
        for pid in node_of(self.context)["gcs_pids"]:
            if pid > 0:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass

    def __enter__(self):
        self.signal(signal.SIGSTOP)
        self.thread.start()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.signal(signal.SIGCONT)


@libray.remote
def noop(i):
    return None


@libray.remote
def pid_of():
    return os.getpid()


def test_work_goes_on_while_the_control_store_stands_still(fresh, monkeypatch):
    monkeypatch.setenv("LIBRAY_TASK_ROWS", "0")
    context = fresh(num_cpus=1)
    libray.get(noop.remote(0))
    daemon = node_of(context)["pid"]
    before, rounds = memory_mb(daemon), 450
    with Standstill(context):
        for _ in range(rounds):
            libray.get([noop.remote(i) for i in range(1000)], timeout=60)
        assert memory_mb(daemon) < before + 200
    session = context["session_dir"]
    libray.shutdown()
    done = subprocess.run([sys.executable, "-m", "libray._cli", "status", "--json", "-s", session], capture_output=True)
    assert done.returncode == 0, done.stderr
    finished = 0
    for file in glob.glob(session + "/gcs-?.db"):
        with sqlite3.connect(file) as db:
            finished += db.execute("SELECT count(*) FROM tasks WHERE state='FINISHED'").fetchone()[0]
    assert finished == rounds * 1000 + 1


def test_definitions_of_functions_do_not_pile_up(fresh):
    context = fresh(num_cpus=1)
    daemon, worker = node_of(context)["pid"], libray.get(pid_of.remote())

    def make(data):
        return lambda: len(data)

    def use(n):
        for _ in range(n):
            assert libray.get(libray.remote(make(os.urandom(200_000))).remote()) == 200_000
        gc.collect()

    use(250)  # 50 MB: now what is bounded is full
    pids = {"driver": os.getpid(), "daemon": daemon, "worker": worker}
    before = {who: memory_mb(pid) for who, pid in pids.items()}
    use(350)  # 70 MB
    grown = {who: memory_mb(pid) - before[who] for who, pid in pids.items()}
    assert max(grown.values()) < 35, grown


def test_definitions_that_nobody_needs_are_deleted(fresh):
    context = fresh(num_cpus=1)

    def make(n):
        return lambda: n

    @libray.remote(max_restarts=-1, max_task_retries=-1)
    class Kept:
        def pid(self):
            return os.getpid()

    kept = Kept.remote()
    pid = libray.get(kept.pid.remote())
    del Kept
    for n in range(4000):
        assert libray.get(libray.remote(make(n)).remote()) == n
    os.kill(pid, signal.SIGKILL)
    assert libray.get(kept.pid.remote(), timeout=60) != pid  # its class is not among them
    session = context["session_dir"]
    libray.shutdown()
    subprocess.run([sys.executable, "-m", "libray._cli", "status", "-s", session], check=True, stdout=subprocess.DEVNULL)
    definitions = names = 0
    for file in glob.glob(session + "/gcs-?.db"):
        with sqlite3.connect(file) as db:
            definitions += db.execute("SELECT count(*) FROM state WHERE tbl=2").fetchone()[0]
            names += db.execute("SELECT count(*) FROM functions").fetchone()[0]
            unnamed = db.execute("SELECT count(*) FROM tasks WHERE name = function AND kind = 'TASK'").fetchone()[0]
            assert unnamed == 0  # history tells them apart still
    assert names >= 4000
    assert definitions < 1500  # the last thousand, for they may be used again
