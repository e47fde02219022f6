"""Tasks that run more than once, results that nobody takes, and processes that leave: one value for
each reference, and nothing stays in the store."""

import gc
import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest

import libray
from libray import testing

os.environ["LIBRAY_CHECKS"] = "2"  # the node ends when anything is released more often than held

MB = 1 << 20


def first_time(path):
    """True once, then False: for tasks that do otherwise when they run again."""
    if os.path.exists(path):
        return False
    open(path, "w").close()
    return True


@pytest.fixture
def mark(tmp_path):
    """Names for first_time."""
    numbers = iter(range(10**6))
    return lambda: str(tmp_path / str(next(numbers)))


@pytest.fixture(scope="module", autouse=True)
def shut_down():
    yield
    libray.shutdown()


@pytest.fixture
def nothing_stays(eventually):
    """A cluster whose store is empty before the test and becomes so after it."""
    context = libray.init(num_cpus=4, ignore_reinit_error=True)
    eventually(lambda: not testing.store())
    yield context
    gc.collect()
    eventually(lambda: not testing.store())


@libray.remote(num_returns=2, max_retries=2, retry_exceptions=True)
def one_then_two(path, n):
    attempt = 1 if first_time(path) else 2
    yield np.full(n, attempt, np.uint8)
    if attempt == 1:
        raise ValueError
    yield attempt


@libray.remote
def first_byte(array):
    return int(array[0])


@pytest.mark.parametrize("n", [1000, MB])
def test_results_are_of_one_attempt_at_every_get(nothing_stays, mark, n):
    seen = Counter()
    for _ in range(5):
        a, b = one_then_two.remote(mark(), n)
        assert libray.get(b) == 2
        seen[int(libray.get(a)[0])] += 1
        testing.store()  # everything committed so far has been read
        seen[int(libray.get(a)[0])] += 1
        seen[libray.get(first_byte.remote(a))] += 1
    assert seen == {2: 15}


def test_they_are_so_on_disk_too(fresh, mark):
    fresh(num_cpus=1, object_store_memory=32 * MB)
    results = [one_then_two.remote(mark(), MB) for _ in range(8)]
    assert [libray.get(b) for _, b in results] == [2] * 8
    fill = [libray.put(np.zeros(8 * MB, np.uint8)) for _ in range(6)]
    assert [int(libray.get(a)[0]) for a, _ in results] == [2] * 8
    del fill


@libray.remote
class Box:
    def keep(self, content):
        self.content = content

    def first(self):
        return int(libray.get(self.content[0])[0])


@pytest.mark.parametrize("n", [10, 100_000])
def test_what_a_task_puts_again_has_the_value_of_the_last_time(nothing_stays, mark, n):
    """The reference that attempt 1 gave away keeps its own value; that of attempt 2 has the new one."""

    @libray.remote(max_retries=1)
    def put_and_die(path, box):
        attempt = 1 if first_time(path) else 2
        mine = libray.put(np.full(n, attempt, np.uint8))
        if attempt == 1:
            libray.get(box.keep.remote([mine]))
            os._exit(1)
        return [mine]

    box = Box.remote()
    mine = libray.get(put_and_die.remote(mark(), box))[0]
    assert int(libray.get(mine)[0]) == 2
    assert libray.get(first_byte.remote(mine)) == 2
    libray.get(box.keep.remote([mine]))
    assert libray.get(box.first.remote()) == 2


@libray.remote
def inside():
    return [libray.put("content")]


def test_a_child_that_a_retried_parent_makes_again(nothing_stays, mark):
    """The parent comes back to its worker while the first child runs: that process has two results of one id."""

    @libray.remote(max_retries=1, retry_exceptions=True)
    def parent(path):
        child = inside.remote()
        if first_time(path):
            raise ValueError
        return [child]

    for _ in range(20):
        [child] = libray.get(parent.remote(mark()))
        [content] = libray.get(child)
        assert libray.get(content) == "content"


