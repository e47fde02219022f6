"""put, get, wait: values, order, timeouts, zero-copy arrays, interruption."""

import gc
import os
import re
import signal
import threading
import time

import numpy as np
import pytest

import libray
from libray.exceptions import GetTimeoutError

pytestmark = pytest.mark.usefixtures("cluster")


@libray.remote
def identity(x):
    return x


@libray.remote(num_cpus=0)
def hold(path):
    """Runs until the file appears."""
    while not os.path.exists(path):
        time.sleep(0.005)
    return path


@pytest.fixture
def gate(tmp_path):
    """A file that `hold` waits for; opened at the end of the test in any case."""
    path = tmp_path / "gate"

    class Gate:
        def __str__(self):
            return str(path)

        def open(self):
            path.touch()

    made = Gate()
    yield made
    made.open()


def test_put_and_get():
    for value in [1, "x", [1, 2], {"a": np.arange(3).tolist()}, b"z" * 2_000_000, None]:
        assert libray.get(libray.put(value)) == value
    assert libray.get([]) == []
    ref = libray.put(3)
    assert libray.get([ref, ref, ref]) == [3, 3, 3]


def test_wrong_types():
    with pytest.raises(TypeError, match="not allowed"):
        libray.put(libray.put(1))
    for bad in (1, "x", None, (libray.put(1),)):
        with pytest.raises(ValueError, match="Invalid type of object refs"):
            libray.get(bad)
    for bad in ([1], [libray.put(1), None]):
        with pytest.raises(TypeError, match="which is not an ray.ObjectRef"):
            libray.get(bad)
    with pytest.raises(TypeError, match="ActorHandle"):
        libray.put(1, _owner=3)
    with pytest.raises(TypeError):
        libray.get(libray.put(1), 5)
    with pytest.raises(TypeError):
        libray.get(libray.put(1), nonsense=5)


def test_get_timeout(gate):
    ref = hold.remote(str(gate))
    with pytest.raises(GetTimeoutError):
        libray.get(ref, timeout=0)
    with pytest.raises(TimeoutError):
        libray.get(ref, timeout=0.02)
    with pytest.raises(GetTimeoutError):
        libray.get([libray.put(1), ref], timeout=0.02)
    gate.open()
    assert libray.get(ref, timeout=30) == str(gate)
    assert libray.get(ref, timeout=0) == str(gate)


def test_get_of_a_list_raises_the_first_error(gate):
    @libray.remote
    def fail(text):
        raise ValueError(text)

    good, bad, worse = identity.remote(1), fail.remote("bad"), fail.remote("worse")
    libray.wait([bad, worse], num_returns=2)  # of several errors that are there, the first in the list
    with pytest.raises(ValueError, match="bad"):
        libray.get([good, bad, worse])
    with pytest.raises(ValueError, match="worse"):
        libray.get([good, worse, bad])
    with pytest.raises(ValueError, match="bad"):  # one failure is enough, whatever still runs
        libray.get([hold.remote(str(gate)), bad], timeout=60)
    gate.open()


def test_wait_keeps_order_and_counts(gate):
    done = [identity.remote(i) for i in range(5)]
    libray.get(done)
    slow = hold.remote(str(gate))
    refs = [done[4], slow, done[1], done[0], done[3]]
    ready, rest = libray.wait(refs, num_returns=2)
    assert ready == [done[4], done[1]] and rest == [slow, done[0], done[3]]
    ready, rest = libray.wait(refs, num_returns=4)
    assert ready == [done[4], done[1], done[0], done[3]] and rest == [slow]
    ready, rest = libray.wait(refs, num_returns=5, timeout=0.05)
    assert len(ready) == 4 and rest == [slow]
    ready, rest = libray.wait([slow], timeout=0)
    assert (ready, rest) == ([], [slow])
    gate.open()
    assert libray.wait([slow], timeout=30) == ([slow], [])
    assert libray.wait([]) == ([], [])


