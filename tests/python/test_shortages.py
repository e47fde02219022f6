"""No descriptors left, no processes left, no memory for mappings: what waits is told why, and goes on when there
are some again."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap

import pytest

from conftest import alive
from test_process import session_processes

COMMON = """
import json, os, resource, sys, time
import libray

def take_all():
    "Every descriptor that this process may still have."
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return held

def give_back(held):
    for fd in held:
        os.close(fd)

def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

def daemon():
    with open(libray.core.process.session_dir() + "/session.json") as f:
        return json.load(f)["pid"]

@libray.remote
def f(x):
    return x

@libray.remote
class Actor:
    def __init__(self):
        self.held = None
    def echo(self, x):
        return x
    def hold(self):
        self.held = take_all()
        return len(self.held)
    def let_go(self):
        give_back(self.held)
    def call(self, actor):
        return libray.get(actor.echo.remote(5))
"""


def test_a_driver_without_descriptors(run_script):
    """What it has goes on; what needs a new link waits with a warning, and goes on with the first free one."""
    done = run_script(COMMON + """
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
libray.init(num_cpus=2)
actor = Actor.remote()
assert libray.get(actor.echo.remote(1), timeout=30) == 1
held = take_all()
assert libray.get([actor.echo.remote(i) for i in range(100)], timeout=30) == list(range(100))
another = Actor.remote()
ref = another.echo.remote(2)
ready, _ = libray.wait([ref], timeout=3)
give_back(held)
assert libray.get(ref, timeout=30) == 2
assert libray.get([f.remote(i) for i in range(20)], timeout=30) == list(range(20))
print("done", len(ready))
""")
    assert "done 0" in done.stdout
    assert "ulimit -n" in done.stderr


def test_a_worker_without_descriptors(run_script):
    """An actor that holds them all answers those who are linked to it; others reach it afterwards."""
    done = run_script(COMMON + """
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
libray.init(num_cpus=3)
actor, other = Actor.remote(), Actor.remote()
assert libray.get(other.echo.remote(1), timeout=30) == 1
assert libray.get(actor.hold.remote(), timeout=30) > 50
assert libray.get(actor.echo.remote(1), timeout=30) == 1
ref = other.call.remote(actor)          # a new link to the actor
assert not libray.wait([ref], timeout=2)[0]
libray.get(actor.let_go.remote(), timeout=30)
assert libray.get(ref, timeout=30) == 5
print("done")
""")
    assert "done" in done.stdout


def test_a_daemon_without_descriptors(run_script):
    """It refuses newcomers with the reason and does not spin; what runs goes on."""
    done = run_script(COMMON + """
