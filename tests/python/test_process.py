"""Life of the processes: nothing is left behind; Ctrl-C; forks; exit without shutdown; import of
the package."""

import os
import signal
import subprocess
import sys
import time

import pytest

import libray
from conftest import alive, eventually, wait_until_it_blocks


def session_processes(session):
    """Processes whose environment or command names the session."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            text = (
                open(f"/proc/{pid}/environ", "rb").read()
                + open(f"/proc/{pid}/cmdline", "rb").read()
            )
        except OSError:
            continue
        if session.encode() in text and int(pid) != os.getpid() and alive(int(pid)):
            found.append(int(pid))
    return found


PROGRAM = """
    import libray, os, sys, time
    context = libray.init(num_cpus=2)

    @libray.remote
    def f(x):
        return x

    @libray.remote
    class A:
        def m(self):
            return os.getpid()

    a = A.remote()
    libray.get([f.remote(1), a.m.remote()])
    print(context["session_dir"], flush=True)
"""


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "libray.shutdown()",
        "os._exit(0)",
        "os.kill(os.getpid(), 9)",
        "sys.exit(0)",
        "raise RuntimeError('end')",
    ],
)
def test_nothing_is_left(run_script, ending):
    done = run_script(PROGRAM + "    " + ending + "\n", check=False)
    session = done.stdout.split()[0]
    eventually(lambda: not session_processes(session))
    assert (
        not [name for name in os.listdir(session) if name.endswith(".sock")]
        if os.path.isdir(session)
        else True
    )


def test_control_c_ends_a_program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text("""
import libray, time
context = libray.init(num_cpus=1)

@libray.remote
def slow():
    time.sleep(100)

ref = slow.remote()
print(context["session_dir"], flush=True)
try:
    libray.get(ref)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    raise
