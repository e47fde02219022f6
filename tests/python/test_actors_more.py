"""Actors at length: concurrency groups, order, ends by their own will, restarts."""

import asyncio
import os
import signal
import sys
import threading
import time

import pytest

import libray
from libray import exceptions as exc

pytestmark = pytest.mark.usefixtures("cluster")


def test_groups_of_an_asyncio_actor_have_loops_of_their_own():
    @libray.remote(concurrency_groups={"io": 2, "compute": 4})
    class Grouped:
        def __init__(self):
            self.loop = asyncio.get_event_loop()

        @libray.method(concurrency_group="io")
        async def io(self):
            return threading.get_ident(), asyncio.get_running_loop() is self.loop

        @libray.method(concurrency_group="compute")
        def compute(self):
            return threading.get_ident(), asyncio.get_running_loop() is self.loop

        def default(self):
            return threading.get_ident(), asyncio.get_running_loop() is self.loop

    a = Grouped.remote()
    io, compute, default = libray.get([a.io.remote(), a.compute.remote(), a.default.remote()])
    assert len({io[0], compute[0], default[0]}) == 3
    assert (io[1], compute[1], default[1]) == (False, False, True)
    assert libray.get(a.io.options(concurrency_group="compute").remote()) == compute
    assert libray.get([a.io.remote() for _ in range(50)]) == [io] * 50
    with pytest.raises(ValueError, match="no concurrency group 'nonsense'"):
        a.io.options(concurrency_group="nonsense")


def test_a_blocked_group_stops_no_other():
    @libray.remote(concurrency_groups={"one": 1, "two": 1})
    class Grouped:
        def __init__(self):
            self.open = threading.Event()

        async def default(self):
            self.open.wait(60)
            return "default"

        @libray.method(concurrency_group="one")
        def blocked(self):
            self.open.wait(60)
            return "one"

        @libray.method(concurrency_group="two")
        def free(self):
            return "two"

        @libray.method(concurrency_group="two")
        def release(self):
            self.open.set()

    a = Grouped.remote()
    blocked = [a.default.remote()] + [a.blocked.remote() for _ in range(3)]
    assert libray.get([a.free.remote() for _ in range(20)], timeout=30) == ["two"] * 20
    assert libray.wait(blocked, timeout=0)[0] == []
    libray.get(a.release.remote(), timeout=30)
    assert libray.get(blocked, timeout=30) == ["default", "one", "one", "one"]


def test_groups_of_threads_limit_and_keep_thread_locals():
    @libray.remote(concurrency_groups=[{"name": "pool", "max_concurrency": 2}, {"name": "one"}])
    class Grouped:
        def __init__(self):
            self.local = threading.local()
            self.inside = self.most = 0
            self.lock = threading.Lock()

        @libray.method(concurrency_group="pool")
        def busy(self):
            with self.lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            time.sleep(0.02)
            with self.lock:
                self.inside -= 1
            return self.most

        @libray.method(concurrency_group="one")
        def set_local(self, value):
            self.local.value = value

        @libray.method(concurrency_group="one")
        def get_local(self):
            return self.local.value, threading.current_thread() is threading.main_thread()

        def main(self):
            return threading.current_thread() is threading.main_thread()

    a = Grouped.remote()
    assert max(libray.get([a.busy.remote() for _ in range(12)], timeout=30)) == 2
    libray.get(a.set_local.remote(5))
    assert libray.get([a.get_local.remote() for _ in range(5)]) == [(5, False)] * 5
    assert libray.get(a.main.remote())


@libray.remote(num_cpus=0)
class Threads:
    """Counts the calls inside, and the threads that they ran on."""

    def __init__(self, at_end=None, start=None):
        self.lock, self.barrier, self.free = threading.Lock(), threading.Barrier(4), threading.Event()
        self.inside = self.most = 0
        self.threads, self.at_end = set(), at_end
        if start is not None:
            from libray.worker import loops

            usual, loops._start_thread = loops._start_thread, lambda *args: start(usual, *args)

    def _run(self, wait):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.threads.add(threading.get_ident())
        wait()
        with self.lock:
            self.inside -= 1

    def nothing(self):
        self._run(lambda: time.sleep(0))

    def block(self):
        self._run(self.free.wait)

    def until(self, path):
        def wait():
            path.with_suffix(".begun").touch()
            while not path.exists():
                time.sleep(0.01)

        self._run(wait)

    def meet(self):
        self._run(lambda: self.barrier.wait(60))

    def look(self):
        return self.inside, self.most, len(self.threads)

    def fork(self):
        pid = os.fork()
        return None if pid == 0 else os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def leave(self, signum):
        if not signum:
            libray.exit_actor()
        os.kill(os.getpid(), signum)
        time.sleep(60)

    def __ray_shutdown__(self):
        if self.at_end is not None:
            open(self.at_end, "w").close()


