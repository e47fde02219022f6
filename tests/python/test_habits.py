"""What programs do beside calling tasks: Ctrl-C, signals, forks, threads, event loops, odd ways to be
started. Each program runs in an interpreter and a process group of its own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

import pytest

from conftest import eventually, wait_until_it_blocks
from test_process import session_processes

START = """
import asyncio, os, signal, sys, threading, time
import libray

context = libray.init(num_cpus=2)

@libray.remote
def slow():
    time.sleep(100)

@libray.remote
def stream():
    yield 1
    time.sleep(100)

@libray.remote
class Actor:
    def slow(self):
        time.sleep(100)
    async def slow_too(self):
        await asyncio.sleep(100)
    async def quick(self):
        return 1

actor = Actor.remote()
libray.get(actor.quick.remote())
print(context["session_dir"], flush=True)
"""


def start(tmp_path, source, **options):
    path = tmp_path / "program.py"
    path.write_text(source)
    return subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=tmp_path,
        **options,
    )


WAITS = {
    "get": "libray.get(slow.remote())",
    "get of a list": "libray.get([slow.remote(), slow.remote()])",
    "wait": "libray.wait([slow.remote()])",
    "an actor's call": "libray.get(actor.slow_too.remote())",
    "the next item": "g = stream.remote(); next(g); next(g)",
    "await": "async def main(): await slow.remote()\nasyncio.run(main())",
    "future": "slow.remote().future().result()",
    "another thread's get": (
        "t = threading.Thread(target=lambda: libray.get(slow.remote()), daemon=True)\n"
        "t.start()\nt.join()"
    ),
}


@pytest.mark.parametrize("what", WAITS)
def test_control_c(tmp_path, what):
    program = start(tmp_path, START + WAITS[what] + "\n")
    session = program.stdout.readline().strip()
    wait_until_it_blocks(program.pid)
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to the whole group
    out, err = program.communicate(timeout=30)
    assert program.returncode in (-signal.SIGINT, 130), err
    assert "KeyboardInterrupt" in err
    assert "pid=" not in err and "pid=" not in out, "the workers have nothing to say about it"
    eventually(lambda: not session_processes(session))


def test_control_c_is_an_exception_like_any_other(tmp_path):
    """The program goes on after it, with the same cluster."""
    program = start(
        tmp_path,
        START
        + textwrap.dedent("""
            @libray.remote
            def add(a, b):
                return a + b

            for _ in range(2):
                try:
                    libray.get(slow.options(num_cpus=0.5).remote())
                except KeyboardInterrupt:
                    print("caught", libray.get(add.options(num_cpus=0.5).remote(1, 2)), flush=True)
        """),
    )
    session = program.stdout.readline().strip()
    for _ in range(2):
        wait_until_it_blocks(program.pid)
        os.killpg(program.pid, signal.SIGINT)
        assert program.stdout.readline() == "caught 3\n"
    assert program.wait(timeout=30) == 0
    eventually(lambda: not session_processes(session))


@pytest.mark.parametrize("delay", [0.02, 0.1, 0.2, 0.4])
def test_control_c_during_the_start(tmp_path, delay):
    """Whenever it comes: the program ends or starts anew, and nothing is left."""
    sessions = tempfile.mkdtemp(dir="/tmp")  # socket paths are short
    environment = {**os.environ, "LIBRAY_TMPDIR": sessions}
    program = start(
        tmp_path,
        textwrap.dedent("""
            import libray
            print("imported", flush=True)
            try:
                libray.init(num_cpus=1)
                libray.get(libray.put(1))
            except KeyboardInterrupt:
                pass
            if not libray.is_initialized():
                libray.init(num_cpus=1)
            print(libray.get(libray.put(2)), flush=True)
        """),
        env=environment,
    )
    program.stdout.readline()
    time.sleep(delay)
    os.killpg(program.pid, signal.SIGINT)
    out, err = program.communicate(timeout=60)
    assert out == "2\n" or "KeyboardInterrupt" in err, (out, err)
    eventually(lambda: not session_processes(sessions))
    shutil.rmtree(sessions)


def test_sigterm_ends_in_order(tmp_path):
    program = start(
        tmp_path,
        START
        + textwrap.dedent("""
            import atexit
            atexit.register(lambda: print("at exit", flush=True))
            try:
                libray.get(slow.remote())
            finally:
                print("finally", flush=True)
        """),
    )
    session = program.stdout.readline().strip()
    wait_until_it_blocks(program.pid)
    program.terminate()
    out, err = program.communicate(timeout=30)
    assert out == "finally\nat exit\n" and err == "" and program.returncode == 128 + 15
    eventually(lambda: not session_processes(session))


def test_own_sigterm_handler_stays(run_script):
    done = run_script("""
        import signal
        import libray
        mine = lambda *a: None
        signal.signal(signal.SIGTERM, mine)
        libray.init(num_cpus=1)
        print(signal.getsignal(signal.SIGTERM) is mine)
    """)
    assert done.stdout == "True\n"


def test_second_init_explains_itself(run_script):
    done = run_script("""
        import libray
        first = libray.init(num_cpus=1)
        try:
            libray.init()
        except RuntimeError as e:
            print("ignore_reinit_error=True" in str(e) and "shutdown()" in str(e))
        print(libray.init(ignore_reinit_error=True)["session_dir"] == first["session_dir"])
    """)
    assert done.stdout.split() == ["True", "True"]


def test_forked_child(run_script):
    """The child has nothing of the parent's cluster; it may start its own; its end is its own."""
    done = run_script("""
        import os, sys
        import libray

        context = libray.init(num_cpus=1)

        @libray.remote
        def f(x):
            return x + 1

        ref = f.remote(1)
        def child(body):
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    body()
                    code = 0
                finally:
                    sys.stdout.flush()
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

        def foreign_ref():
            try:
                libray.get(ref, timeout=10)
            except Exception as e:
                print(type(e).__name__, e)

        def own_cluster():
            own = libray.init(num_cpus=1, ignore_reinit_error=False)
            print("own", own["session_dir"] != context["session_dir"], libray.get(f.remote(10)))
            libray.shutdown()

        def exits_by_exception():
            class Quiet(Exception):
                pass
            try:
                raise Quiet
            except Quiet:
                pass

        child(foreign_ref)
        child(own_cluster)
        child(exits_by_exception)
        print("parent", libray.get(ref), libray.get(f.remote(2)))
    """)
    lines = done.stdout.splitlines()
    assert lines[-2:] == ["own True 11", "parent 2 3"]
    assert "does not survive fork()" in lines[0]


