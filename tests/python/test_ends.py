"""How calls, generators, actors and programs end: what is interrupted, what still runs, what is shown."""

import asyncio
import os
import signal
import threading
import time

import pytest

import libray
from libray.exceptions import ActorDiedError, RayTaskError, TaskCancelledError
from ray_fixtures import run

pytestmark = pytest.mark.usefixtures("cluster")


@libray.remote(num_cpus=0)
class Account:
    def __init__(self, path):
        self.a, self.b, self.path = 100, 0, path
        self.told = False

    def move(self, n):
        self.a -= n
        open(self.path / "begun", "w").close()
        while not (self.path / "go").exists():
            time.sleep(0.005)
        self.told = libray.get_runtime_context().is_canceled()
        self.b += n
        return self.b

    def fail_late(self):
        while not libray.get_runtime_context().is_canceled():
            time.sleep(0.005)
        raise ValueError("stopped")

    def total(self):
        return self.a + self.b, self.told


@pytest.mark.parametrize("threads", [1, 2])
def test_cancel_lets_a_method_of_a_synchronous_actor_run_to_its_end(tmp_path, eventually, threads):
    account = Account.options(max_concurrency=threads).remote(tmp_path)
    moved = account.move.remote(30)
    eventually(lambda: (tmp_path / "begun").exists())
    libray.cancel(moved)
    time.sleep(0.2)  # where it would be interrupted
    (tmp_path / "go").touch()
    with pytest.raises(TaskCancelledError):
        libray.get(moved, timeout=30)
    assert libray.get(account.total.remote(), timeout=30) == (100, True)
    late = account.fail_late.remote()
    libray.cancel(late)
    with pytest.raises(TaskCancelledError):
        libray.get(late, timeout=30)
    assert libray.get(account.total.remote(), timeout=30)[0] == 100


def test_a_cancelled_error_that_leaves_a_method_is_no_cancellation_of_who_awaits_it():
    @libray.remote(num_cpus=0)
    class Shop:
        async def order(self):
            task = asyncio.ensure_future(asyncio.sleep(60))
            task.cancel()
            await task

        async def items(self):
            yield 1
            raise asyncio.CancelledError("mine")

        async def fine(self):
            return "fine"

    shop = Shop.remote()

    async def main():
        waiter = asyncio.ensure_future(order())
        await asyncio.wait([waiter])
        assert not waiter.cancelled() and isinstance(waiter.exception(), TaskCancelledError)
        results = await asyncio.gather(order(), fine(), return_exceptions=True)
        assert isinstance(results[0], TaskCancelledError) and results[1] == "fine"
        got = []
        with pytest.raises(TaskCancelledError):
            async for ref in shop.items.options(num_returns="streaming").remote():
                got.append(await ref)
        assert got == [1]

    async def order():
        return await shop.order.remote()

    async def fine():
        return await shop.fine.remote()

    asyncio.run(main())
    with pytest.raises(TaskCancelledError, match="CancelledError"):
        libray.get(shop.order.remote(), timeout=30)


WAYS = {
    "drop": lambda actor, pid: None,
    "terminate": lambda actor, pid: actor.__ray_terminate__.remote(),
    "exit_actor": lambda actor, pid: actor.leave.remote(),
    "sigterm": lambda actor, pid: os.kill(pid, signal.SIGTERM),
    "sigterm in a call": lambda actor, pid: (actor.sleep.remote(), actor.began(), os.kill(pid, signal.SIGTERM)),
    "kill": lambda actor, pid: libray.kill(actor),
}


class Member:
    def __init__(self, path):
        self.path = path

    def __del__(self):
        (self.path / "member").touch()


class Ends:
    def __init__(self, path):
        import atexit

        self.path, self.member = path, Member(path)
        atexit.register(lambda: (path / "atexit").touch())

    def pid(self):
        return os.getpid()

    def leave(self):
        libray.exit_actor()

    def sleep(self):
        (self.path / "sleeps").touch()
        time.sleep(600)

    def __del__(self):
        (self.path / "del").touch()
        assert libray.get(libray.put(5)) == 5  # the runtime still works
        (self.path / "used").touch()

    def __ray_shutdown__(self):
        (self.path / "shutdown").touch()