def meet(actor):
    libray.get([actor.meet.remote() for _ in range(4)], timeout=60)


def test_more_calls_that_block_than_threads(eventually):
    a = Threads.options(max_concurrency=4).remote()
    for _ in range(3):  # threads are parked in between
        libray.get([a.nothing.remote() for _ in range(2000)])
        meet(a)
    blocked = [a.block.remote() for _ in range(3)]
    eventually(lambda: libray.get(a.look.remote(), timeout=60)[0] == 3)
    libray.get([a.nothing.remote() for _ in range(500)], timeout=60)  # by the last thread
    blocked += [a.block.remote() for _ in range(7)]
    assert libray.wait([*blocked, a.look.remote()], timeout=0.2)[0] == []
    libray.kill(a)


def test_no_more_threads_than_calls_may_run():
    a = Threads.options(max_concurrency=4).remote()
    libray.get([a.nothing.remote() if i % 100 else a.meet.remote() for i in range(2000)], timeout=60)
    assert libray.get(a.look.remote()) == (0, 4, 4)


@pytest.mark.parametrize("signum", [0, signal.SIGTERM])
def test_an_actor_ends_though_threads_are_parked(signum, tmp_path, eventually):
    a = Threads.options(max_concurrency=8).remote(str(tmp_path / "end"))
    meet(a)
    libray.get([a.nothing.remote() for _ in range(100)])
    with pytest.raises(exc.RayActorError):
        libray.get(a.leave.remote(signum), timeout=60)
    eventually((tmp_path / "end").exists)


def test_forks_beside_parked_threads():
    a = Threads.options(max_concurrency=4).remote()
    meet(a)
    assert libray.get([a.fork.remote() for _ in range(4)], timeout=60) == [0] * 4
    meet(a)


def test_threads_that_cannot_be_started():
    def never(usual, *args):
        raise RuntimeError("can't start new thread")

    a = Threads.options(max_concurrency=4).remote(None, never)
    libray.get([a.nothing.remote() for _ in range(20)], timeout=60)
    assert libray.get(a.look.remote()) == (0, 1, 1)


def test_who_relied_on_a_thread_that_did_not_start_is_not_left_parked(tmp_path, eventually):
    def third_fails(usual, *args, left=list(range(100))):
        if left.pop(0) != 2:  # one step: several threads start threads
            return usual(*args)
        (tmp_path / "starting").touch()
        while not (tmp_path / "fail").exists():
            time.sleep(0.01)
        raise RuntimeError("can't start new thread")

    a = Threads.options(max_concurrency=4).remote(None, third_fails)
    first, second, third = (a.until.remote(tmp_path / name) for name in ("first", "second", "third"))
    eventually((tmp_path / "starting").exists)  # by the one of three threads that is to run the third call
    (tmp_path / "first").touch()
    libray.get(first)
    (tmp_path / "second").touch()
    libray.get(second)  # now one waits and one is parked
    last = a.until.remote(tmp_path / "last")
    eventually((tmp_path / "last.begun").exists)
    (tmp_path / "fail").touch()
    libray.get(a.look.remote(), timeout=60)  # by the one that was parked: the others are busy, or about to be
    eventually((tmp_path / "third.begun").exists)
    (tmp_path / "third").touch()
    (tmp_path / "last").touch()
    libray.get([third, last], timeout=60)


def test_wrong_groups():
    for wrong, error in (({"a": 0}, ValueError), ({"a": "2"}, ValueError), ({1: 2}, TypeError)):
        with pytest.raises(error):

            @libray.remote(concurrency_groups=wrong)
            class A:
                pass

    @libray.remote
    class B:
        @libray.method(concurrency_group="missing")
        def m(self):
            pass

    with pytest.raises(ValueError, match="missing"):
        B.remote()
    with pytest.raises(ValueError, match="concurrency_groups"):
        B.options(concurrency_groups={"a": 1})