def test_wait_rules():
    ref = libray.put(1)
    with pytest.raises(ValueError, match="unique"):
        libray.wait([ref, ref])
    with pytest.raises(ValueError, match="greater"):
        libray.wait([ref], num_returns=2)
    with pytest.raises(ValueError, match="Invalid number of objects"):
        libray.wait([ref], num_returns=0)
    with pytest.raises(TypeError):
        libray.wait(ref)
    with pytest.raises(TypeError):
        libray.wait([1])
    with pytest.raises(TypeError):
        libray.wait((ref,))
    with pytest.raises(TypeError, match="single"):
        libray.wait(ref)
    with pytest.raises(ValueError, match="nonnegative"):
        libray.wait([ref], timeout=-1)
    with pytest.raises(ValueError, match="unique"):
        libray.wait([ref, ref], num_returns=3)


def test_wait_of_random_subsets():
    import random

    rng = random.Random(3)
    refs = [identity.remote(i) for i in range(100)]
    left = list(refs)
    seen = []
    while left:
        want = rng.randrange(1, min(len(left), 7) + 1)
        ready, rest = libray.wait(left, num_returns=want)
        assert len(ready) == want and [r for r in left if r in set(ready)] == ready
        assert (
            sorted(map(left.index, rest)) == list(map(left.index, rest))
            and len(rest) == len(left) - want
        )
        seen += ready
        left = rest
    assert sorted(libray.get(seen)) == list(range(100))


def test_arrays_are_zero_copy_and_read_only():
    array = np.arange(1_000_000, dtype=np.float64)
    ref = libray.put(array)
    a, b = libray.get(ref), libray.get(ref)
    assert (a == array).all() and not a.flags.writeable and not a.flags.owndata
    assert a.__array_interface__["data"][0] % 64 == 0
    assert np.shares_memory(a, b)
    with pytest.raises(ValueError, match="read-only"):
        a[0] = 1
    with pytest.raises(ValueError):
        a.flags.writeable = True
    inside = libray.get(libray.put({"x": [array, "text"], "y": (array[::2],)}))
    assert not inside["x"][0].flags.writeable and (inside["y"][0] == array[::2]).all()

    class Holder:
        def __init__(self, a):
            self.a = a

    held = libray.get(libray.put(Holder(array)))
    assert not held.a.flags.writeable and not held.a.flags.owndata and (held.a == array).all()
    fortran = np.asfortranarray(np.arange(12).reshape(3, 4))
    assert (libray.get(libray.put(fortran)) == fortran).all()


def test_arrays_outlive_their_references():
    views = []
    for i in range(50):
        array = np.full(200_000, i, dtype=np.int64)
        views.append(libray.get(libray.put(array))[1000:2000])
    gc.collect()
    for i, view in enumerate(views):
        assert (view == i).all()


def test_many_objects_do_not_fill_the_store(fresh):
    fresh(num_cpus=1, object_store_memory=64 << 20)
    for i in range(128):  # 512 MB in all; each is dropped before the next
        ref = libray.put(np.full(1 << 19, i, dtype=np.int64))
        assert libray.get(ref)[5] == i


def test_an_object_larger_than_the_store(fresh):
    """Wherever it comes from: an error with both sizes and what to do, at once, and the node goes on."""
    fresh(num_cpus=1, object_store_memory=64 << 20)
    size = 80 << 20

    @libray.remote
    def length(x):
        return len(x)

    @libray.remote
    def make(n):
        return np.ones(n, np.uint8)

    @libray.remote
    def stream(n):
        yield np.ones(10, np.uint8)
        yield np.ones(n, np.uint8)

    @libray.remote
    class Maker:
        def make(self, n):
            return np.ones(n, np.uint8)

    maker = Maker.remote()
    large = np.ones(size, np.uint8)
    items = stream.options(num_returns="streaming").remote(size)
    assert len(libray.get(next(items), timeout=60)) == 10
    for attempt in (
        lambda: libray.put(large),
        lambda: libray.get(length.remote(large), timeout=60),
        lambda: libray.get(make.remote(size), timeout=60),
        lambda: libray.get(maker.make.remote(size), timeout=60),
        lambda: libray.get(next(items), timeout=60),
    ):
        with pytest.raises(libray.exceptions.ObjectStoreFullError) as info:
            attempt()
        text = str(info.value)
        assert str(64 << 20) in text and "object_store_memory" in text, text
        assert int(re.search(r"an object of (\d+) bytes", text).group(1)) >= size
    assert libray.get(length.remote(np.ones(40 << 20, np.uint8)), timeout=60) == 40 << 20
    assert len(libray.get(maker.make.remote(40 << 20), timeout=60)) == 40 << 20


