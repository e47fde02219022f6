"""Processes that tasks and actors start: they end with their worker whatever they do to escape, they are nobody's workers,
and a child that a task forks answers nothing in its place."""

import os
import signal
import subprocess
import sys
import time

import pytest

import libray
from conftest import alive, children_of, eventually

# A process of a session of its own, one that was left behind by a shell, one that a daemon's two forks made, and one that
# knows nothing of libray.
KINDS = ("plain", "session", "left", "daemon", "bare")


def start(kind):
    """Starts a process that stays; its pid."""
    sleep = ["sleep", "600"]
    if kind == "plain":
        return subprocess.Popen(sleep).pid
    if kind == "session":
        return subprocess.Popen(sleep, start_new_session=True).pid
    if kind == "bare":
        return subprocess.Popen(["/usr/bin/env", "-i", "sleep", "600"], env={}, start_new_session=True).pid
    if kind == "left":
        done = subprocess.run("setsid sleep 600 >/dev/null 2>&1 & echo $!", shell=True, capture_output=True, text=True)
        return int(done.stdout)
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(write, b"%d" % os.getpid())
            time.sleep(600)
        os._exit(0)
    os.wait()
    return int(os.read(read, 20))


@libray.remote
class Starter:
    def start_all(self):
        return os.getpid(), [start(kind) for kind in KINDS]

    def living(self, pids):
        return [alive(pid) for pid in pids]


@libray.remote
def start_all():
    return os.getpid(), [start(kind) for kind in KINDS]


@pytest.fixture(scope="module")
def cluster():
    context = libray.init(num_cpus=2)
    yield context
    libray.shutdown()


def assert_gone(pids):
    try:
        eventually(lambda: not any(map(alive, pids)))
    finally:
        for pid in pids:
            if alive(pid):
                os.kill(pid, 9)


@pytest.mark.parametrize("how", ["kill", "drop", "signal"])
def test_what_an_actor_started_ends_with_it_and_not_before(cluster, how):
    actor, other = Starter.remote(), Starter.remote()
    worker, pids = libray.get(actor.start_all.remote(), timeout=60)
    _, others = libray.get(other.start_all.remote(), timeout=60)
    assert libray.get(actor.living.remote(pids)) == [True] * len(KINDS)
    if how == "kill":
        libray.kill(actor)
    elif how == "signal":
        os.kill(worker, signal.SIGKILL)
    del actor
    assert_gone(pids)
    assert all(map(alive, others))
    libray.kill(other)
    assert_gone(others)


def test_what_a_task_started_ends_with_its_worker(cluster):
    worker, pids = libray.get(start_all.options(max_retries=0).remote(), timeout=60)
    os.kill(worker, signal.SIGKILL)
    assert_gone(pids)


PROGRAM = """
    import os, signal, sys, time
    sys.path.insert(0, {tests!r})
    import libray
    from test_descendants import Starter, start_all
    context = libray.init(num_cpus=2)
    actor = Starter.remote()
    pids = libray.get(actor.start_all.remote())[1] + libray.get(start_all.remote())[1]
    print(context["session_dir"], *pids, flush=True)
"""


@pytest.mark.parametrize("ending", ["", "os._exit(0)", "os.kill(os.getpid(), 9)", "zygote", "daemon"])
def test_what_the_programs_workers_started_ends_with_it(run_script, ending):
    source = PROGRAM.format(tests=os.path.dirname(__file__))
    if ending in ("zygote", "daemon"):
        source += """
    from conftest import children_of, node_of
    daemon = node_of(context)["pid"]
    victims = [daemon] if {ending!r} == "daemon" else [p for p, c in children_of(daemon) if "_zygote" in c]
    for pid in victims:
        os.kill(pid, 9)
    os._exit(0)
""".format(ending=ending)
    else:
        source += "    " + ending + "\n"
    done = run_script(source, check=False)
    session, *pids = done.stdout.split()
    pids = [int(p) for p in pids]
    assert len(pids) == 2 * len(KINDS), done.stderr
    assert_gone(pids)


def test_what_ended_does_not_pile_up_in_a_worker(cluster):
    """Orphans that a worker is given are nobody's to wait for."""

    @libray.remote(num_cpus=0)
    class Many:
        def leave(self, n):
            for _ in range(n):
                subprocess.run("sleep 0 &", shell=True)
            return os.getpid()

    actor = Many.remote()
    pid = libray.get(actor.leave.remote(400), timeout=120)
    eventually(lambda: len(children_of(pid)) <= 256, seconds=30)
    libray.kill(actor)


# ---- programs that tasks start -----------------------------------------------------------------------------

INNER = """
import os, sys, libray
assert "LIBRAY_WORKER" not in os.environ
libray.init(num_cpus=1)

@libray.remote
def g():
    return 3, os.getcwd(), libray.get_runtime_context().runtime_env

print(libray.get(g.remote()), libray.get_runtime_context().runtime_env)
"""


