#!/usr/bin/env python3
"""The kill matrix: programs with a known answer run while parts of their cluster are killed.

    matrix.py [--runs N] [--minutes M] [--seed S] [--program c|cpp|java|python|rust] [--jobs N]

Each run has a seed, and the seed alone says what is killed (a worker, a shard of the
control store, the node daemon, the driver) and when: after random times, or at a named fault point
(libray/base/fault.h). A run passes when the program ends within its bound, every value is right, every
error is one that the deaths explain, and no process, socket or spilled file is left. A failed seed prints
the command that runs it again. Called by `./dev soak` and by tests/kill/test_kill_matrix.py.

The programs, one per language (program.c has the most steps; KillProgram.java), check values and errors; this script
kills and looks for leftovers. Without --program the seed chooses among those whose tools are there.
"""
import argparse
import collections
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "devtool"))
import java  # noqa: E402
import rust  # noqa: E402

BUILD = Path(os.environ.get("LIBRAY_BUILD", ROOT / "build" / "release"))
SLOW = float(os.environ.get("LIBRAY_TEST_SLOW", "1"))
BOUND = 60 * SLOW  # seconds for one run
GRACE = 20 * SLOW  # seconds for processes to notice that it is over
MARK = "LIBRAY_TEST_CLUSTER"

# ---- the programs ------------------------------------------------------------------------------

def programs():
    """Those that can be built here."""
    return ["c", "cpp", "python"] + ["rust"] * rust.is_there() + ["java"] * java.is_there()


@functools.lru_cache(maxsize=None)
def command_of(program):
    """Builds it, if ninja does not; its command, and what it needs in its environment."""
    if program == "python":
        return [sys.executable, str(Path(__file__).with_name("program.py"))], {}
    if program == "java":
        java.build_native()
        needed = java.environment()
        options = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", java.class_path()]
        return ([str(java.jdk() / "bin" / "java"), *options, "KillProgram"],
                {name: needed[name] for name in ("JAVA_HOME", "LIBRAY_CACHE")})
    if program == "rust":
        needed = rust.environment()
        subprocess.run(["cargo", "build", "-q", "--locked", "-p", "libray-tests"], cwd=rust.WORKSPACE, env=needed, check=True)
        return ([str(ROOT / "build" / "cargo" / "debug" / "kill_program")],
                {name: needed[name] for name in ("LD_LIBRARY_PATH", "LIBRAY_BUILD")})
    return [str(BUILD / "tests" / ("kill_program" if program == "c" else "kill_program_cpp"))], {}


# Fault points: who passes there, and how often at most before the action.
CLIENT = ("driver", "worker")
POINTS = {
    "client.admitted": (CLIENT, 1),
    "client.submit": (CLIENT, 20),
    "client.pushed": (CLIENT, 20),
    "client.called": (CLIENT, 5),
    "object.sealed": (CLIENT, 10),
    "object.published": (CLIENT, 10),
    "store.create.building": (CLIENT, 12),
    "store.seal.sealed": (CLIENT, 12),
    "store.seal.before_commit": (CLIENT, 12),
    "store.seal.committed": (CLIENT, 12),
    "store.pin.held": (CLIENT, 20),
    "store.unpin": (CLIENT, 20),
    "worker.before_result": (("worker",), 150),
    "worker.after_result": (("worker",), 150),
    "worker.yield": (("worker",), 60),
    "worker.actor.constructed": (("worker",), 1),
    "node.admit": (("node",), 6),
    "node.grant": (("node",), 6),
    "node.actor.init": (("node",), 3),
    "node.object.free": (("node",), 30),
    "node.bury": (("node",), 3),
    "node.bury.told": (("node",), 3),
    "store.daemon.bury": (("node",), 3),
    "store.spill.write": (("node",), 10),
    "store.spill.written": (("node",), 5),
    "store.spill.evicted": (("node",), 10),
    "store.restore.read": (("node",), 10),
    "store.restore.sealed": (("node",), 10),
    "gcs.journal.before_commit": (("shard",), 8),
    "gcs.journal.mid_commit": (("shard",), 8),
    "gcs.journal.after_commit": (("shard",), 8),
    "gcs.reply": (("shard",), 30),
    "gcs.materialise.mid": (("shard",), 3),
    "gcs.materialise.after": (("shard",), 3),
}