def test_objects_from_several_threads():
    errors = []

    def work(k):
        try:
            for i in range(200):
                assert libray.get(identity.remote((k, i))) == (k, i)
                assert libray.get(libray.put([k, i])) == [k, i]
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not errors and not any(t.is_alive() for t in threads)


def test_keyboard_interrupt_ends_get_and_wait(gate):
    ref = hold.remote(str(gate))
    main = threading.main_thread().ident
    for call in (lambda: libray.get(ref), lambda: libray.get([ref]), lambda: libray.wait([ref])):
        timer = threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            call()
        timer.join()
    gate.open()
    assert libray.get(ref) == str(gate)


# ---- values on disk


def spilled(start):
    """A full store: two values that are held by their arrays, and one that is on disk until both are let go."""
    start(num_cpus=2, object_store_memory=110 << 20)
    size = 40 << 20
    refs = [libray.put(np.full(size, k, np.uint8)) for k in range(3)]
    return refs, [libray.get(refs[0]), libray.get(refs[1])]


def test_a_get_of_what_is_on_disk_stops_no_other_thread(fresh):
    refs, held = spilled(fresh)
    got = []

    def read():
        try:
            got.append(int(libray.get(refs[2])[0]))
        except BaseException as e:
            got.append(e)

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(20):  # this thread runs meanwhile
        time.sleep(0.01)
    held.clear()
    thread.join(60)
    assert got == [2]


@pytest.mark.parametrize("groups", [None, {"other": 4}])
def test_arguments_on_disk_stop_no_event_loop(fresh, groups):
    refs, held = spilled(fresh)

    @libray.remote(concurrency_groups=groups)
    class Loop:
        async def beat(self):
            return 1

        async def take(self, array):
            return int(array[0])

    loop = Loop.options(num_cpus=0).remote()
    assert libray.get(loop.beat.remote()) == 1
    late = [loop.take.remote(refs[2]) for _ in range(3)]
    cancelled = loop.take.remote(refs[2])
    for _ in range(50):
        assert libray.get(loop.beat.remote(), timeout=20) == 1
    assert libray.wait(late, timeout=0)[0] == []
    libray.cancel(cancelled)
    held.clear()
    assert libray.get(late, timeout=60) == [2, 2, 2]
    with pytest.raises(libray.exceptions.TaskCancelledError):
        libray.get(cancelled, timeout=60)
    assert libray.get([loop.take.remote(ref) for ref in refs], timeout=60) == [0, 1, 2]


def test_arguments_on_disk_stop_no_other_thread(fresh, tmp_path, eventually):
    refs, held = spilled(fresh)
    ticks = tmp_path / "ticks"

    @libray.remote
    class Ticks:
        def __init__(self):
            threading.Thread(target=self.tick, daemon=True).start()

        def tick(self):
            while True:
                with open(ticks, "a") as file:
                    file.write("x")
                time.sleep(0.01)

        def busy(self, until):
            while not os.path.exists(until):
                time.sleep(0.005)

        def take(self, array):
            return int(array[0])

    actor = Ticks.remote()
    eventually(ticks.exists)
    until = tmp_path / "until"
    actor.busy.remote(str(until))
    result = actor.take.remote(refs[2])  # is taken by a worker that does not sleep
    time.sleep(0.1)
    until.touch()
    time.sleep(0.3)  # it waits for its argument now
    before = ticks.stat().st_size
    eventually(lambda: ticks.stat().st_size > before + 20, 8)
    held.clear()
    assert libray.get(result) == 2


def test_a_list_that_changes_while_get_looks_at_it():
    class Timeout:
        """Its conversion is code of the program."""

        def __float__(self):
            refs.clear()
            others.extend(libray.put(-i) for i in range(200))
            return 60.0

    others = []
    refs = [libray.put(i) for i in range(200)]
    assert libray.get(refs, timeout=Timeout()) == list(range(200)) and refs == []
