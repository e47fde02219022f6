"""Both shards of the control store stand still while a driver submits as fast as it can.

    build/venv/bin/python bench/python/standstill.py [seconds of standstill, 20]
    build/venv/bin/python bench/python/standstill.py check SESSION TASKS     the last part alone, when time was short

Prints the driver's rate before, during and after (batches of 1000 no-op tasks), the largest memory and spool of the daemon,
and whether every task is in the SQLite files afterwards; ends with status 1 when one of these is not as it has to be: the
rate at least half, memory within 200 MB of what it was, every task once.
"""

import glob
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time

import libray

BATCH = 1000


@libray.remote
def noop(i):
    return None


def node_of(session):
    with open(os.path.join(session, "session.json")) as file:
        return json.load(file)


def memory_mb(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1]) / 1024


class Standstill(threading.Thread):
    """Stops the shards, also those that replace the stopped ones."""

    def __init__(self, session):
        super().__init__(daemon=True)
        self.session, self.over = session, threading.Event()

    def signal(self, number):
        for pid in node_of(self.session)["gcs_pids"]:
            if pid > 0:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass

    def run(self):
        while not self.over.wait(0.02):
            self.signal(signal.SIGSTOP)

    def end(self):
        self.over.set()
        self.join()
        self.signal(signal.SIGCONT)


def drive(seconds, daemon, peak):
    """Rate of the median batch, and how many tasks there were."""
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        libray.get([noop.remote(i) for i in range(BATCH)])
        took.append(time.monotonic() - began)
        if len(took) % 50 == 0:
            peak.append(memory_mb(daemon))
    return BATCH / statistics.median(took), BATCH * len(took) / sum(took), BATCH * len(took)


def in_the_tables(session):
    """Tasks that have ended, by the shards' files alone; the tool first moves what lies in the journals into the tables."""
    command = [sys.executable, "-m", "libray._cli", "status", "--json", "-s", session]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    count = 0
    for file in glob.glob(session + "/gcs-?.db"):
        with sqlite3.connect(file) as db:
            count += db.execute("SELECT count(*) FROM task_rows WHERE end_ns IS NOT NULL").fetchone()[0]
    return count


def check_tables(session, sent):
    began = time.monotonic()
    found = in_the_tables(session)
    print(f"tables  {found} tasks of {sent}, after {time.monotonic() - began:.1f} s")
    return found == sent


def main():
    if sys.argv[1:2] == ["check"]:
        sys.exit(not check_tables(sys.argv[2], int(sys.argv[3])))
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20
    os.environ["LIBRAY_TASK_ROWS"] = os.environ["LIBRAY_TABLE_BYTES"] = "0"  # every task stays in the tables
    session = libray.init()["session_dir"]
    daemon = node_of(session)["pid"]
    sent = drive(2, daemon, [])[2]
    first = memory_mb(daemon)
    peak, rates = [first], {}
    for phase, length in (("before", seconds / 4), ("during", seconds), ("after", seconds / 4)):
        stop = Standstill(session) if phase == "during" else None
        if stop:
            stop.signal(signal.SIGSTOP)
            stop.start()
        rates[phase], whole, n = drive(length, daemon, peak)
        sent += n
        if stop:
            stop.end()
        median = rates[phase] / 1e3
        print(f"{phase:7} {median:6.0f} K/s in the median batch, {whole / 1e3:6.0f} K/s in all; {n} tasks", flush=True)
    print(f"daemon  {first:.0f} MB before, {max(peak):.0f} MB at most")
    began = time.monotonic()
    libray.shutdown()
    print(f"end     {time.monotonic() - began:.1f} s; check {session} {sent}", flush=True)
    complete = check_tables(session, sent)
    failed = [
        what
        for what, right in (
            ("the rate", rates["during"] >= rates["before"] / 2),
            ("the memory", max(peak) - first < 200),
            ("the tables", complete),
        )
        if not right
    ]
    sys.exit(f"not as it has to be: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