@libray.remote
def when(path, value):
    while not os.path.exists(path):
        time.sleep(0.005)
    return value


@pytest.mark.parametrize("kind", ["threads", "asyncio", "asked for"])
def test_calls_with_their_arguments_overtake(tmp_path, kind):
    class Plain:
        def echo(self, x):
            return x

    class Async:
        async def echo(self, x):
            return x

    actor = {
        "threads": libray.remote(Plain).options(max_concurrency=2),
        "asyncio": libray.remote(Async),
        "asked for": libray.remote(Plain).options(allow_out_of_order_execution=True),
    }[kind].remote()
    late = actor.echo.remote(when.remote(str(tmp_path / "go"), "late"))
    assert libray.get([actor.echo.remote(i) for i in range(20)], timeout=30) == list(range(20))
    assert libray.wait([late], timeout=0)[0] == []
    (tmp_path / "go").touch()
    assert libray.get(late, timeout=30) == "late"


def test_an_actor_that_cannot_keep_the_order_says_so():
    @libray.remote
    class A:
        async def m(self):
            pass

    with pytest.raises(ValueError, match="allow_out_of_order_execution"):
        A.options(allow_out_of_order_execution=False).remote()


@libray.remote
class Leaver:
    def __init__(self, path=None, leave=False):
        if path is not None:
            import atexit

            atexit.register(lambda: open(path, "w").close())
        if leave:
            libray.exit_actor()

    def leave(self):
        libray.exit_actor()

    def leave_quietly(self):
        try:
            libray.exit_actor()
        except BaseException:
            return "caught"

    def exit_status(self, status):
        sys.exit(status)

    def ping(self):
        return 1


@pytest.mark.parametrize("how", ["leave", "leave_quietly", "exit_status"])
def test_exit_actor_ends_it_for_everybody(how, tmp_path, eventually):
    a = Leaver.remote(str(tmp_path / "atexit"))
    assert libray.get(a.ping.remote()) == 1
    args = (0,) if how == "exit_status" else ()
    refs = [getattr(a, how).remote(*args), a.ping.remote()]
    for ref in [*refs, a.ping.remote()]:
        with pytest.raises(exc.ActorDiedError, match=r"exit_actor\(\)|its code called sys\.exit\(0\)") as e:
            libray.get(ref, timeout=30)
        assert "its worker process has died" not in str(e.value)
    eventually(lambda: (tmp_path / "atexit").exists())


def test_exit_actor_in_the_constructor():
    a = Leaver.remote(None, True)
    with pytest.raises(exc.ActorDiedError, match=r"exit_actor\(\)"):
        libray.get(a.ping.remote(), timeout=30)


def test_exit_of_a_restartable_actor_is_final_but_a_status_is_a_crash():
    a = Leaver.options(max_restarts=-1).remote()
    libray.get(a.ping.remote())
    with pytest.raises(exc.RayActorError):
        libray.get(a.leave.remote(), timeout=30)
    with pytest.raises(exc.ActorDiedError):
        for _ in range(1000):
            libray.get(a.ping.remote(), timeout=30)
    b = Leaver.options(max_restarts=1, max_task_retries=-1).remote()
    libray.get(b.ping.remote())
    with pytest.raises(exc.ActorUnavailableError):
        libray.get(b.exit_status.options(max_task_retries=0).remote(3), timeout=30)
    assert libray.get(b.ping.remote(), timeout=30) == 1


@pytest.mark.parametrize("how", ["nested", "caught", "sync"])
def test_exit_of_an_asyncio_actor_lets_running_calls_end(how, eventually):
    @libray.remote
    class Room:
        async def nested(self):
            async def inner():
                libray.exit_actor()

            await inner()

        async def caught(self):
            try:
                libray.exit_actor()
            except BaseException:
                return 1

        def sync(self):
            libray.exit_actor()

        async def slow(self):
            await asyncio.sleep(0.5)
            return "slow"

        async def pid(self):
            return os.getpid()

    from conftest import alive

    a = Room.remote()
    pid = libray.get(a.pid.remote())
    slow = a.slow.remote()
    with pytest.raises(exc.RayActorError, match=r"exit_actor\(\)"):
        libray.get(getattr(a, how).remote(), timeout=30)
    assert libray.get(slow, timeout=30) == "slow"
    with pytest.raises(exc.ActorDiedError):
        libray.get(a.pid.remote(), timeout=30)
    eventually(lambda: not alive(pid))


