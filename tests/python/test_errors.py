"""Errors: the user's exception comes back as both RayTaskError and its own class, with the remote
traceback."""

import os
import pickle
import signal
import sys
import time

import pytest

import libray
from libray import exceptions as exc

pytestmark = pytest.mark.usefixtures("cluster")


class CustomError(Exception):
    def __init__(self, code, detail):  # not the signature that BaseException.args would give
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail

    def __reduce__(self):
        return (CustomError, (self.code, self.detail))


class OddError(Exception):
    def __init__(self, *, needed):  # cannot be rebuilt from its args
        super().__init__("odd")
        self.needed = needed


class Unpicklable(Exception):
    def __init__(self):
        super().__init__("has a lock")
        import threading

        self.lock = threading.Lock()


@libray.remote
def fail(error):
    raise error


def test_error_is_both_classes_and_keeps_the_traceback():
    @libray.remote
    def outer_frame():
        def inner_frame():
            return {}["missing"]

        return inner_frame()

    with pytest.raises(exc.RayTaskError) as info:
        libray.get(outer_frame.remote())
    error = info.value
    assert isinstance(error, KeyError) and isinstance(error.cause, KeyError)
    text = str(error)
    assert "in outer_frame" in text and "in inner_frame" in text and 'return {}["missing"]' in text
    assert "KeyError: 'missing'" in text and f"pid={error.pid}" in text
    assert "libray/worker/" not in text and "_libray" not in text
    assert text.count("KeyError") == 1
    with pytest.raises(KeyError):
        libray.get(outer_frame.remote())


def test_custom_exception_keeps_its_attributes():
    with pytest.raises(CustomError) as info:
        libray.get(fail.remote(CustomError(7, "why")))
    assert info.value.code == 7 and info.value.detail == "why" and info.value.cause.code == 7
    again = pickle.loads(pickle.dumps(info.value))
    assert (
        isinstance(again, CustomError)
        and isinstance(again, exc.RayTaskError)
        and again.cause.detail == "why"
    )


def test_exceptions_that_cannot_travel():
    @libray.remote
    def odd():
        raise OddError(needed=1)

    @libray.remote
    def lock():
        raise Unpicklable()

    for ref, name in ((odd.remote(), "OddError"), (lock.remote(), "Unpicklable")):
        with pytest.raises(exc.RayTaskError, match=name) as info:
            libray.get(ref)
        assert "isn't serializable" in str(info.value.cause)


def test_errors_pass_through_dependent_and_nested_tasks():
    @libray.remote
    def use(x):
        return x

    @libray.remote
    def nest():
        return libray.get(fail.remote(ValueError("deep")))

    with pytest.raises(ValueError, match="deep"):
        libray.get(use.remote(use.remote(fail.remote(ValueError("deep")))))
    with pytest.raises(exc.RayTaskError) as info:
        libray.get(nest.remote())
    assert (
        isinstance(info.value, ValueError)
        and "in nest" in str(info.value)
        and "in fail" in str(info.value)
    )


def test_builtin_exceptions():
    for error in (
        ValueError("v"),
        OSError(2, "no file"),
        StopIteration(3),
        ZeroDivisionError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        TimeoutError("t"),
        AssertionError(),
    ):
        with pytest.raises(type(error)) as info:
            libray.get(fail.remote(error))
        assert isinstance(info.value, exc.RayTaskError)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups")
def test_exception_groups():
    group = ExceptionGroup("two", [ValueError("a"), KeyError("b")])  # noqa: F821
    with pytest.raises(ExceptionGroup) as info:  # noqa: F821
        libray.get(fail.remote(group))
    assert isinstance(info.value, exc.RayTaskError) and len(info.value.exceptions) == 2


def test_unpicklable_arguments_fail_at_the_caller():
    import threading

    with pytest.raises(TypeError, match="pickle"):
        fail.remote(threading.Lock())
    with pytest.raises(TypeError, match="pickle"):
        libray.put(threading.Lock())


def test_unpicklable_result_is_an_error_of_the_task():
    @libray.remote
    def lock():
        import threading

        return threading.Lock()

    with pytest.raises(TypeError, match="pickle"):
        libray.get(lock.remote())


def test_recursion_error():
    @libray.remote
    def down(n):
        return down_(n + 1)

    def down_(n):
        return down_(n + 1)

    with pytest.raises(RecursionError):
        libray.get(down.remote(0))


