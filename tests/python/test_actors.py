"""Actors: state, order, names, life, errors, restarts, threads, asyncio."""

import asyncio
import os
import signal
import threading
import time

import pytest

import libray
from libray import exceptions as exc

pytestmark = pytest.mark.usefixtures("cluster")


@libray.remote
class Counter:
    def __init__(self, start=0):
        self.n = start

    def add(self, k=1):
        self.n += k
        return self.n

    def get(self):
        return self.n

    def pid(self):
        return os.getpid()

    def fail(self):
        raise ValueError("from the actor")

    @libray.method(num_returns=2)
    def two(self):
        return 1, 2

    def items(self, n):
        for i in range(n):
            yield i

    def keep(self, refs):
        self.kept = refs

    def kept_values(self):
        return libray.get(self.kept)

    @staticmethod
    def static(x):
        return x * 2

    @classmethod
    def klass(cls):
        return cls.__name__


def test_state_and_order():
    c = Counter.remote(10)
    assert libray.get([c.add.remote() for _ in range(1000)]) == list(range(11, 1011))
    assert libray.get(c.get.remote()) == 1010
    assert libray.get(c.add.remote(k=5)) == 1015
    assert libray.get(c.static.remote(4)) == 8 and libray.get(c.klass.remote()) == "Counter"


def test_order_holds_when_arguments_are_late():
    @libray.remote
    def slow(x):
        time.sleep(0.1)
        return x

    @libray.remote
    class Log:
        def __init__(self):
            self.items = []

        def add(self, x):
            self.items.append(x)
            return list(self.items)

    log = Log.remote()
    log.add.remote(slow.remote(1))
    assert libray.get(log.add.remote(2)) == [1, 2]


def test_num_returns_and_generators_of_methods():
    c = Counter.remote()
    a, b = c.two.remote()
    assert libray.get([a, b]) == [1, 2]
    assert libray.get(c.two.options(num_returns=1).remote()) == (1, 2)
    assert [libray.get(r) for r in c.items.remote(5)] == [0, 1, 2, 3, 4]


def test_handles_travel():
    @libray.remote
    def use(counter, box):
        libray.get(counter.add.remote(3))
        return libray.get(box["deep"][0].add.remote(4)), box["deep"][0] == counter

    c = Counter.remote()
    assert libray.get(use.remote(c, {"deep": [c]})) == (7, True)
    again = libray.get(libray.put([c]))[0]
    assert again == c and hash(again) == hash(c) and libray.get(again.get.remote()) == 7
    assert "add" in dir(c) and "Counter" in repr(c) and len(c._actor_id.hex()) == 48

    @libray.remote
    def make():
        made = Counter.remote(100)
        return made

    assert libray.get(libray.get(make.remote()).add.remote()) == 101


@libray.remote(num_cpus=0)
class OwnNames:
    """Has methods by the names that a handle uses itself."""

    def _info(self):
        return "info"

    def _weak(self):
        return "weak"

    def _as_ref(self):
        return "as_ref"

    def _methods(self):
        return "methods"

    def _actor_id_hex(self):
        return "hex"


def test_methods_by_the_names_of_a_handles_own_attributes():
    @libray.remote
    def use(handles):
        return libray.get([getattr(handles[0], name).remote() for name in ("_info", "_weak", "_as_ref")])

    a = OwnNames.remote()
    assert libray.get([a._methods.remote(), a._actor_id_hex.remote()]) == ["methods", "hex"]
    assert "OwnNames" in repr(a) and a._actor_id.hex() in repr(a) and "_weak" in dir(a)
    assert libray.get(a._info.options(name="mine").remote()) == "info"
    copy = libray.get(libray.put([a]))[0]
    assert copy == a and object.__getattribute__(copy, "_weak") is False  # it keeps the actor, as `a` does
    assert libray.get(use.remote([a])) == ["info", "weak", "as_ref"]


def test_what_a_handle_that_was_found_knows():
    from libray.api import actor, foreign

    assert actor.describe(Counter._info.metadata, 1)[0] is actor.ActorHandle
    assert actor.describe(b"\x80", 1)[0] is foreign.ForeignActorHandle  # an empty map, of another language's creator


def test_direct_use_is_an_error():
    with pytest.raises(TypeError, match="instantiated directly"):
        Counter()
    c = Counter.remote()
    with pytest.raises(TypeError, match="cannot be called directly"):
        c.add()
    with pytest.raises(AttributeError):
        c.nonsense
    with pytest.raises(TypeError, match="missing a required"):
        c.items.remote()
    with pytest.raises(TypeError):
        Counter.remote(1, 2, 3)
    with pytest.raises(exc.ActorClassInheritanceException):

        class Sub(Counter):
            pass

    with pytest.raises(ValueError, match="method"):

        @libray.method
        def f():
            pass