def test_calls_lost_to_a_restart_fail_and_later_ones_say_that_it_restarts(tmp_path):
    @libray.remote(max_restarts=-1)
    class Slow:
        def __init__(self, path):
            if os.path.exists(path):
                while not os.path.exists(path + ".go"):
                    time.sleep(0.005)
            open(path, "w").close()

        def pid(self):
            return os.getpid()

        def die(self):
            os._exit(1)

    path = str(tmp_path / "started")
    a = Slow.remote(path)
    pid = libray.get(a.pid.remote())
    refs = [a.die.remote(), a.pid.remote()]
    for ref, ran in zip(refs, ["may or may not have run", "has not run"]):  # the second waited behind the first
        with pytest.raises(exc.ActorUnavailableError) as lost:
            libray.get(ref, timeout=30)
        assert str(lost.value).count("unavailable") == str(lost.value).count(ran) == 1, lost.value
    with pytest.raises(exc.ActorUnavailableError, match="The actor is restarting.*has not run"):
        libray.get(a.pid.remote(), timeout=30)
    kept = a.pid.options(max_task_retries=1).remote()
    assert libray.wait([kept], timeout=0.1)[0] == []
    (tmp_path / "started.go").touch()
    assert libray.get(kept, timeout=30) != pid


def test_a_call_that_is_retried_goes_before_one_that_waits_for_its_result():
    @libray.remote
    class Shaky:
        def __init__(self):
            self.calls = []

        @libray.method(max_task_retries=2, retry_exceptions=[KeyError])
        def first(self, k):
            self.calls.append(k)
            if self.calls.count(k) < 3:
                raise KeyError(k)
            return k

        def second(self, *values):
            return values

        def seen(self):
            return self.calls

    a = Shaky.remote()
    assert libray.get(a.second.remote(a.first.remote("x"), a.first.remote("y")), timeout=30) == ("x", "y")
    assert sorted(libray.get(a.seen.remote())) == ["x"] * 3 + ["y"] * 3


def test_ids_inside_an_asyncio_actor_belong_to_the_call():
    @libray.remote
    class Ids:
        async def ids(self, n):
            context = libray.get_runtime_context()
            seen = set()
            for _ in range(n):
                seen.add(context.get_task_id())
                await asyncio.sleep(0)
            return seen

    a = Ids.remote()
    sets = libray.get([a.ids.remote(5) for _ in range(20)])
    assert all(len(s) == 1 for s in sets)
    assert len(set().union(*sets)) == 20


def test_more_calls_at_once_than_the_recursion_limit():
    @libray.remote(max_concurrency=5000)
    class Crowd:
        def __init__(self):
            self.event = asyncio.Event()
            self.n = 0

        async def wait(self):
            self.n += 1
            if self.n == 3000:
                self.event.set()
            await self.event.wait()
            return 1

    c = Crowd.remote()
    assert sum(libray.get([c.wait.remote() for _ in range(3000)], timeout=60)) == 3000


def test_cancelled_while_it_waits_for_its_group():
    @libray.remote(concurrency_groups={"one": 1})
    class Grouped:
        def __init__(self):
            self.open = threading.Event()
            self.ran = []

        @libray.method(concurrency_group="one")
        def step(self, i):
            self.ran.append(i)
            self.open.wait(60)

        def release(self):
            self.open.set()

        def get(self):
            return self.ran

    a = Grouped.remote()
    first = a.step.remote(1)
    while libray.get(a.get.remote()) != [1]:
        pass
    second = a.step.remote(2)
    libray.get(a.get.remote())  # the call behind it was routed: so was the one before it
    libray.cancel(second)
    libray.get(a.get.remote())
    time.sleep(0.1)  # the cancellation is seen by the worker's own thread
    libray.get(a.release.remote())
    libray.get(first, timeout=30)
    with pytest.raises(exc.TaskCancelledError):
        libray.get(second, timeout=30)
    assert libray.get(a.get.remote()) == [1]