def test_a_program_that_a_task_starts_has_a_cluster_of_its_own(cluster, tmp_path):
    (tmp_path / "mine").mkdir()

    @libray.remote(runtime_env={"env_vars": {"LR_A": "1"}, "working_dir": str(tmp_path / "mine")})
    def outer(where):
        done = subprocess.run(
            [sys.executable, "-c", INNER], capture_output=True, text=True, timeout=60, cwd=where, env=dict(os.environ)
        )
        return done.stdout.strip() or done.stderr

    where = str(tmp_path)
    assert libray.get(outer.remote(where), timeout=120) == f"(3, {where!r}, {{}}) {{}}"


@pytest.mark.parametrize("kilobytes", [100, 200, 1500])
def test_a_large_environment(run_script, kilobytes):
    env = {f"LR_BIG_{i}": "x" * 50000 for i in range(kilobytes // 50)}
    done = run_script(
        """
        import libray, os
        libray.init(num_cpus=1)

        @libray.remote
        def size():
            return sum(len(v) for k, v in os.environ.items() if k.startswith("LR_BIG_"))

        print(libray.get(size.remote(), timeout=50))
        """,
        env=env,
    )
    assert int(done.stdout) == 50000 * len(env)


def test_an_environment_with_which_no_program_starts_says_so(run_script):
    done = run_script("""
        import libray, os
        os.environ["LR_BIG"] = "x" * 200000
        try:
            libray.init(num_cpus=1)
        except Exception as e:
            print(e)
    """)
    assert "128 KiB" in done.stdout


# ---- children that a task forks ----------------------------------------------------------------------------


def fork_and(how, path=None):
    """In the parent "parent", as soon as the child has left; the child leaves as told."""
    child = os.fork()
    if child == 0:
        if how == "exit":
            sys.exit(3)
        if how == "error":
            raise ValueError("of the child")
        if how == "thread":
            import threading

            threading.Thread(target=lambda: (time.sleep(0.1), open(path, "w").close())).start()
        return "child"
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "parent", status


STATUS = {"exit": 3, "error": 1, "return": 0, "thread": 0}


@libray.remote(max_retries=0)
def task(how, path):
    return fork_and(how, path)


@libray.remote(max_retries=0)
def other(i):
    return i


@libray.remote(max_retries=0, num_returns="streaming")
def stream(how):
    yield fork_and(how)
    yield os.getpid()


@libray.remote
class Plain:
    def run(self, how, path):
        return fork_and(how, path)

    def items(self, how):
        yield fork_and(how)
        yield os.getpid()


@libray.remote(max_concurrency=3)
class Threads:
    def run(self, how, path):
        return fork_and(how, path)


@libray.remote
class Async:
    async def run(self, how, path):
        return fork_and(how, path)

    async def wait(self):
        import asyncio

        child = os.fork()
        if child == 0:
            await asyncio.sleep(0)
            os._exit(77)  # not reached: it has no loop
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("how", sorted(STATUS))
def test_the_child_of_a_task_does_not_answer_for_it(cluster, tmp_path, how, capfd):
    path = str(tmp_path / "done")
    assert libray.get(task.remote(how, path), timeout=30) == ("parent", STATUS[how])
    assert libray.get([other.remote(i) for i in range(200)], timeout=30) == list(range(200))
    assert os.path.exists(path) == (how == "thread")  # threads that the child started have their time


@pytest.mark.parametrize("how", sorted(set(STATUS) - {"thread"}))
@pytest.mark.parametrize("kind", ["Plain", "Threads", "Async"])
def test_the_child_of_an_actor_does_not_answer_for_it(cluster, how, kind):
    actor = globals()[kind].remote()
    for _ in range(3):
        assert libray.get(actor.run.remote(how, None), timeout=30) == ("parent", STATUS[how])
    assert libray.get([other.remote(i) for i in range(50)], timeout=30) == list(range(50))
    libray.kill(actor)


@pytest.mark.parametrize("how", sorted(set(STATUS) - {"thread"}))
def test_the_child_of_a_generator_yields_nothing(cluster, how):
    items = [libray.get(ref) for ref in stream.remote(how)]
    assert items[0] == ("parent", STATUS[how]) and len(items) == 2
    actor = Plain.remote()
    items = [libray.get(ref) for ref in actor.items.options(num_returns="streaming").remote(how)]
    assert items[0] == ("parent", STATUS[how]) and len(items) == 2


def test_the_child_of_an_asyncio_actor_has_no_loop(cluster):
    actor = Async.remote()
    assert libray.get(actor.wait.remote(), timeout=30) == 1
    assert libray.get(actor.run.remote("return", None), timeout=30) == ("parent", 0)


def test_a_child_that_goes_on_may_start_a_cluster_of_its_own(cluster):
    @libray.remote
    def f():
        read, write = os.pipe()
        if os.fork() == 0:
            assert not libray.is_initialized()
            libray.init(num_cpus=1)
            os.write(write, b"%d" % libray.get(other.remote(7)))
            libray.shutdown()
            os._exit(0)
        os.wait()
        return os.read(read, 20)

    assert libray.get(f.remote(), timeout=60) == b"7"
    assert libray.get(other.remote(1), timeout=30) == 1
