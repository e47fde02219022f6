"""A running driver: sends it programs, reads its answers, breaks things when it asks, and looks at what is left."""
import os
import resource
import select
import signal
import sqlite3
import subprocess
import threading
import time
import uuid
from pathlib import Path

MARK = "LIBRAY_TEST_CLUSTER"
SLOW = float(os.environ.get("LIBRAY_TEST_SLOW", "1"))
SHARD_DEATHS = 3  # in one session: a shard that dies again and again is started ever later


class Hung(Exception):
    """No line came within the bound."""


class Died(Exception):
    """The driver ended."""


def unpack(data, at=0):
    """A MessagePack value and where it ends; as much as queries need."""
    c = data[at]
    big = lambda n: int.from_bytes(data[at + 1:at + 1 + n], "big")
    text = lambda start, n: (data[start:start + n].decode(errors="replace"), start + n)

    def many(start, n, pairs):
        out = {} if pairs else []
        for _ in range(n):
            k, start = unpack(data, start)
            if pairs:
                out[k], start = unpack(data, start)
            else:
                out.append(k)
        return out, start

    if c < 0x80 or c >= 0xe0:
        return (c if c < 0x80 else c - 256), at + 1
    if c < 0x90:
        return many(at + 1, c & 15, True)
    if c < 0xa0:
        return many(at + 1, c & 15, False)
    if c < 0xc0:
        return text(at + 1, c & 31)
    if c in (0xc0, 0xc2, 0xc3):
        return {0xc0: None, 0xc2: False, 0xc3: True}[c], at + 1
    if 0xc4 <= c <= 0xc6:
        n = 1 << (c - 0xc4)
        return data[at + 1 + n:at + 1 + n + big(n)].hex(), at + 1 + n + big(n)
    if c == 0xcb:
        import struct
        return struct.unpack(">d", data[at + 1:at + 9])[0], at + 9
    if 0xcc <= c <= 0xcf:
        n = 1 << (c - 0xcc)
        return big(n), at + 1 + n
    if 0xd0 <= c <= 0xd3:
        n = 1 << (c - 0xd0)
        return int.from_bytes(data[at + 1:at + 1 + n], "big", signed=True), at + 1 + n
    if 0xd9 <= c <= 0xdb:
        n = 1 << (c - 0xd9)
        return text(at + 1 + n, big(n))
    n = 2 << (c - (0xdc if c < 0xde else 0xde))
    return many(at + 1 + n, big(n), c >= 0xde)


def marked(mark):
    """(pid, command line) of every living process that carries the mark."""
    needle, found = f"{MARK}={mark}".encode(), []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as f:
                if needle not in f.read().split(b"\0"):
                    continue
            with open(f"/proc/{name}/stat") as f:
                if f.read().rsplit(")", 1)[1].split()[0] in "ZX":
                    continue
            with open(f"/proc/{name}/cmdline", "rb") as f:
                found.append((int(name), f.read().replace(b"\0", b" ").decode(errors="replace").strip()))
        except (OSError, IndexError):
            continue
    return found


class Heart(threading.Thread):
    """Sleeps for 10 ms again and again, and keeps how late it woke: how much of the machine others took meanwhile."""

    def __init__(self):
        super().__init__(daemon=True)
        self.late, self.most, self.over = 0.0, 0.0, False
        self.start()

    def run(self):
        while not self.over:
            began = time.monotonic()
            time.sleep(0.01)
            late = time.monotonic() - began - 0.01
            self.late += late
            self.most = max(self.most, late)


def stolen():
    """Seconds that the machine's processors were taken from it by others, since it started."""
    with open("/proc/stat") as f:
        return int(f.readline().split()[8]) / os.sysconf("SC_CLK_TCK")