class EndsAsync(Ends):
    async def pid(self):
        return os.getpid()

    async def leave(self):
        libray.exit_actor()

    async def sleep(self):
        (self.path / "sleeps").touch()
        await asyncio.sleep(600)


@pytest.mark.parametrize("kind", ["plain", "threads", "asyncio"])
@pytest.mark.parametrize("way", WAYS)
def test_what_runs_when_an_actor_ends(tmp_path, eventually, kind, way):
    cls = libray.remote(EndsAsync if kind == "asyncio" else Ends)
    actor = cls.options(num_cpus=0, max_concurrency=2 if kind == "threads" else 1).remote(tmp_path)
    pid = libray.get(actor.pid.remote(), timeout=30)
    if way == "sigterm in a call":
        actor.sleep.remote()
        eventually(lambda: (tmp_path / "sleeps").exists())
        os.kill(pid, signal.SIGTERM)
    else:
        WAYS[way](actor, pid)
    del actor
    eventually(lambda: not alive(pid))
    got = {p.name for p in tmp_path.iterdir()} - {"sleeps"}
    expected = {"shutdown", "atexit", "del", "member", "used"}
    if way == "kill":
        expected = set()
    elif way == "sigterm in a call" and kind != "plain":  # another thread or a coroutine may still use the instance
        expected, got = {"shutdown", "atexit"}, got & {"shutdown", "atexit"}
    assert got == expected


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_sigterm_is_a_death_that_allows_a_restart_and_retries(eventually):
    actor = libray.remote(Ends).options(num_cpus=0, max_restarts=1, max_task_retries=1)
    import pathlib
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        handle = actor.remote(pathlib.Path(folder))
        first = libray.get(handle.pid.remote(), timeout=30)
        os.kill(first, signal.SIGTERM)
        second = libray.get(handle.pid.remote(), timeout=60)
        assert second != first
        os.kill(second, signal.SIGTERM)
        with pytest.raises(ActorDiedError):
            libray.get(handle.pid.remote(), timeout=60)


def test_sigterm_of_a_worker_with_a_task_tries_it_again(tmp_path):
    @libray.remote(num_cpus=0, max_retries=1)
    def run(path):
        if not (path / "first").exists():
            (path / "first").touch()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(600)
        return "again"

    assert libray.get(run.remote(tmp_path), timeout=60) == "again"


def test_a_child_of_a_worker_dies_of_sigterm_as_any_process():
    @libray.remote(num_cpus=0)
    def run():
        import multiprocessing

        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join(30)
        return child.exitcode, os.getpid()

    codes = libray.get([run.remote() for _ in range(3)], timeout=60)
    assert [code for code, _ in codes] == [-signal.SIGTERM] * 3


def test_why_an_actor_ended_itself():
    @libray.remote(num_cpus=0)
    class Leaves:
        def exit_actor(self):
            libray.exit_actor()

        def sys_exit(self):
            raise SystemExit(0)

        def nothing(self):
            pass

    for method, why in (("exit_actor", "exit_actor() is called"), ("sys_exit", "sys.exit(0)")):
        actor = Leaves.remote()
        with pytest.raises(ActorDiedError) as own:
            libray.get(getattr(actor, method).remote(), timeout=30)
        with pytest.raises(ActorDiedError) as later:
            libray.get(actor.nothing.remote(), timeout=30)
        for error in (own, later):
            text = str(error.value)
            assert why in text and text.count("The actor is dead because") == 1
            assert ("exit_actor" in text) == (method == "exit_actor"), text


def test_threads_of_an_actor_are_made_when_they_are_used(eventually):
    @libray.remote(num_cpus=0, max_concurrency=1000, concurrency_groups={"io": 500})
    class Many:
        def __init__(self):
            self.gate = threading.Event()

        def threads(self):
            return sum(t.name.startswith("actor-") for t in threading.enumerate())

        def wait(self):
            self.gate.wait(60)

        @libray.method(concurrency_group="io")
        def io(self):
            self.gate.wait(60)

        def open(self):
            self.gate.set()

    actor = Many.remote()
    assert libray.get(actor.threads.remote(), timeout=30) < 10
    refs = [actor.wait.remote() for _ in range(40)] + [actor.io.remote() for _ in range(30)]
    eventually(lambda: libray.get(actor.threads.remote(), timeout=30) >= 70)
    assert libray.get(actor.threads.remote(), timeout=30) < 90
    libray.get(actor.open.remote(), timeout=30)
    libray.get(refs, timeout=30)