class Plan:
    """What happens in the run of a seed."""

    def __init__(self, seed, among):
        self.seed = seed
        self.program = random.Random(f"program {seed}").choice(among)
        pick = random.Random(seed)
        self.faults, self.kills = "", []
        kind = pick.random()
        victims = set()
        if kind < 0.5:  # at a fault point
            point = pick.choice(sorted(POINTS))
            roles, passages = POINTS[point]
            victims.update(roles)
            self.faults = f"{point}=kill@{pick.randint(1, passages)}"
        elif kind < 0.6:  # slow at a fault point, and killed elsewhere
            point = pick.choice(sorted(POINTS))
            self.faults = f"{point}=delay:{pick.choice((1, 10, 50))}ms@{pick.randint(1, 4)}"
        if kind >= 0.5:
            for _ in range(pick.randint(1, 4)):
                role = pick.choices(("worker", "shard", "node", "driver"), (12, 4, 1, 1))[0]
                victims.add(role)
                self.kills.append((pick.uniform(0, 1.2), role, pick.random()))
            self.kills.sort()
        self.victims = sorted(victims)

    def __str__(self):
        kills = ", ".join(f"{role} after {at:.2f} s" for at, role, _ in self.kills)
        return f"seed {self.seed}: {self.program}, {self.faults or 'no fault'}, kills: {kills or 'none'}"

    def command(self):
        return f"./dev soak --runs 1 --seed {self.seed} --program {self.program}"


# ---- processes of a run ------------------------------------------------------------------------

def marked(mark):
    """(pid, command line) of every living process that carries the mark."""
    needle = f"{MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as f:
                if needle not in f.read().split(b"\0"):
                    continue
            with open(f"/proc/{name}/stat") as f:
                if f.read().rsplit(")", 1)[1].split()[0] in "ZX":
                    continue
            with open(f"/proc/{name}/cmdline", "rb") as f:
                found.append((int(name), f.read().replace(b"\0", b" ").decode().strip()))
        except (OSError, IndexError):
            continue
    return found


def role_of(pid, command, driver):
    if pid == driver:
        return "driver"
    if "rayd gcs" in command:
        return "shard"
    return "node" if "rayd node" in command else "worker"


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def stacks(mark):
    """Where the processes of a run that hangs are: for the report."""
    out = []
    for pid, command in marked(mark):
        out.append(f"-- {pid} {command}")
        if shutil.which("gdb"):
            text = subprocess.run(["gdb", "-p", str(pid), "-batch", "-ex", "thread apply all bt 14"],
                                  capture_output=True, text=True, timeout=60).stdout
            out += [line for line in text.splitlines() if line.startswith(("#", "Thread"))]
    return "\n".join(out)


# ---- one run -----------------------------------------------------------------------------------

class Failed(Exception):
    pass


class Run:
    def __init__(self, plan, folder):
        self.plan, self.dir = plan, Path(folder)
        self.mark = uuid.uuid4().hex
        self.process = None
        self.log = self.dir / "log"

    def command(self):
        return command_of(self.plan.program)[0]

    def environment(self):
        once = self.dir / "hit"
        once.mkdir()
        env = dict(os.environ, KILL_DIR=str(self.dir), KILL_SEED=str(self.plan.seed),
                   KILL_VICTIMS=",".join(self.plan.victims), LIBRAY_TMPDIR=str(self.dir))
        env.update(command_of(self.plan.program)[1])
        env[MARK] = self.mark
        env.pop("LIBRAY_ADDRESS", None)
        if self.plan.faults:
            env.update(LIBRAY_FAULTS=self.plan.faults, LIBRAY_FAULT_ONCE=str(once))
        return env

    def wait(self, until, condition=lambda: False):
        """Until the program has ended or the condition holds; False when the time is over first."""
        while time.monotonic() < until:
            if self.process.poll() is not None or condition():
                return True
            time.sleep(0.005)
        return False

    def victim(self, role, choice):
        pids = sorted(pid for pid, command in marked(self.mark)
                      if role_of(pid, command, self.process.pid) == role)
        return pids[int(choice * len(pids))] if pids else None

    def drive(self):
        began = time.monotonic()
        bound = began + BOUND
        with open(self.log, "w") as out:
            self.process = subprocess.Popen(self.command(), env=self.environment(), stdout=out,
                                            stderr=out, stdin=subprocess.DEVNULL)
        if not self.wait(bound, (self.dir / "ready").exists):
            raise Failed(f"not ready within {BOUND:.0f} s")
        ready = time.monotonic()
        for at, role, choice in self.plan.kills:
            self.wait(ready + at * SLOW)
            pid = self.victim(role, choice)
            if pid is not None and self.process.poll() is None:
                kill(pid)
        if not self.plan.kills:  # until the fault point was passed, or long enough
            self.wait(ready + 2 * SLOW, lambda: any((self.dir / "hit").iterdir()))
        (self.dir / "stop").touch()
        if not self.wait(bound):
            raise Failed(f"did not end within {BOUND:.0f} s\n{stacks(self.mark)}")

    def check(self):
        code = self.process.returncode
        if code != 0 and not (code == -signal.SIGKILL and "driver" in self.plan.victims):
            raise Failed(f"the program ended with status {code}")
        end = time.monotonic() + GRACE
        left = marked(self.mark)
        while left and time.monotonic() < end:
            time.sleep(0.02)
            left = marked(self.mark)
        if left:
            raise Failed("left behind:\n" + "\n".join(f"  {p} {c}" for p, c in left) + "\n"
                         + stacks(self.mark))
        sockets = [p for p in self.dir.rglob("*") if p.is_socket()]
        spilled = [p for p in self.dir.rglob("spill*/*") if p.is_file()]
        if sockets or spilled:
            raise Failed(f"files left behind: {sockets + spilled}")

    def run(self):
        try:
            self.drive()
            self.check()
        finally:
            if self.process and self.process.poll() is None:
                kill(self.process.pid)
                self.process.wait()
            for pid, _ in marked(self.mark):
                kill(pid)
        hit = [p.name for p in (self.dir / "hit").iterdir()]
        return hit, self.log.read_text(errors="replace").strip().splitlines()[-1:]