@libray.remote
def box_of(n, pad):
    return [libray.put(f"value {i}") for i in range(n)], b"x" * pad


@libray.remote
class Keeper:
    def keep(self, box):
        self.box = box

    def read(self):
        references, _ = libray.get(self.box[0])
        return libray.get(references)


@pytest.mark.parametrize("n, pad", [(1, 10), (1, 20_000), (1, 2 * MB), (100, 0), (200, 0), (5000, 0)])
def test_a_result_that_is_passed_on_keeps_what_it_contains(nothing_stays, n, pad):
    keeper = Keeper.remote()
    result = box_of.remote(n, pad)
    libray.wait([result])
    libray.get(keeper.keep.remote([result]))
    del result
    for _ in range(5):  # the node frees what nobody holds
        testing.store()
    assert libray.get(keeper.read.remote(), timeout=30) == [f"value {i}" for i in range(n)]


def test_items_of_a_generator_are_passed_on_whole(nothing_stays):
    @libray.remote(num_returns="streaming")
    def boxes():
        for i in range(3):
            yield [libray.put(f"value {i}")], b"x" * 20_000

    keepers = [Keeper.remote() for _ in range(3)]
    libray.get([k.keep.remote([item]) for k, item in zip(keepers, boxes.remote())])
    for _ in range(5):
        testing.store()
    assert libray.get([k.read.remote() for k in keepers]) == [["value 0"], ["value 1"], ["value 2"]]


# ---- results that nobody takes


def contents():
    return [libray.put(np.zeros(MB, np.uint8)), np.zeros(100_000, np.uint8)]


def test_a_result_before_one_that_cannot_be_sent(nothing_stays):
    @libray.remote(num_returns=2, max_retries=0)
    def two():
        return contents(), threading.Lock()

    for _ in range(3):
        for ref in two.remote():
            with pytest.raises(Exception):
                libray.get(ref)
        del ref


@pytest.mark.parametrize("end", ["raise", "exit", "kill"])
def test_items_that_come_again(nothing_stays, mark, end):
    @libray.remote(num_returns="streaming", max_retries=2, retry_exceptions=True)
    def items(path):
        for i in range(3):
            yield [contents(), i]
        if first_time(path):
            if end == "raise":
                raise ValueError
            os.kill(os.getpid(), signal.SIGKILL) if end == "kill" else os._exit(1)

    for _ in range(2):
        assert [libray.get(ref)[1] for ref in items.remote(mark())] == [0, 1, 2]


@pytest.mark.parametrize("end", ["raise", "exit"])
def test_a_first_result_of_an_attempt_that_failed(nothing_stays, mark, end):
    @libray.remote(num_returns=2, max_retries=2, retry_exceptions=True)
    def late(path):
        yield contents()
        if first_time(path):
            if end == "raise":
                raise ValueError
            os._exit(1)
        yield 2

    for _ in range(3):
        refs = late.remote(mark())
        assert libray.get(refs)[1] == 2
        del refs


def test_an_actors_call_that_ran_twice(nothing_stays, mark):
    @libray.remote(max_restarts=1, max_task_retries=1)
    class Late:
        @libray.method(num_returns=2)
        def late(self, path):
            yield contents()
            if first_time(path):
                os._exit(1)
            yield 2

    actor = Late.remote()
    refs = actor.late.remote(mark())
    assert libray.get(refs)[1] == 2
    del refs


def test_a_worker_that_dies_with_a_result_that_it_has_not_told(fresh, mark, eventually, monkeypatch):
    """Its references are registered and its bytes stored by then."""
    monkeypatch.setenv("LIBRAY_FAULTS", "worker.before_result=kill@2")
    fresh(num_cpus=1)

    @libray.remote(max_retries=3)
    def make(i):
        return [contents(), i]

    assert [libray.get(make.remote(i))[1] for i in range(5)] == list(range(5))
    eventually(lambda: not testing.store())