def test_errors_of_methods_leave_the_actor_alive():
    c = Counter.remote()
    with pytest.raises(ValueError, match="from the actor"):
        libray.get(c.fail.remote())
    assert libray.get(c.add.remote()) == 1


def test_failing_constructor():
    @libray.remote
    class Broken:
        def __init__(self):
            raise RuntimeError("cannot start")

        def m(self):
            return 1

    b = Broken.remote()
    with pytest.raises(exc.ActorDiedError, match="cannot start"):
        libray.get(b.m.remote())
    with pytest.raises(exc.RayActorError):
        libray.get(b.m.remote())


def test_named_actors():
    a = Counter.options(name="the counter").remote(5)
    assert libray.get(libray.get_actor("the counter").add.remote()) == 6
    with pytest.raises(ValueError, match="already taken"):
        Counter.options(name="the counter").remote()

    class Refuses:
        def __reduce__(self):
            raise ValueError("does not exist")

    with pytest.raises(ValueError, match="does not exist") as caught:
        Counter.options(name="another").remote(Refuses())
    assert not isinstance(caught.value, exc.ActorAlreadyExistsError)
    b = Counter.options(name="the counter", get_if_exists=True).remote(50)
    assert b == a
    c = Counter.options(name="the counter", namespace="other").remote(70)
    assert libray.get(libray.get_actor("the counter", namespace="other").get.remote()) == 70
    assert c != a

    @libray.remote
    def find():
        return libray.get(libray.get_actor("the counter").get.remote())

    assert libray.get(find.remote()) == 6
    with pytest.raises(ValueError, match="Failed to look up"):
        libray.get_actor("nobody")
    with pytest.raises(ValueError):
        libray.get_actor("")
    with pytest.raises(ValueError):
        Counter.options(name="")
    with pytest.raises(TypeError):
        Counter.options(name=3)
    with pytest.raises(ValueError, match="get_if_exists"):
        Counter.options(get_if_exists=True)


def test_actor_ends_with_its_last_handle(eventually):
    from conftest import alive

    c = Counter.remote()
    pid = libray.get(c.pid.remote())
    assert alive(pid)
    del c
    eventually(lambda: not alive(pid))


def test_pending_calls_finish_after_the_handle_is_gone(tmp_path):
    @libray.remote
    class Writer:
        def write(self, path):
            time.sleep(0.05)
            with open(path, "w") as f:
                f.write("done")
            return 5

    assert libray.get(Writer.remote().write.remote(str(tmp_path / "x"))) == 5
    assert (tmp_path / "x").read_text() == "done"


def test_kill(eventually):
    from conftest import alive

    c = Counter.remote()
    pid = libray.get(c.pid.remote())
    libray.kill(c)
    eventually(lambda: not alive(pid))
    with pytest.raises(exc.ActorDiedError):
        for _ in range(1000):  # until this process has heard of it
            libray.get(c.get.remote(), timeout=30)
    with pytest.raises(ValueError):
        libray.kill("not an actor")


def test_killed_process_without_restarts():
    c = Counter.remote()
    pid = libray.get(c.pid.remote())
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(exc.RayActorError):
        libray.get(c.get.remote())
        libray.get(c.get.remote())


def test_restart(eventually):
    c = Counter.options(max_restarts=1, max_task_retries=-1).remote(3)
    assert libray.get(c.add.remote()) == 4
    pid = libray.get(c.pid.remote())
    os.kill(pid, signal.SIGKILL)
    assert libray.get(c.add.remote()) == 4  # the constructor ran again
    second = libray.get(c.pid.remote())
    assert second != pid
    os.kill(second, signal.SIGKILL)
    with pytest.raises(exc.ActorDiedError):
        for _ in range(100):
            libray.get(c.get.remote())
            time.sleep(0.01)


def test_kill_that_allows_a_restart(eventually):
    c = Counter.options(max_restarts=-1, max_task_retries=-1).remote(3)
    pid = libray.get(c.pid.remote())
    libray.kill(c, no_restart=False)
    eventually(lambda: libray.get(c.pid.remote()) != pid)
    assert libray.get(c.get.remote()) == 3


def test_exit_actor(eventually):
    from conftest import alive

    @libray.remote
    class Leaver:
        def pid(self):
            return os.getpid()

        def leave(self):
            libray.exit_actor()

    a = Leaver.remote()
    pid = libray.get(a.pid.remote())
    a.leave.remote()
    with pytest.raises(exc.RayActorError):
        libray.get(a.pid.remote())
    eventually(lambda: not alive(pid))
    with pytest.raises(TypeError):
        libray.exit_actor()


