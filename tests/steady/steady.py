"""Runs a language's program of tests/steady and measures its processes: the driver, the workers, the node's daemon.

test_steady.py runs a hundred thousand tasks in each language, test_steady_long.py a million. After a warm-up, which fills
whatever is filled once, memory and descriptors are to stay where they are. C has tests/e2e/steady.c.
"""
import functools
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
sys.path.insert(0, str(ROOT / "tools" / "devtool"))
import java  # noqa: E402
import rust  # noqa: E402

BUILD = Path(os.environ.get("LIBRAY_BUILD", ROOT / "build" / "release"))
MARK = "LIBRAY_STEADY_MARK"
DESCRIPTORS = 4  # a log or a socket that comes late


@functools.lru_cache(maxsize=None)
def command_of(language):
    """(command, additions to the environment); builds what ninja does not."""
    if language == "cpp":
        return [BUILD / "tests" / "steady_program"], {}
    if language == "python":
        return [sys.executable, HERE / "program.py"], {}
    if language == "rust":
        needed = rust.environment()
        subprocess.run(["cargo", "build", "-q", "--locked", "-p", "libray-tests"], cwd=rust.WORKSPACE, env=needed, check=True)
        return [ROOT / "build" / "cargo" / "debug" / "steady_program"], {"LD_LIBRARY_PATH": needed["LD_LIBRARY_PATH"]}
    java.build_native()
    needed = java.environment()
    # A heap that is full before it is swept grows to its limit: that is to be reached in the warm-up.
    options = ["-XX:+UseSerialGC", "-Xmx64m", "-Xms64m", "-XX:+AlwaysPreTouch", "-cp", java.class_path()]
    return ([java.jdk() / "bin" / "java", *options, "SteadyProgram"],
            {name: needed[name] for name in ("JAVA_HOME", "LIBRAY_CACHE")})


def status_kb(pid, field):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def marked(mark):
    """Processes of the run: pid -> role."""
    needle, found = f"{MARK}={mark}".encode(), {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if needle not in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                continue
            command = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        if command:
            found[int(entry)] = "shard" if b"rayd gcs" in command else "node" if b"rayd node" in command else "worker"
    return found


class Program:
    """A program that runs as many tasks as it is told."""

    def __init__(self, language):
        command, additions = command_of(language)
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [str(word) for word in command], env={**os.environ, **additions, MARK: self.mark}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == "ready\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.stdout.close()

    def run(self, tasks):
        self.process.stdin.write(f"{tasks}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == f"done {tasks}\n"

    def measure(self):
        """role -> [own resident kB, shared resident kB, descriptors], summed over its processes; workers that came or
        went would show as growth, so there is an actor's and one for each processor from the beginning."""
        sums = {}
        for pid, role in marked(self.mark).items():
            role = "driver" if pid == self.process.pid else role
            try:
                values = [status_kb(pid, "RssAnon"), status_kb(pid, "RssShmem"), len(os.listdir(f"/proc/{pid}/fd")), 1]
            except OSError:
                continue  # it has just ended
            sums[role] = [a + b for a, b in zip(sums.get(role, [0] * 4), values)]
        return sums


def growth(before, after, slack_kb):
    """What grew more than it may, in words."""
    found = []
    for role, (own, shared, descriptors, processes) in after.items():
        was = before.get(role, [0] * 4)
        if processes != was[3]:
            found.append(f"{role}: {was[3]} processes, then {processes}")
        if own > was[0] + slack_kb:
            found.append(f"{role}: {was[0]} kB, then {own} kB")
        # Rings have a size: the journal's is 8 MiB a process, and fills once when the daemon is behind.
        if shared > was[1] + 10_240 * processes:
            found.append(f"{role}: {was[1]} kB of shared memory, then {shared} kB")
        if descriptors > was[2] + DESCRIPTORS:
            found.append(f"{role}: {was[2]} descriptors, then {descriptors}")
    return found


def check(language, warm_up, tasks, slack_kb=6 << 10, patience=120):
    """The daemon holds what the control store has not committed yet, and gives it back: so the last measure may wait.
    A JVM takes some megabytes when it is called for the second time, and no more later: the warm-up is two runs."""
    with Program(language) as program:
        for _ in range(2):
            program.run(warm_up // 2)
            before = settled(program)
        program.run(tasks)
        until = time.monotonic() + patience
        while (grown := growth(before, program.measure(), slack_kb)) and time.monotonic() < until:
            time.sleep(0.5)
        print(language, "before", before, "after", program.measure())
        assert not grown, "; ".join(grown)


def settled(program, patience=60):
    """A measure that stays for a second: the journal of the warm-up is written."""
    until, last = time.monotonic() + patience, program.measure()
    while True:
        time.sleep(1)
        now = program.measure()
        still = now.keys() == last.keys() and all(abs(now[r][0] - last[r][0]) < 512 for r in now)
        if still or time.monotonic() > until:
            return now
        last = now