""")
    program = subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    session = program.stdout.readline().strip()
    wait_until_it_blocks(program.pid)
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to the whole group
    out, err = program.communicate(timeout=30)
    assert (
        out.strip() == "interrupted" and err.count("Traceback") == 1 and "KeyboardInterrupt" in err
    )
    eventually(lambda: not session_processes(session))


def test_fork_in_a_driver(run_script):
    done = run_script("""
        import libray, os, multiprocessing

        libray.init(num_cpus=1)

        @libray.remote
        def f(x):
            return x + 1

        ref = f.remote(1)
        pid = os.fork()
        if pid == 0:
            os._exit(0 if not libray.is_initialized() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(abs, [-1, -2]))
        print(libray.get(ref))
    """)
    assert done.stdout.split("\n")[:2] == ["[1, 2]", "2"]


def test_a_forked_child_inherits_no_locked_lock(run_script):
    run_script("""
        import libray, os, threading
        from libray.api import awaiting
        from libray.core import definition, serialization
        from libray.driver import progress_bars, start
        libray.install_as_ray()
        from ray.util import metrics

        def locks():
            yield definition._lock
            yield serialization._deep.lock
            yield awaiting._entries_lock
            yield awaiting._fetch_lock
            yield awaiting._notifier_lock
            yield start._starting
            yield metrics._lock
            yield progress_bars.instance().lock
            yield progress_bars._manager_lock

        held, end = threading.Event(), threading.Event()

        def hold():
            for lock in locks():
                lock.acquire()
            held.set()
            end.wait()
            os._exit(0)  # without a thought of the locks

        threading.Thread(target=hold, daemon=True).start()
        held.wait()
        pid = os.fork()
        if pid == 0:
            os._exit(0 if all(lock.acquire(timeout=20) for lock in locks()) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        end.set()
    """)


def test_a_forked_child_drops_what_it_inherited(run_script):
    """That is nothing to the parent: not the rings, not the counts, not an actor's last handle."""
    done = run_script("""
        import libray, multiprocessing

        libray.init(num_cpus=2)

        @libray.remote
        def f(x):
            return x

        @libray.remote
        class Counter:
            n = 0

            def add(self):
                self.n += 1
                return self.n

        shared = libray.put(list(range(5)))
        libray.get(f.remote([shared]))
        counter = Counter.remote()
        libray.get(counter.add.remote())

        def drop():
            global shared, counter
            shared = counter = None

        child = multiprocessing.get_context("fork").Process(target=drop)
        child.start()
        child.join()
        for i in range(200):
            x = libray.put(i)
            assert libray.get(libray.get(f.remote([x]), timeout=20)[0], timeout=20) == i
            del x
        print(child.exitcode, libray.get(shared), libray.get(counter.add.remote(), timeout=20))
    """)
    assert done.stdout == "0 [0, 1, 2, 3, 4] 2\n"


def test_an_inherited_array_does_not_change(run_script):
    """The parent drops it and fills the store with others while the child reads."""
    done = run_script("""
        import libray, numpy, os

        libray.init(num_cpus=1, object_store_memory=100 << 20)
        array = libray.get(libray.put(numpy.full(30 << 20, 1, numpy.uint8)))
        go, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(go, 1)
            os._exit(0 if (array == 1).all() else 1)
        del array
        for i in range(2, 10):
            libray.get(libray.put(numpy.full(30 << 20, i, numpy.uint8)))
        os.write(told, b"x")
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """)
    assert done.stdout == "0\n"


def test_import_is_light(run_script):
    done = run_script("""
        import sys
        import libray
        print([m for m in ("numpy", "asyncio", "concurrent.futures", "ctypes") if m in sys.modules])
    """)
    assert done.stdout.strip() == "[]"


def test_init_twice_in_a_row(run_script):
    done = run_script("""
        import libray
        @libray.remote
        def f(): return 1
        for _ in range(3):
            libray.init(num_cpus=1)
            assert libray.get(f.remote()) == 1
            libray.shutdown()
        print("fine")
    """)
    assert done.stdout.strip() == "fine"


def test_threads_that_start_the_runtime_at_once(run_script):
    done = run_script("""
        import threading, libray
        @libray.remote
        def f(x):
            print("seen once")
            return x
        got, errors = [], []
        def call(k):
            try:
                if k % 2:
                    libray.init(num_cpus=1, ignore_reinit_error=True)
                got.append(libray.get(f.remote(k)))
            except BaseException as e:
                errors.append(e)
        threads = [threading.Thread(target=call, args=(k,)) for k in range(8)]
        for t in threads: t.start()
        for t in threads: t.join()
        monitors = [t for t in threading.enumerate() if t.name == "libray-log-monitor"]
        print(sorted(got), errors, len(monitors))
    """)
    assert "[0, 1, 2, 3, 4, 5, 6, 7] [] 1" in done.stdout


def test_join_a_running_session(run_script):
    context = libray.init(num_cpus=2)
    try:

        @libray.remote
        class Registry:
            def value(self):
                return "shared"

        registry = Registry.options(
            name="registry", namespace="shared", lifetime="detached"
        ).remote()
        libray.get(registry.value.remote())
        done = run_script(f"""
            import libray
            libray.init(address={context["session_dir"]!r}, namespace="shared")
            print(libray.get(libray.get_actor("registry").value.remote()))
        """)
        assert done.stdout.strip() == "shared"
        assert libray.get(registry.value.remote()) == "shared"
    finally:
        libray.shutdown()


def test_what_code_captured_is_captured_again_by_the_next_runtime(fresh):
    def session(value):
        nonlocal number, ref, log
        number = value
        ref = libray.put(value)
        log = Log.remote()
        asked = [f.remote(), f.options(num_cpus=0).remote(), Log.remote().number.remote(), outer.remote()]
        return libray.get(asked, timeout=60), libray.get([note.remote(i) for i in range(2)], timeout=60)[-1] > 0

    number, ref, log = 0, None, None

    @libray.remote
    def f():
        return number, libray.get(ref)

    @libray.remote
    class Log:
        def __init__(self):
            self.n = 0

        def number(self):
            return number, libray.get(ref)

        def add(self, i):
            self.n += 1
            return self.n

    @libray.remote
    def outer():
        return libray.get(f.remote())

    @libray.remote
    def note(i):
        return libray.get(log.add.remote(i))

    for value in (1, 2):
        fresh(num_cpus=2)
        assert session(value) == ([(value, value)] * 4, True)
        number = -1  # in the same runtime the code stays as it was
        assert libray.get(f.remote(), timeout=60) == (value, value)
        libray.shutdown()


def test_what_works_for_a_detached_actor_outlives_its_driver(run_script, tmp_path):
    """Its tasks, its actors and their tasks; and they end with it, whoever has a handle."""
    context = libray.init(num_cpus=4)
    go, began = str(tmp_path / "go"), str(tmp_path / "began")
    try:
        run_script(f"""
            import os, time
            import libray
            libray.init(address={context["session_dir"]!r}, namespace="shared")

            @libray.remote(max_retries=0)
            def work(name):
                open({began!r} + name, "w").close()
                while not os.path.exists({go!r}):
                    time.sleep(0.01)
                return "done"

            @libray.remote(max_retries=0)
            def parent(name):
                return libray.get(work.remote(name))

            @libray.remote(num_cpus=0)
            class Child:
                def begin(self):
                    self.work = work.remote("child")
                def end(self):
                    return libray.get(self.work)
                def pid(self):
                    return os.getpid()

            @libray.remote(num_cpus=0)
            class Detached:
                def begin(self):
                    self.child = Child.remote()
                    self.work = parent.remote("own")
                    libray.get(self.child.begin.remote())
                def end(self):
                    return [libray.get(self.work), libray.get(self.child.end.remote())]
                def family(self):
                    return self.child

            other = Child.remote()
            detached = Detached.options(name="detached", lifetime="detached").remote()
            libray.get([detached.begin.remote(), other.pid.remote()])
            while not all(os.path.exists({began!r} + name) for name in ("own", "child")):
                time.sleep(0.01)
        """)
        detached = libray.get_actor("detached", "shared")
        child = libray.get(detached.family.remote(), timeout=60)
        pid = libray.get(child.pid.remote(), timeout=60)
        open(go, "w").close()
        assert libray.get(detached.end.remote(), timeout=60) == ["done", "done"]
        libray.kill(detached)
        with pytest.raises(libray.exceptions.RayActorError):
            while True:
                libray.get(child.pid.remote(), timeout=60)
        eventually(lambda: not alive(pid))
    finally:
        libray.shutdown()