def test_sigterm_of_a_forked_child_is_plain(run_script):
    done = run_script("""
        import multiprocessing, time
        import libray

        libray.init(num_cpus=1)
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(100,))
        child.start()
        child.terminate()
        child.join()
        print(child.exitcode)
    """)
    assert done.stdout == "-15\n"


def test_multiprocessing(run_script):
    """Pools that fork or spawn, in the driver, in a task and in an actor."""
    done = run_script("""
        import math, multiprocessing
        import libray

        def with_libray(address):
            import libray
            libray.init(address=address)
            return libray.get(libray.put("joined"))

        def roots(kind):
            with multiprocessing.get_context(kind).Pool(2) as pool:
                return pool.map(math.sqrt, [1, 4, 9])

        @libray.remote
        def task(kind):
            return roots(kind)

        @libray.remote
        class Actor:
            def run(self, kind):
                return roots(kind)

        if __name__ == "__main__":
            context = libray.init(num_cpus=2)
            for kind in ("fork", "spawn"):
                actor = Actor.remote()
                print(roots(kind), libray.get(task.remote(kind)), libray.get(actor.run.remote(kind)))
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.apply(with_libray, (context["session_dir"],)))
    """)
    assert done.stdout.splitlines() == ["[1.0, 2.0, 3.0] [1.0, 2.0, 3.0] [1.0, 2.0, 3.0]"] * 2 + [
        "joined"
    ]


def test_threads(cluster):
    """Many threads submit, call, put and get at the same time."""
    from concurrent.futures import ThreadPoolExecutor

    import libray

    @libray.remote
    def double(x):
        return 2 * x

    @libray.remote
    class Adder:
        def add(self, x):
            return x + 1

    def work(k):
        adder = Adder.remote()
        total = 0
        for i in range(30):
            total += libray.get(double.remote(i))
            total += libray.get(adder.add.remote(libray.put(i)))
            ready, rest = libray.wait([double.remote(k)], num_returns=1)
            total += libray.get(ready[0]) - 2 * k
        return total

    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(work, range(12)))
    assert results == [sum(2 * i + i + 1 for i in range(30))] * 12


def test_inside_a_running_loop(cluster):
    """As in a notebook: the loop runs already; get blocks it but works, await does not block it."""
    import asyncio

    import libray

    @libray.remote
    def f(x):
        time.sleep(0.05)
        return x

    async def main():
        blocking = libray.get(f.remote(1))
        ready, _ = libray.wait([f.remote(2)])
        return blocking, libray.get(ready[0]), await f.remote(3), await asyncio.gather(
            f.remote(4), f.remote(5)
        )

    assert asyncio.run(main()) == (1, 2, 3, [4, 5])


def test_blocking_get_in_an_asyncio_actor_warns(run_script):
    done = run_script("""
        import time
        import libray
        libray.init(num_cpus=2)

        @libray.remote
        def slow():
            time.sleep(0.3)
            return 1

        @libray.remote
        class Actor:
            async def run(self):
                return libray.get(slow.remote()) + libray.get(slow.remote())

        print(libray.get(Actor.remote().run.remote()))
    """)
    assert done.stdout == "2\n"
    assert done.stderr.count("inside an asyncio actor") == 1 and "(Actor pid=" in done.stderr