# ---- many runs ---------------------------------------------------------------------------------

class Matrix:
    """Runs seeds on a few threads; counts what was killed where."""

    def __init__(self, args, report=functools.partial(print, flush=True)):
        self.args, self.report = args, report
        self.lock = threading.Lock()
        self.hit, self.victims = collections.Counter(), collections.Counter()
        self.passed, self.failed = 0, []
        self.next = args.seed
        self.programs = programs()
        self.end = time.monotonic() + 60 * args.minutes if args.minutes else None

    def take(self):
        with self.lock:
            if self.next >= self.args.seed + self.args.runs:
                return None
            if self.end is not None and time.monotonic() > self.end:
                return None
            self.next += 1
            return Plan(self.next - 1, self.args.program or self.programs)

    def one(self, plan):
        base = os.environ.get("LIBRAY_TMPDIR") or tempfile.gettempdir()
        folder = tempfile.mkdtemp(prefix="lk-", dir=base)
        run = Run(plan, folder)
        began = time.monotonic()
        try:
            hit, last = run.run()
        except Failed as failure:
            with self.lock:
                self.failed.append(plan.seed)
                text = run.log.read_text(errors="replace").splitlines()
                self.report(f"FAILED {plan}\n  {failure}\n" + "\n".join("  | " + t for t in text[-25:])
                            + f"\n  kept: {folder}\n  again: {plan.command()}")
            return
        shutil.rmtree(folder, ignore_errors=True)
        with self.lock:
            self.passed += 1
            self.hit.update(hit)
            self.victims.update(plan.victims if plan.kills else [])
            if self.args.verbose:
                self.report(f"ok {plan}; hit {hit}; {time.monotonic() - began:.1f} s; {last}")

    def work(self):
        while (plan := self.take()) is not None:
            self.one(plan)

    def run(self):
        for program in self.args.program or self.programs:
            command_of(program)  # before the threads
        began = time.monotonic()
        threads = [threading.Thread(target=self.work) for _ in range(self.args.jobs)]
        for t in threads:
            t.start()
        told = began
        while running := [t for t in threads if t.is_alive()]:
            running[0].join(1)
            if time.monotonic() - told > 60:
                told = time.monotonic()
                self.report(f"  {self.passed} runs passed, {len(self.failed)} failed, {told - began:.0f} s")
        points = ", ".join(f"{name} {n}" for name, n in sorted(self.hit.items()))
        roles = ", ".join(f"{name} {n}" for name, n in sorted(self.victims.items()))
        self.report(f"{self.passed} runs passed, {len(self.failed)} failed in "
                    f"{time.monotonic() - began:.0f} s; runs with random kills of: {roles}; "
                    f"fault points hit: {points}")
        if self.failed:
            self.report("failed seeds: " + " ".join(map(str, sorted(self.failed))))
        return not self.failed


def parser():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--runs", type=int, default=1000)
    p.add_argument("--minutes", type=float, default=0, help="stop after so long; 0 = after all runs")
    p.add_argument("--seed", type=int, default=1, help="of the first run; the next has the next one")
    p.add_argument("--program", action="append", choices=["c", "cpp", "java", "python", "rust"],
                   help="only this one; may be repeated")
    p.add_argument("--jobs", type=int, default=1, help="runs side by side")
    p.add_argument("--verbose", action="store_true", help="a line for every run")
    return p


if __name__ == "__main__":
    sys.exit(0 if Matrix(parser().parse_args()).run() else 1)