def test_the_older_spelling_of_a_call():
    @libray.remote
    class Pair:
        def pair(self, a, b=2):
            return a, b

    p = Pair.remote()
    assert libray.get(p.pair._remote(args=[1], kwargs={"b": 3})) == (1, 3)
    assert libray.get(p.pair._remote([1], {}, num_returns=2)) == [1, 2]
    assert libray.get(p.pair._remote((5,))) == (5, 2)


def test_an_actor_knows_itself():
    @libray.remote(max_restarts=1, max_task_retries=1)
    class Self:
        def me(self):
            context = libray.get_runtime_context()
            return (
                context.get_actor_name(),
                context.current_actor,
                context.was_current_actor_reconstructed,
            )

        def call_me(self):
            return libray.get_runtime_context().current_actor.me.remote()

        def die_once(self):
            if not libray.get_runtime_context().was_current_actor_reconstructed:
                os._exit(1)

    a = Self.options(name="known to itself").remote()
    assert libray.get(a.me.remote()) == ("known to itself", a, False)
    assert libray.get(libray.get(a.call_me.remote()))[1] == a
    libray.get(a.die_once.remote(), timeout=30)
    assert libray.get(a.me.remote()) == ("known to itself", a, True)
    assert libray.get(Self.remote().me.remote())[0] == ""


def test_handles_that_were_found_keep_no_actor(tmp_path, eventually):
    @libray.remote
    class Mortal:
        def __init__(self, path):
            self.path = path

        def keep(self, handle=None):
            self.kept = handle or libray.get_runtime_context().current_actor
            return self.kept

        def kept_is_there(self):
            return libray.get(self.kept.keep.remote())

        def __ray_shutdown__(self):
            self.path.touch()

    first = Mortal.options(name="mortal").remote(tmp_path / "gone")
    found = libray.get_actor("mortal")
    same = Mortal.options(name="mortal", get_if_exists=True).remote(tmp_path / "never")
    itself = libray.get(found.keep.remote())  # what it keeps does not count, nor does what it gives
    other = Mortal.remote(tmp_path / "other")
    assert found == same == itself == first
    assert (first._weak, found._weak, same._weak, itself._weak) == (False, True, True, True)
    assert libray.get([other.keep.remote(found), other.kept_is_there.remote()])[0] == first
    in_the_store = libray.put([found, other])  # of these one counts
    del first
    eventually((tmp_path / "gone").exists)
    with pytest.raises(exc.ActorDiedError):
        libray.get(same.keep.remote())
    with pytest.raises(exc.ActorDiedError):
        libray.get(other.kept_is_there.remote())
    with pytest.raises(ValueError, match="Failed to look up actor"):
        libray.get_actor("mortal")
    del other
    found, again = libray.get(in_the_store)
    del in_the_store
    assert (found._weak, again._weak) == (True, False)
    libray.get(again.keep.remote())
    del again
    eventually((tmp_path / "other").exists)


def test_a_call_through_a_found_handle_is_finished(tmp_path):
    @libray.remote
    def gate():
        while not (tmp_path / "open").exists():
            time.sleep(0.005)
        return 5

    @libray.remote
    class Mortal:
        def later(self, value):
            return value + 1

    first = Mortal.options(name="called when it goes").remote()
    waits = libray.get_actor("called when it goes").later.remote(gate.remote())
    del first
    (tmp_path / "open").touch()
    assert libray.get(waits) == 6


@pytest.mark.parametrize("size", [100_000, 200_000, 400_000, 3_000_000])
@pytest.mark.parametrize("where", ["text", "attribute"])
def test_a_large_error_of_a_constructor(size, where):
    class Large(ValueError):
        pass

    @libray.remote
    class Broken:
        def __init__(self):
            error = Large("it broke " + "x" * (size if where == "text" else 0))
            error.data = "y" * (size if where == "attribute" else 0)
            raise error

        def call(self):
            return 1

    broken = Broken.remote()
    for _ in range(2):
        with pytest.raises(exc.ActorDiedError, match="it broke") as died:
            libray.get(broken.call.remote(), timeout=60)
        if size < 250_000 and where == "attribute":  # else its text is all that is kept
            assert died.value.cause.data == "y" * size

    @libray.remote
    def elsewhere(handle):
        with pytest.raises(exc.ActorDiedError, match="it broke"):
            libray.get(handle.call.remote())
        return 1

    assert libray.get(elsewhere.remote(broken), timeout=60) == 1