import subprocess
context = libray.init(num_cpus=2)
actor = Actor.remote()
assert libray.get(actor.echo.remote(1), timeout=30) == 1
assert libray.get([f.remote(i) for i in range(20)], timeout=30) == list(range(20))
pid = daemon()
used = len(os.listdir(f"/proc/{pid}/fd"))
old = resource.prlimit(pid, resource.RLIMIT_NOFILE)
resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 1, old[1]))
join = [sys.executable, "-c", f"import libray; libray.init({context['session_dir']!r}); print('joined')"]
joining = [subprocess.Popen(join, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
refused = ""
for p in joining:
    out, err = p.communicate(timeout=60)
    refused += err
began, spent = time.monotonic(), cpu_seconds(pid)
assert libray.get([actor.echo.remote(i) for i in range(100)], timeout=30) == list(range(100))
more = [Actor.remote() for _ in range(3)]
refs = [a.echo.remote(3) for a in more]
assert len(libray.wait(refs, num_returns=3, timeout=3)[0]) < 3
spent, took = cpu_seconds(pid) - spent, time.monotonic() - began
assert spent < 0.5 * took + 0.3, (spent, took)
resource.prlimit(pid, resource.RLIMIT_NOFILE, old)
assert libray.get(refs, timeout=60) == [3] * 3
assert libray.get([f.remote(i) for i in range(20)], timeout=30) == list(range(20))
print(refused)
print("done")
""", timeout=120)
    assert "done" in done.stdout
    assert "ulimit -n" in done.stdout, done.stdout
    assert "ulimit -n" in done.stderr, done.stderr


# A user without other processes, whose limit therefore counts ours alone. It may read what root may, since the interpreter
# can be in root's folder.
UNPRIVILEGED = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--inh-caps=+dac_override",
                "--ambient-caps=+dac_override"]

LIMIT = COMMON + """
hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]

def limit(n, pid=0):
    resource.prlimit(pid, resource.RLIMIT_NPROC, (n, hard))
"""


@pytest.fixture
def run_unprivileged():
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("needs root and setpriv, to run as a user who has no other processes")
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 54321, 54321)

        def run(source, *args, timeout=120):
            path = os.path.join(folder, "program.py")
            with open(path, "w") as f:
                f.write(textwrap.dedent(source))
            env = {**os.environ, "HOME": folder, "LIBRAY_TMPDIR": f"{folder}/base"}
            return subprocess.run([*UNPRIVILEGED, sys.executable, path, *args], env=env, text=True,
                                  capture_output=True, timeout=timeout, cwd=folder)

        yield run


def test_no_processes_left(run_unprivileged):
    """The zygote cannot fork: the driver says why and what to do, and the actors start when it can."""
    done = run_unprivileged(LIMIT + """
libray.init(num_cpus=2)
assert libray.get(f.remote(1), timeout=30) == 1
zygotes = []
for entry in filter(str.isdigit, os.listdir("/proc")):
    try:
        command = open(f"/proc/{entry}/cmdline").read()
        parent = int(open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()[1])
    except OSError:
        continue
    if "_zygote" in command and parent == daemon():
        zygotes.append(int(entry))
assert zygotes
for pid in zygotes:
    limit(1, pid)
actors = [Actor.remote() for _ in range(4)]
refs = [a.echo.remote(1) for a in actors]
assert libray.wait(refs, num_returns=4, timeout=3)[1]
for pid in zygotes:
    limit(hard, pid)
for a in actors[:3]:
    assert libray.get(a.echo.remote(1), timeout=60) == 1
    libray.kill(a)
print("done")
""")
    assert done.returncode == 0, done.stderr
    assert "done" in done.stdout
    assert "Resource temporarily unavailable" in done.stderr and "ulimit -u" in done.stderr, done.stderr


FEW_THREADS = LIMIT + """
from libray.exceptions import RayError

extra = int(sys.argv[1])
in_use = 0
for entry in filter(str.isdigit, os.listdir("/proc")):
    try:
        if os.stat(f"/proc/{entry}").st_uid == os.getuid():
            in_use += len(os.listdir(f"/proc/{entry}/task"))
    except OSError:
        pass
limit(in_use + extra)
try:
    libray.init(num_cpus=1)
except (RayError, RuntimeError, ConnectionError) as e:
    assert "cannot start" in str(e) and "ulimit -u" in str(e), e
    print("refused")
    raise SystemExit
ref = f.remote(1)
if libray.wait([ref], timeout=15)[0]:
    print("worked")
else:
    print("waited")
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{entry}").st_uid == os.getuid():
                limit(hard, int(entry))
        except OSError:
            pass
assert libray.get(ref, timeout=60) == 1
ref = Actor.remote().echo.remote(2)
if libray.wait([ref], timeout=60 if extra >= 80 else 15)[0]:
    assert libray.get(ref) == 2
else:
    print("no actor")
libray.shutdown()
"""


@pytest.mark.parametrize("extra", [0, 3, 16, 20, 30, 36, 45, 80])
def test_few_threads_left(run_unprivileged, eventually, extra):
    """So many more than are in use: init says which limit it met, or the first task is answered, or whoever waits
    is told why and goes on when there are more. Nothing hangs, nothing stays."""
    done = run_unprivileged(FEW_THREADS, str(extra))
    assert done.returncode == 0, done.stderr
    how = done.stdout.split("\n")
    assert how[0] in ("refused", "worked", "waited"), done.stderr
    if extra < 16:
        assert how[0] == "refused"
    if extra >= 80:
        assert how[:2] == ["worked", ""]
    if how[0] == "waited" or "no actor" in how:
        assert "cannot start" in done.stderr and "ulimit -u" in done.stderr, done.stderr
    eventually(lambda: not processes_of(54321))


def processes_of(uid):
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{entry}").st_uid == uid and alive(entry):
                found.append(int(entry))
        except OSError:
            continue
    return found


NO_FORK = COMMON + """
import glob, signal
try:
    context = libray.init(num_cpus=1)
except libray.exceptions.RayError as e:
    print("refused", e)
    (session,) = glob.glob(os.environ["LIBRAY_TMPDIR"] + "/session-*")
    assert not [name for name in os.listdir(session) if name.endswith(".sock")]
    raise SystemExit
assert libray.get(f.remote(1), timeout=60) == 1
with open(context["session_dir"] + "/session.json") as file:
    for shard in json.load(file)["gcs_pids"]:
        os.kill(shard, signal.SIGKILL)
actor = Actor.options(name="known to the control store").remote()
assert libray.get(actor.echo.remote(2), timeout=60) == 2
print("worked")
"""


@pytest.mark.parametrize(
    "nth, told",
    [
        (1, None),  # the first shard
        (2, None),  # the second, while the first runs
        (3, "no worker can be started"),  # the zygote
        (4, "shard [01] of the control store does not start"),  # that is to replace one
    ],
)
def test_a_daemon_that_may_not_fork(run_script, eventually, nth, told):
    """Once: at the start that is the end of it, and nothing stays; later it tries again and says why it waits."""
    with tempfile.TemporaryDirectory() as base:  # paths of sockets are short
        env = {"LIBRAY_FAULTS": f"node.fork=fail@{nth}", "LIBRAY_TMPDIR": base}
        done = run_script(NO_FORK, env=env, timeout=150)
        eventually(lambda: not session_processes(base))
    limit = r"cannot start '.*': Resource temporarily unavailable .*(ulimit -u|limit of processes)"
    if told is None:
        assert done.stdout.startswith("refused") and re.search(limit, done.stdout), done.stdout + done.stderr
    else:
        assert done.stdout == "worked\n", done.stderr
        assert re.search(f"{told}.*{limit}", done.stderr), done.stderr


def test_workers_that_die_at_once_are_reported(run_script):
    """The driver does not wait in silence for workers that never come."""
    done = run_script(COMMON + """
libray.init(num_cpus=1)
assert libray.get(f.remote(1), timeout=30) == 1
ref = f.options(runtime_env={"env_vars": {"LIBRAY_FAULTS": "client.hello=kill"}}).remote(1)
assert not libray.wait([ref], timeout=6)[0]
print("done")
""")
    assert "done" in done.stdout
    assert "died before they had joined" in done.stderr


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_link_that_cannot_be_mapped(run_script, tmp_path, nth):
    """In the driver or a worker, whoever comes to its nth link first: another one is made, and every call is answered."""
    once = tmp_path / "once"
    once.mkdir()
    done = run_script(COMMON + """
libray.init(num_cpus=2)
actor = Actor.remote()
assert libray.get(actor.echo.remote(1), timeout=60) == 1
assert libray.get([f.remote(i) for i in range(50)], timeout=60) == list(range(50))
other = Actor.remote()
assert libray.get(other.call.remote(actor), timeout=60) == 5
print("done")
""", env={"LIBRAY_FAULTS": f"client.map_link=fail@{nth}", "LIBRAY_FAULT_ONCE": str(once)}, timeout=120)
    assert "done" in done.stdout
    assert list(once.iterdir())


def test_no_address_space(run_script):
    """A put and a get that cannot be mapped fail with an error, and the process goes on."""
    done = run_script(COMMON + """
libray.init(num_cpus=1, object_store_memory=256 << 20)
assert libray.get(f.remote(1), timeout=30) == 1

@libray.remote
def large():
    return bytes(64 << 20)

ref = large.remote()
libray.wait([ref], timeout=30)
size = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (size + (32 << 20), hard))
try:
    libray.get(ref, timeout=30)
    raise SystemExit("it was mapped")