PLAIN = """
import libray

class Point:
    def __init__(self, x):
        self.x = x

def helper(p):
    return Point(p.x + 1)

@libray.remote
def move(p):
    return helper(p)

libray.init(num_cpus=1)
point = libray.get(move.remote(Point(1)))
print(type(point) is Point, point.x)
"""


# As it is typed: an empty line ends a block, and no other is there.
TYPED = (
    PLAIN.replace("\n\n", "\n")
    .replace("\ndef", "\n\ndef")
    .replace("\n@", "\n\n@")
    .replace("remote\n\ndef", "remote\ndef")
    .replace("\nlibray.init", "\n\nlibray.init")
    .replace("\nclass", "\n\nclass")
    .replace("\n\n    def", "\n    def")
)


@pytest.mark.parametrize("how", ["-c", "stdin", "-m", "file", "interactive"])
def test_ways_to_start(tmp_path, how):
    """Classes and functions of `__main__`, whatever `__main__` is."""
    (tmp_path / "program.py").write_text(PLAIN)
    command = {
        "-c": ["-c", PLAIN],
        "stdin": ["-"],
        "-m": ["-m", "program"],
        "file": ["program.py"],
        "interactive": ["-i", "-q"],
    }[how]
    done = subprocess.run(
        [sys.executable, *command],
        input=TYPED if how == "interactive" else PLAIN,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and "True 2" in done.stdout, done.stderr


def test_sys_path_of_workers(tmp_path):
    """The script's folder is on the workers' path; under -m it is not unless Python put it there."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "beside.py").write_text("VALUE = 'beside'\n")
    (tmp_path / "scripts" / "program.py").write_text(
        textwrap.dedent("""
            import os, sys
            import libray

            @libray.remote
            def f():
                import beside
                return beside.VALUE

            @libray.remote
            def has(folder):
                return folder in sys.path

            libray.init(num_cpus=1)
            folder = os.path.dirname(os.path.abspath(__file__))
            try:
                print(libray.get(f.remote()), libray.get(has.remote(folder)))
            except ImportError:
                print("no module", libray.get(has.remote(folder)))
        """)
    )
    (tmp_path / "scripts" / "__init__.py").write_text("")

    def run(*command):
        return subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, timeout=60, cwd=tmp_path
        ).stdout

    assert run("scripts/program.py") == "beside True\n"
    assert run("-m", "scripts.program") == "no module False\n"


def test_forgotten_shutdown_in_odd_ends(run_script):
    """Results that nobody got, threads that still wait, handlers that still call: the program ends."""
    done = run_script("""
        import atexit, threading, time
        import libray

        @libray.remote
        def slow(x=0):
            time.sleep(x)
            return x

        def late():  # registered before libray's own: runs after it
            print("late", libray.is_initialized())

        atexit.register(lambda: print("early", libray.get(slow.remote())))
        libray.init(num_cpus=1)
        keep = [slow.remote(100) for _ in range(3)]
        libray.cancel(keep[0], force=True)
        for ref in keep[1:]:
            libray.cancel(ref)
        waiter = slow.remote(50)
        threading.Thread(target=lambda: libray.wait([waiter]), daemon=True).start()
        libray.cancel(waiter, force=True)
    """)
    assert done.stdout.splitlines() == ["early 0"]


def test_crash_in_a_worker_shows_its_stack(run_script):
    done = run_script("""
        import libray
        libray.init(num_cpus=1)

        @libray.remote(max_retries=0)
        def crashes():
            import ctypes
            ctypes.string_at(0)

        try:
            libray.get(crashes.remote())
        except libray.exceptions.WorkerCrashedError:
            print("crashed")
    """)
    assert done.stdout.splitlines()[-1] == "crashed"
    assert "Segmentation fault" in done.stderr and "in crashes" in done.stderr


def test_the_daemon_keeps_nothing_open_of_the_program(run_script):
    """However high the number: else whoever reads the other end of such a pipe would wait for its end."""
    done = run_script("""
        import json, os, resource
        import libray
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
        read, write = os.pipe()
        for fd in (40, 1023, 1024, 5000):
            os.dup2(write, fd, inheritable=True)
        context = libray.init(num_cpus=1)
        with open(context["session_dir"] + "/session.json") as f:
            daemon = json.load(f)["pid"]
        mine = os.stat(read).st_ino
        for fd in os.listdir(f"/proc/{daemon}/fd"):
            try:
                assert os.stat(f"/proc/{daemon}/fd/{fd}").st_ino != mine, fd
            except FileNotFoundError:
                pass
        print("closed")
    """)
    assert done.stdout == "closed\n"