def test_all_threads_of_an_actor_wake_though_others_hold_the_processors(run_script):
    # Idle threads look by themselves once a second: rounds that rely on it take longer than the script may.
    run_script(
        """
        import threading
        import libray

        @libray.remote
        class Holder:
            def hold(self):
                threading.Event().wait()

            def nothing(self):
                pass

        @libray.remote(max_concurrency=3)
        class Meeting:
            def __init__(self):
                self.barrier = threading.Barrier(3)

            def meet(self):
                self.barrier.wait()

        libray.init(num_cpus=2)
        holders = [Holder.remote() for _ in range(4)]
        meeting = Meeting.remote()
        libray.get([h.nothing.remote() for h in holders])
        held = [h.hold.remote() for h in holders]
        for _ in range(300):
            libray.get([meeting.meet.remote() for _ in range(3)])
        """,
        timeout=60,
    )


@libray.remote
class Keeper:
    def __init__(self, value):
        self.value = value

    def get(self):
        return self.value


@libray.remote(max_retries=0)
def after(path, fails=False):
    while not os.path.exists(path):
        time.sleep(0.002)
    if fails:
        raise ValueError("no value")
    return 5


@libray.remote(max_retries=0)
def ask(keeper, asked):
    ref = keeper.get.remote()
    open(asked, "w").close()
    return libray.get(ref)


@pytest.mark.parametrize("fails", [False, True])
def test_an_actor_is_known_while_its_constructor_waits_for_arguments(tmp_path, fails, eventually):
    go, asked = str(tmp_path / "go"), str(tmp_path / "asked")
    keeper = Keeper.remote(after.options(num_cpus=0).remote(go, fails))
    mine = [keeper.get.remote() for _ in range(3)]
    other = ask.remote(keeper, asked)
    eventually(lambda: os.path.exists(asked))
    open(go, "w").close()
    if not fails:
        assert libray.get([*mine, other], timeout=30) == [5] * 4
        return
    for ref in [*mine, keeper.get.remote(), other]:
        with pytest.raises(exc.ActorDiedError, match="no value"):
            libray.get(ref, timeout=30)


def test_an_actor_whose_handle_goes_before_its_arguments_come(tmp_path):
    go = str(tmp_path / "go")
    for _ in range(20):
        Keeper.remote(after.options(num_cpus=0).remote(go))  # nobody keeps it
    kept = Keeper.remote(after.options(num_cpus=0).remote(go))
    open(go, "w").close()
    assert libray.get(kept.get.remote(), timeout=30) == 5


def test_an_actor_whose_creator_dies_before_its_arguments_come(tmp_path, eventually):
    @libray.remote(max_retries=0)
    def create(never, box):
        keeper = Keeper.remote(after.options(num_cpus=0).remote(never))
        box.append(keeper)
        told.put.remote(box)
        return os.getpid()

    @libray.remote
    class Told:
        def __init__(self):
            self.box = None

        def put(self, box):
            self.box = box

        def there(self):
            return self.box is not None

        def ask(self):
            return self.box[0].get.remote()

    told = Told.remote()
    pid = libray.get(create.remote(str(tmp_path / "never"), []), timeout=30)
    eventually(lambda: libray.get(told.there.remote()))
    ref = libray.get(told.ask.remote())
    os.kill(pid, 9)
    with pytest.raises(exc.ActorDiedError):
        libray.get(ref, timeout=30)


def test_an_actor_whose_last_call_was_lost_to_a_restart_ends(tmp_path):
    """Its handle went before: nobody wants it any more, whatever restarts it has left."""
    from libray import testing

    @libray.remote(num_cpus=0, max_restarts=5)
    class Crashes:
        def __init__(self, path):
            with open(path, "a") as file:
                file.write("x")

        def crash(self):
            os._exit(1)

    actor = Crashes.remote(tmp_path / "made")
    made = actor._actor_id_hex
    ref = actor.crash.remote()
    del actor
    with pytest.raises(exc.RayActorError):
        libray.get(ref, timeout=30)
    del ref
    testing.wait_until(lambda: testing.actors().get(made) == "DEAD")