def test_a_cancelled_generator(nothing_stays):
    @libray.remote(num_returns="streaming")
    def items():
        while True:
            yield contents()

    stream = items.remote()
    libray.get(next(stream))
    libray.cancel(stream)
    del stream


# ---- processes that leave

LEAVES = """
import os, signal, sys, numpy as np, libray
libray.init(address=sys.argv[1])
kept = [libray.put(np.ones(20 << 20, np.uint8)), libray.put(b"x" * 100_000)]
@libray.remote
def make():
    return [libray.put(np.ones(1 << 20, np.uint8)), np.ones(5 << 20, np.uint8)]
kept += [make.remote(), make.remote()]
libray.get(kept[2])
libray.wait(kept[2:], num_returns=2)
print("ready", flush=True)
sys.stdin.readline()
if sys.argv[2] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "shutdown":
    libray.shutdown()
    print("left", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["kill", "end", "shutdown"])
def test_what_a_driver_put_goes_with_it(nothing_stays, tmp_path, eventually, how):
    program = tmp_path / "leaves.py"
    program.write_text(LEAVES)
    driver = subprocess.Popen(
        [sys.executable, str(program), nothing_stays.address_info["session_dir"], how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    try:
        assert driver.stdout.readline() == "ready\n"
        assert sum(row["size"] for row in testing.store()) > 30 * MB
        driver.stdin.write("\n")
        driver.stdin.flush()
        if how == "shutdown":
            assert driver.stdout.readline() == "left\n"
        eventually(lambda: not testing.store())
        driver.stdin.close()
        driver.wait(30)
    finally:
        driver.kill()


def test_what_others_hold_outlives_its_maker(nothing_stays):
    @libray.remote
    class Maker:
        def make(self):
            self.unshared = libray.put(np.ones(5 * MB, np.uint8))
            return [libray.put(np.full(MB, 7, np.uint8))]

        def end(self):
            os._exit(0)

    maker = Maker.remote()
    kept = libray.get(maker.make.remote())[0]
    maker.end.remote()
    with pytest.raises(libray.exceptions.RayActorError):
        libray.get(maker.make.remote())
    assert int(libray.get(kept)[-1]) == 7


def test_memory_of_large_arguments_goes_back_to_the_system(fresh, eventually):
    fresh(num_cpus=2, object_store_memory=400 * MB)

    def shared_memory():
        with open("/proc/meminfo") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("Shmem:")) >> 10

    before = shared_memory()
    refs = [first_byte.remote(np.ones(100 * MB, np.uint8)) for _ in range(3)]
    assert libray.get(refs) == [1, 1, 1]
    del refs
    eventually(lambda: shared_memory() < before + 60)


# ---- errors


@pytest.mark.parametrize("n", [100, 400])
def test_many_results_that_failed_keep_their_class(nothing_stays, n):
    @libray.remote(max_retries=0)
    def many():
        yield 1
        raise KeyError("gone " * 30)

    refs = many.options(num_returns=n).remote()
    assert libray.get(refs[0]) == 1
    for ref in refs[1:]:
        with pytest.raises(KeyError):
            libray.get(ref)


@pytest.mark.parametrize("n", [1000, 100_000, 130_000, 3_000_000])
def test_large_errors_come_whole(nothing_stays, n):
    @libray.remote(max_retries=0)
    def boom():
        raise ValueError("x" * n)

    @libray.remote(num_returns="streaming", max_retries=0)
    def items():
        yield 1
        raise ValueError("y" * n)

    with pytest.raises(ValueError) as caught:
        libray.get(boom.remote())
    assert "x" * n in str(caught.value)
    last = list(items.remote())[-1]
    with pytest.raises(ValueError) as caught:
        libray.get(last)
    assert "y" * n in str(caught.value)


def test_a_large_error_of_an_attempt_that_is_repeated(nothing_stays, mark):
    @libray.remote(max_retries=2, retry_exceptions=True)
    def late(path):
        if first_time(path):
            raise ValueError("x" * 500_000)
        return 1

    assert libray.get(late.remote(mark())) == 1