def test_a_dropped_generator_ends_or_goes_on(tmp_path):
    """libray: it ends with its last reference. Programs of Ray: it runs to its end, without waiting for anybody."""
    program = """
        import pathlib, time
        path = pathlib.Path(PATH)
        {start}(num_cpus=2)

        class Makes:
            def items(self, name):
                for i in range(50):
                    (path / name).write_text(str(i))
                    time.sleep(0.01)
                    yield i

        @{api}.remote(num_returns="streaming", _generator_backpressure_num_objects=2)
        def items(name):
            yield from Makes().items(name)

        Actor = {api}.remote(Makes)
        actor = Actor.remote()
        method = actor.items.options(num_returns="streaming", _generator_backpressure_num_objects=2)
        for make, name in ((items, "task"), (method, "call")):
            generator = make.remote("{api}-" + name)
            print({api}.get(next(generator)))
            del generator
        deadline = time.monotonic() + 20
        def last(): return [int((path / ("{api}-" + n)).read_text() or 0) for n in ("task", "call")]
        before = None
        while time.monotonic() < deadline and before != last() or min(last()) in range(1, 49) and "{api}" == "ray":
            before = last()
            time.sleep(0.5)
        print([n == 49 for n in last()])
    """
    for api, all_of_it in (("ray", True), ("libray", False)):
        text = program.format(api=api, start=f"{api}.init").replace("PATH", repr(str(tmp_path)))
        if api == "libray":
            text = "\n        import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'libray' not in str(f)]" + text
        assert run(text) == ["0", "0", str([all_of_it] * 2)], api


def test_one_yield_gives_several_objects():
    class Makes:
        def pairs(self, wrong):
            for i in range(3):
                yield i, -i
            if wrong:
                yield (1,)

        async def later(self, wrong):
            for pair in self.pairs(wrong):
                yield pair

    sync = libray.remote(type("Sync", (), {"pairs": Makes.pairs})).options(num_cpus=0).remote()
    loop = libray.remote(Makes).options(num_cpus=0).remote()
    task = libray.remote(lambda wrong: (yield from Makes().pairs(wrong)))
    how = {"num_returns": "streaming", "_num_objects_per_yield": 2, "_generator_backpressure_num_objects": 1}
    for make in (task, sync.pairs, loop.later):
        got = [libray.get(ref, timeout=30) for ref in make.options(**how).remote(False)]
        assert got == [0, 0, 1, -1, 2, -2]
        *items, last = list(make.options(**how).remote(True))
        assert len(items) == 6
        with pytest.raises(ValueError, match="gave 1 objects, but _num_objects_per_yield=2"):
            libray.get(last, timeout=30)
    for wrong in (0, -1, 256):
        with pytest.raises(ValueError, match="_num_objects_per_yield"):
            task.options(_num_objects_per_yield=wrong)


def test_the_end_of_a_program_is_silent(run_script):
    done = run_script("""
        import sys, threading, time
        import libray
        ray = libray.install_as_ray()

        @ray.remote
        class Actor:
            def bye(self):
                return 1

        class Owner:
            def __init__(self):
                self.actor = Actor.remote()
            def __del__(self):
                ray.get(self.actor.bye.remote())

        class Maker:
            def __del__(self):
                ray.get(ray.put(1))

        class Wrong:
            def __del__(self):
                raise KeyError("a fault of the program's own")

        @ray.remote
        def slow():
            time.sleep(100)

        ray.init(num_cpus=1)
        owner, maker, wrong = Owner(), Maker(), Wrong()
        ray.get(owner.actor.bye.remote())
        for wait in (lambda: ray.get(slow.remote()), lambda: ray.wait([slow.remote()])):
            threading.Thread(target=wait, daemon=True).start()
        time.sleep(0.3)
        print("end")
    """)
    out, errors = done.stdout, done.stderr
    assert out == "end\n"
    assert "a fault of the program's own" in errors
    others = [line for line in errors.splitlines() if line.strip() and "KeyError" not in line]
    assert not any("shut down" in line or "Error" in line for line in others), errors