class Session:
    """One driver with a node of its own."""

    def __init__(self, command, setup, folder, bound=20.0, files=0, environment=None):
        self.mark, self.folder, self.bound = uuid.uuid4().hex, Path(folder), bound * SLOW
        self.folder.mkdir(parents=True, exist_ok=True)
        env = dict(os.environ, LIBRAY_TMPDIR=str(self.folder), **(environment or {}))
        env[MARK] = self.mark
        env.setdefault("LIBRAY_CHECKS", "2")  # the node ends when anything is released more often than held
        env.pop("LIBRAY_ADDRESS", None)

        def limit():
            if files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        self.log = open(self.folder / "driver.log", "w")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                                        env=env, bufsize=0, preexec_fn=limit)
        self.buffer = b""
        self.shards_killed, self.killed = 0, []
        self.heart = Heart()
        self.begin()
        try:
            self.send(f"init {setup} bound={int(self.bound * 1000)}")
            line = self.line(30 * SLOW)
            if line[0] != "started":
                raise Died("did not start: " + " ".join(line))
            self.directory = Path(line[2])
        except BaseException:
            self.kill()
            raise

    def begin(self):
        """A new program: what `story` tells begins here."""
        self.faults, self.began, self.stolen = [], time.monotonic(), stolen()
        self.late, self.heart.most = self.heart.late, 0.0

    def story(self):
        """Which faults there were in the program, and how busy the machine was: for people who look why it failed."""
        seconds = time.monotonic() - self.began
        faults = ", ".join(self.faults) or "none"
        late, gone = self.heart.late - self.late, stolen() - self.stolen
        return f"\n    faults: {faults}\n    after {seconds:.1f} s; a thread that sleeps was late by {late:.2f} s in all, " \
               f"{self.heart.most:.2f} s at most; stolen {gone:.1f} s"

    def send(self, text):
        try:
            self.process.stdin.write(text.encode() + b"\n")
        except BrokenPipeError:
            raise Died("the driver ended") from None

    def line(self, seconds):
        end = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Hung(f"no answer for {seconds:.0f} s")
            more = os.read(self.process.stdout.fileno(), 1 << 16)
            if not more:
                raise Died(f"the driver ended with status {self.process.wait()}")
            self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode(errors="replace").split()

    def run(self, text, limit=None):
        """Runs a program; {path: [answers]} in the order in which they came."""
        answers = {}
        self.send("run " + text)
        while True:
            try:
                line = self.line(limit or 3 * self.bound)
            except (Hung, Died) as problem:
                problem.answers = answers
                raise
            if line[0] == "done":
                return answers
            if line[0] == "a":
                answers.setdefault(line[1], []).append(line[2:])
            elif line[0] == "f":
                self.send("ok" if self.fault(line[1], int(line[2])) else "no")

    def query(self, what):
        self.send("query " + what)
        line = self.line(30 * SLOW)
        if len(line) < 2:
            raise Died(f"the node does not answer what there is of {what}")
        return unpack(bytes.fromhex(line[1]))[0]

    # -- faults
    def processes(self, role):
        found = []
        for pid, command in sorted(marked(self.mark)):
            is_role = "shard" if "rayd gcs" in command else "node" if "rayd node" in command else "worker"
            if is_role == role and pid != self.process.pid and "--join" not in command and "zygote" not in command:
                found.append(pid)
        return found

    def fault(self, kind, n):
        role = {"kill": "worker", "stop": "worker", "slow": "shard", "shard": "shard", "node": "node"}.get(kind)
        if role is None:
            return False
        pids = self.processes(role)
        if not pids:
            return False
        pid = pids[n % len(pids)]
        if kind == "shard":
            if self.shards_killed == SHARD_DEATHS:
                return False
            self.shards_killed += 1
        try:
            if kind in ("stop", "slow"):
                os.kill(pid, signal.SIGSTOP)
                subprocess.Popen(["sh", "-c", f"sleep {0.02 + n % 7 * 0.05}; kill -CONT {pid} 2>/dev/null"])
            else:
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)
        except ProcessLookupError:
            return False
        self.faults.append(f"{kind} {role} {pid} at {time.monotonic() - self.began:.3f}")
        return True

    # -- the end
    def unquiet(self, leases):
        """What is not as in a node where nothing happens; "" when all is. `leases`: workers that somebody keeps for a
        next task count too."""
        self.killed = [pid for pid in self.killed if os.path.exists(f"/proc/{pid}")]
        if self.killed:  # not reaped yet: its node does not know
            return f"processes {self.killed} have not ended"
        refs = self.query("references")
        if refs:
            return f"references are left: {refs[:3]}"
        held = self.query("directory")
        if held:
            return "in the directory: " + "; ".join(held[:12])
        total, available = self.query("resources"), self.query("available")
        if total != available:
            return f"available {available} of {total}"
        store = self.query("store")
        if store:
            return f"in the store: {len(store)} objects, {sum(r['size'] for r in store)} bytes: {store[:3]}"
        workers = self.query("workers")
        busy = [w for w in workers if w["kind"] == "worker" and (w["actor"] or leases and any(w["resources"].values()))]
        if busy:
            return f"workers hold something: {busy[:3]}"
        drivers = [w for w in workers if w["kind"] == "driver"]
        if len(drivers) != 1:
            return f"{len(drivers)} drivers"
        running = self.query("running")
        return f"running: {running[:3]}" if running else ""

    def settle(self, leases=False, seconds=8.0, most=80.0):
        """Waits until all is quiet; what is not when nothing has changed for `seconds`, or after `most`. (A tree of tasks that
        nobody waits for may have a hundred attempts that crash, each with a process of its own.)"""
        began, pause, state = time.monotonic(), 0.002, None
        changed = began
        while left := self.unquiet(leases):
            now = time.monotonic()
            if now - began > seconds / 8 and (new := self.under_way()) != state:
                changed, state = now, new
            if now - changed > seconds * SLOW or now - began > most * SLOW:
                return f"{left}\n    the last change was {now - changed:.1f} s ago; {self.still()}"
            time.sleep(pause)
            pause = min(0.1, pause * 1.5)
        return ""

    def still(self):
        """What runs, and who holds what: what is left may be a task's that will never end, and is no leak then."""
        workers = [(w["worker"], w["pid"], w["state"], w["resources"]) for w in self.query("workers") if w["kind"] == "worker"]
        return f"running: {self.query('running')[:8]}; workers: {workers[:16]}"

    def under_way(self):
        """What changes as long as anything goes on: processes of workers, and what they run."""
        return [w["pid"] for w in self.query("workers")], self.query("running")

    def reach_shards(self):
        """After faults of shards: waits until all answer again, so that the next program is not told of this one's faults."""
        end = time.monotonic() + self.bound
        text = ";".join(f"kvget ~{i}" for i in range(16))  # some on each of them
        while wrong := [a[0] for a in self.run(text).values() if a[0][:2] != ["e", "NOT_FOUND"]]:
            if time.monotonic() > end:
                raise Hung(f"the shards do not answer: {wrong[:3]}")

    def counts(self):
        self.send("count")
        return [int(x) for x in self.line(10)[1:]]

    def end(self, expected="RAY_OK"):
        """Ends driver and node in order; what is wrong with that, or "". `expected`: the code, None = any."""
        self.send("end")
        line = self.line(60 * SLOW)
        self.process.stdin.close()
        code = self.process.wait(30)
        if line[0] != "bye" or expected and line[1] != expected or code:
            return f"the end: {' '.join(line)}, status {code}"
        until = time.monotonic() + 10 * SLOW
        left = marked(self.mark)
        while left and time.monotonic() < until:
            time.sleep(0.01)
            left = marked(self.mark)
        if left:
            return f"processes are left: {left}"
        files = [p for p in self.folder.rglob("*") if p.is_socket()] + [p for p in self.folder.rglob("spill*/*") if p.is_file()]
        return f"files are left: {files}" if files else ""

    def kill(self):
        self.heart.over = True
        for pid, _ in marked(self.mark):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def rows(self, sql):
        """Of all shards' readable tables, after the end."""
        found = []
        for path in sorted(self.directory.glob("gcs-*.db")):
            db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            found += db.execute(sql).fetchall()
            db.close()
        return found