def test_crashed_worker_is_retried(tmp_path):
    @libray.remote(max_retries=2)
    def crash_until(path, n):
        with open(path, "a") as f:
            f.write("x")
        if os.path.getsize(path) < n:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.path.getsize(path)

    assert libray.get(crash_until.remote(str(tmp_path / "a"), 3)) == 3
    with pytest.raises(exc.WorkerCrashedError):
        libray.get(crash_until.remote(str(tmp_path / "b"), 9))
    assert os.path.getsize(tmp_path / "b") == 3
    with pytest.raises(exc.WorkerCrashedError):
        libray.get(crash_until.options(max_retries=0).remote(str(tmp_path / "c"), 2))
    assert os.path.getsize(tmp_path / "c") == 1


def test_other_tasks_survive_a_crash():
    @libray.remote(max_retries=0)
    def work(i):
        if i == 50:
            os._exit(3)
        return i

    refs = [work.remote(i) for i in range(100)]
    for i, ref in enumerate(refs):
        if i == 50:
            with pytest.raises(exc.WorkerCrashedError):
                libray.get(ref)
        else:
            try:
                assert libray.get(ref) == i
            except exc.WorkerCrashedError:
                pytest.fail(f"task {i} had not started and must not be lost with task 50")


def test_retry_on_exception(tmp_path):
    @libray.remote(max_retries=3, retry_exceptions=True)
    def flaky(path):
        with open(path, "a") as f:
            f.write("x")
        if os.path.getsize(path) < 3:
            raise ValueError("not yet")
        return os.path.getsize(path)

    assert libray.get(flaky.remote(str(tmp_path / "n"))) == 3
    with pytest.raises(ValueError):
        libray.get(flaky.options(retry_exceptions=False).remote(str(tmp_path / "m")))


def test_system_exit_in_a_task():
    @libray.remote(max_retries=0)
    def leave():
        sys.exit(3)

    with pytest.raises(exc.WorkerCrashedError):
        libray.get(leave.remote())


def test_texts_that_are_no_utf8():
    with pytest.raises(ValueError) as caught:
        libray.get(fail.remote(ValueError("bad name \udcff")))
    assert "bad name ?" in str(caught.value) and str(caught.value.cause) == "bad name \udcff"

    @libray.remote(max_retries=0)
    def leave():
        sys.exit("bad name \udcff")

    with pytest.raises(exc.WorkerCrashedError, match="bad name"):
        libray.get(leave.remote())


def test_cancel_queued_and_running(fresh, tmp_path):
    fresh(num_cpus=1)
    started, ended = tmp_path / "started", tmp_path / "ended"

    @libray.remote
    def slow():
        started.touch()
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            ended.touch()
            raise

    @libray.remote
    def queued():
        return 1

    running = slow.remote()
    while not started.exists():
        time.sleep(0.01)
    waiting = [queued.remote() for _ in range(3)]
    libray.cancel(waiting[1])
    with pytest.raises(exc.TaskCancelledError):
        libray.get(waiting[1])
    libray.cancel(running)
    with pytest.raises(exc.TaskCancelledError):
        libray.get(running)
    assert ended.exists()
    assert libray.get([waiting[0], waiting[2]]) == [1, 1]
    libray.cancel(waiting[0])
    assert libray.get(waiting[0]) == 1
    with pytest.raises(TypeError):
        libray.cancel(5)


def test_cancel_with_force(tmp_path):
    started = tmp_path / "started"

    @libray.remote
    def stubborn():
        while True:
            try:
                started.touch()
                time.sleep(60)
            except KeyboardInterrupt:
                pass

    ref = stubborn.remote()
    while not started.exists():
        time.sleep(0.01)
    libray.cancel(ref, force=True)
    with pytest.raises((exc.WorkerCrashedError, exc.TaskCancelledError)):
        libray.get(ref)


def test_class_tree():
    assert issubclass(exc.GetTimeoutError, TimeoutError) and issubclass(
        exc.GetTimeoutError, exc.RayError
    )
    assert issubclass(exc.ActorDiedError, exc.RayActorError)
    assert issubclass(exc.ObjectLostError, exc.RayError)
    for name in exc.__all__:
        cls = getattr(exc, name)
        assert issubclass(cls, (exc.RayError, TypeError))


def test_notes_of_an_exception_come_along():
    @libray.remote
    def noted():
        error = ValueError("noted")
        error.__notes__ = ["a note"]
        raise error

    with pytest.raises(ValueError) as info:
        libray.get(noted.remote())
    assert info.value.__notes__ == ["a note"]