def test_references_stored_in_an_actor():
    c = Counter.remote()
    refs = [libray.put(i) for i in range(10)]
    libray.get(c.keep.remote(refs))
    del refs
    assert libray.get(c.kept_values.remote()) == list(range(10))


def test_special_methods():
    c = Counter.remote()
    assert libray.get(c.__ray_ready__.remote()) is True
    assert libray.get(c.__ray_call__.remote(lambda self, k: self.add(k), 5)) == 5


def test_threaded_actor():
    @libray.remote(max_concurrency=4)
    class Meeting:
        def __init__(self):
            self.barrier = threading.Barrier(4)

        def meet(self):
            self.barrier.wait(30)
            return threading.get_ident()

    m = Meeting.remote()
    assert len(set(libray.get([m.meet.remote() for _ in range(4)], timeout=40))) == 4


def test_asyncio_actor():
    @libray.remote
    class Room:
        def __init__(self):
            self.event = asyncio.Event()
            self.waiting = 0

        async def wait(self, i):
            self.waiting += 1
            await self.event.wait()
            return i

        async def open(self):
            while self.waiting < 100:
                await asyncio.sleep(0.001)
            self.event.set()
            return threading.current_thread() is threading.main_thread()

        def sync(self):
            return asyncio.get_running_loop() is not None

        async def await_ref(self, refs):
            return await refs[0] + sum(await asyncio.gather(*refs[1:]))

        async def fail(self):
            await asyncio.sleep(0)
            raise KeyError("async")

        async def stream(self, n):
            for i in range(n):
                await asyncio.sleep(0)
                yield i * i

    room = Room.remote()
    waits = [room.wait.remote(i) for i in range(100)]
    assert libray.get(room.open.remote(), timeout=40) is True
    assert libray.get(waits) == list(range(100))
    assert libray.get(room.sync.remote())

    @libray.remote
    def value(x):
        time.sleep(0.01)
        return x

    assert libray.get(room.await_ref.remote([value.remote(i) for i in range(5)])) == 10
    with pytest.raises(KeyError, match="async"):
        libray.get(room.fail.remote())
    assert [libray.get(r) for r in room.stream.remote(100)] == [i * i for i in range(100)]


def test_asyncio_actor_one_at_a_time():
    @libray.remote(max_concurrency=1)
    class Serial:
        def __init__(self):
            self.log = []

        async def step(self, i):
            self.log.append(("start", i))
            await asyncio.sleep(0.001)
            self.log.append(("end", i))

        async def get(self):
            return self.log

    s = Serial.remote()
    libray.get([s.step.remote(i) for i in range(20)])
    assert libray.get(s.get.remote()) == [(what, i) for i in range(20) for what in ("start", "end")]


def test_cancel_of_an_async_call():
    @libray.remote
    class Sleeper:
        def __init__(self):
            self.state = "new"

        async def sleep(self):
            self.state = "asleep"
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.state = "cancelled"
                raise

        async def look(self):
            return self.state

    s = Sleeper.remote()
    ref = s.sleep.remote()
    while libray.get(s.look.remote()) != "asleep":
        pass
    libray.cancel(ref)
    with pytest.raises(exc.TaskCancelledError):
        libray.get(ref)
    assert libray.get(s.look.remote()) == "cancelled"


def test_max_pending_calls(tmp_path):
    @libray.remote(max_pending_calls=5)
    class Slow:
        def wait(self, path):
            while not os.path.exists(path):
                time.sleep(0.005)

    s = Slow.remote()
    refs = []
    with pytest.raises(exc.PendingCallsLimitExceeded):
        for _ in range(20):
            refs.append(s.wait.remote(str(tmp_path / "go")))
    (tmp_path / "go").touch()
    libray.get(refs)


def test_graceful_end_runs_the_hook(tmp_path, eventually):
    @libray.remote
    class Hooked:
        def __init__(self, path):
            self.path = path

        def ready(self):
            return True

        def __ray_shutdown__(self):
            with open(self.path, "w") as f:
                f.write("bye")

    h = Hooked.remote(str(tmp_path / "hook"))
    libray.get(h.ready.remote())
    del h
    eventually(lambda: (tmp_path / "hook").exists())


def test_detached_actor_lives_without_handles(eventually):
    @libray.remote
    def make():
        a = Counter.options(name="detached one", lifetime="detached").remote(8)
        libray.get(a.get.remote())

    libray.get(make.remote())
    a = libray.get_actor("detached one")
    assert libray.get(a.get.remote()) == 8
    libray.kill(a)