except (MemoryError, libray.exceptions.RayError) as e:
    print(type(e).__name__, e)
assert libray.get(f.remote(2), timeout=30) == 2
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
assert len(libray.get(ref, timeout=30)) == 64 << 20
print("done")
""")
    assert "done" in done.stdout


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5, 13, 14, 15, 16, 17])
def test_a_thread_that_cannot_be_made(run_script, nth):
    """The nth thread of every process of a node is refused: init says what is missing, or all works; it never hangs."""
    done = run_script(
        """
        import libray

        @libray.remote
        def f(x):
            return x

        try:
            libray.init(num_cpus=1)
        except (libray.exceptions.RayError, RuntimeError, ConnectionError) as e:
            assert "cannot start" in str(e) and "processes" in str(e), e
            print("refused")
        else:
            assert libray.get([f.remote(i) for i in range(5)], timeout=60) == list(range(5))
            libray.shutdown()
            print("worked")
        """,
        env={"LIBRAY_FAULTS": f"thread.start=fail@{nth}"},
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] in (("refused",) if nth == 1 else ("refused", "worked"))


def test_no_memory_for_a_link(run_script):
    """Links between processes that could not be made are made a moment later."""
    done = run_script(
        """
        import libray
        libray.init(num_cpus=2)

        @libray.remote
        class Actor:
            def echo(self, x):
                return x

        @libray.remote
        def f(x):
            return x

        actor = Actor.remote()
        print(libray.get(actor.echo.remote(5)), libray.get(f.remote(6)))
        """,
        env={"LIBRAY_FAULTS": "node.link=fail@1"},
    )
    assert done.stdout.strip() == "5 6"
    assert "no memory for the link" in done.stderr
