"""Options of remote functions: what is refused, and what retries, max_calls and names do."""

import os
import signal
import sys
import time

import pytest

import libray
from libray import exceptions as exc

pytestmark = pytest.mark.usefixtures("cluster")


def f():
    return 1


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"num_returns": -1}, ValueError, "only accepts None, a non-negative integer"),
        ({"num_returns": 0.5}, TypeError, "The type of keyword 'num_returns' must be"),
        ({"num_returns": "streaming"}, ValueError, "can only be used with generator functions"),
        ({"max_retries": -2}, ValueError, "only accepts None, 0, -1 or a positive integer"),
        ({"max_calls": -1}, ValueError, "only accepts None, 0 or a positive integer"),
        ({"max_retries": "3"}, TypeError, "but received type <class 'str'>"),
        ({"num_cpus": -1}, ValueError, "The quantity of resource num_cpus cannot be negative"),
        ({"num_cpus": 0.00001}, ValueError, "cannot go beyond 0.0001"),
        ({"num_gpus": "1"}, TypeError, "The type of keyword 'num_gpus' must be"),
        ({"resources": {"CPU": 1}}, ValueError, "Use the 'num_cpus' and 'num_gpus' keyword"),
        ({"resources": {"GPU": 1}}, ValueError, "instead of 'CPU' and 'GPU'"),
        ({"resources": []}, TypeError, "The type of keyword 'resources' must be"),
        ({"resources": {"x": -1}}, ValueError, "cannot be negative"),
        ({"object_store_memory": 5}, ValueError, "not implemented for tasks"),
        ({"retry_exceptions": [1]}, ValueError, "either a boolean or a list of exceptions"),
        ({"retry_exceptions": 1}, TypeError, "The type of keyword 'retry_exceptions' must be"),
        ({"_generator_backpressure_num_objects": 0}, ValueError, "is not allowed"),
        ({"name": 3}, TypeError, "The type of keyword 'name' must be"),
        ({"max_restarts": 1}, ValueError, "Invalid option keyword max_restarts for remote functions"),
        ({"nonsense": 1}, ValueError, "Valid ones are"),
    ],
)
def test_wrong_options(options, error, text):
    with pytest.raises(error) as first:
        libray.remote(**options)(f)
    with pytest.raises(error) as second:
        libray.remote(f).options(**options)
    assert text in str(first.value) and text in str(second.value)


def test_max_calls_is_not_for_options():
    with pytest.raises(ValueError, match="Setting 'max_calls' is not supported"):
        libray.remote(f).options(max_calls=2)


def test_worker_retires_after_max_calls():
    @libray.remote(max_calls=2)
    def pid(x):
        return os.getpid()

    @libray.remote(max_calls=1)
    def large():
        return bytes(2_000_000)

    pids = libray.get([pid.remote(i) for i in range(6)])
    assert len(set(pids)) >= 3 and max(pids.count(p) for p in pids) <= 2
    assert len(libray.get(large.remote())) == 2_000_000

    @libray.remote(max_calls=1)
    def parent():
        return [pid.remote(0)]  # its child outlives it

    assert libray.get(libray.get(parent.remote())[0], timeout=60)


def test_worker_retires_after_max_calls_of_a_function_known_by_name(run_script, tmp_path):
    (tmp_path / "by_name.py").write_text(
        "import os, libray\n@libray.remote(max_calls=1)\ndef pid(x):\n    return os.getpid()\n"
    )
    done = run_script(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import libray
        libray.init(num_cpus=1)
        pid = libray.function("python", "by_name", "pid")
        pids = [libray.get(pid.remote(i)) for i in range(3)]
        assert len(set(pids)) == 3, pids
        """
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_retiring_worker_frees_its_cpu_for_its_children(run_script):
    done = run_script(
        """
        import libray, time
        libray.init(num_cpus=1)

        @libray.remote
        def child():
            time.sleep(0.1)
            return 1

        @libray.remote(max_calls=1, max_retries=0)
        def parent():
            return [child.remote()]

        start = time.monotonic()
        refs = libray.get([parent.remote() for _ in range(5)])
        print(libray.get([r[0] for r in refs]), time.monotonic() - start < 30)
        """
    )
    assert done.stdout.split("]")[0] + "]" == "[1, 1, 1, 1, 1]" and "True" in done.stdout


class Wanted(Exception):
    pass


class Derived(Wanted):
    pass


@libray.remote(max_retries=3)
def flaky(path, error):
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < 3:
        raise error
    return os.path.getsize(path)


def test_retry_of_some_exceptions(tmp_path):
    some = flaky.options(retry_exceptions=[Wanted, KeyError])
    assert libray.get(some.remote(str(tmp_path / "a"), Wanted())) == 3
    assert libray.get(some.remote(str(tmp_path / "b"), Derived("sub"))) == 3
    assert libray.get(some.remote(str(tmp_path / "c"), KeyError(1))) == 3
    with pytest.raises(ValueError):
        libray.get(some.remote(str(tmp_path / "d"), ValueError()))
    assert os.path.getsize(tmp_path / "d") == 1
    with pytest.raises(Wanted):
        libray.get(flaky.options(retry_exceptions=[]).remote(str(tmp_path / "e"), Wanted()))
    assert os.path.getsize(tmp_path / "e") == 1
    with pytest.raises(Wanted):
        libray.get(some.options(max_retries=1).remote(str(tmp_path / "f"), Wanted()))
    assert os.path.getsize(tmp_path / "f") == 2


def test_retries_without_end(tmp_path):
    @libray.remote(max_retries=-1)
    def crash(path):
        with open(path, "a") as file:
            file.write("x")
        if os.path.getsize(path) < 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.path.getsize(path)

    assert libray.get(crash.remote(str(tmp_path / "n"))) == 6


def test_number_of_returns():
    @libray.remote(num_returns=0)
    def none():
        return 5

    @libray.remote(num_returns=3)
    def three(value):
        return value

    assert none.remote() is None
    assert libray.get(three.remote((1, 2, 3))) == [1, 2, 3]
    assert libray.get(three.remote({"a": 1, "b": 2, "c": 3})) == ["a", "b", "c"]
    for wrong, n in (((1, 2), 2), ([1, 2, 3, 4], 4)):
        with pytest.raises(ValueError, match=f"Task returned {n} objects, but num_returns=3"):
            libray.get(three.remote(wrong))
    with pytest.raises(TypeError):
        libray.get(three.remote(5))
    refs = three.options(num_returns=3000).remote(list(range(3000)))
    assert libray.get(refs) == list(range(3000))


def test_what_ends_a_worker(tmp_path):
    @libray.remote(max_retries=2)
    def leave(path, how):
        with open(path, "a") as file:
            file.write("x")
        raise how

    class Own(BaseException):
        pass

    for i, how in enumerate((SystemExit(3), KeyboardInterrupt(), Own("odd"))):
        path = tmp_path / str(i)
        with pytest.raises(exc.WorkerCrashedError, match=type(how).__name__) as info:
            libray.get(leave.remote(str(path), how))
        assert os.path.getsize(path) == 3  # as after any other crash
        assert "leave" in str(info.value) and "in leave" in str(info.value)


def test_names_in_errors_and_context():
    @libray.remote
    def named():
        context = libray.get_runtime_context()
        return context.get_task_name(), context.get_task_function_name()

    name, function = libray.get(named.remote())
    assert name == "named" and function.endswith(".named") and function.startswith(__name__)
    assert libray.get(named.options(name="given").remote())[0] == "given"

    @libray.remote
    def bad():
        raise ValueError("x")

    with pytest.raises(ValueError) as info:
        libray.get(bad.remote())
    assert str(info.value).startswith("ray::bad() (pid=")
    with pytest.raises(ValueError) as info:
        libray.get(bad.options(name="given").remote())
    assert str(info.value).startswith("ray::given() (pid=")


def test_references_made_from_bytes():
    ref = f_remote.remote()
    assert libray.ObjectRef.size() == 28 == len(ref.binary()) and len(ref.hex()) == 56
    same = libray.ObjectRef(ref.binary())
    assert same == ref and hash(same) == hash(ref) and {ref: 1}[same] == 1
    assert libray.ObjectRef.from_hex(ref.hex()) == ref
    kept = libray.put("kept")
    again = libray.ObjectRef(kept.binary())
    del kept
    assert libray.get(again) == "kept"  # it counts as a reference
    for wrong in (b"short", ref.binary() + b"1234"):
        with pytest.raises(ValueError, match="needs to have length 28"):
            libray.ObjectRef(wrong)
    with pytest.raises(TypeError, match="expected bytes"):
        libray.ObjectRef("text")
    nil, other = libray.ObjectRef.nil(), libray.ObjectRef.from_random()
    assert nil.is_nil() and not other.is_nil() and other != libray.ObjectRef.from_random()
    import pickle

    assert pickle.loads(pickle.dumps(other)) == other
    assert libray.get(libray.put([other]))[0] == other
    for use in (libray.get, lambda r: f_remote.remote(r), lambda r: libray.wait([r])):
        with pytest.raises(ValueError, match="names no object"):
            use(other)
    assert ref.task_id() == f_id(ref) and ref.job_id() == libray.put(1).job_id()


@libray.remote
def f_remote(*args):
    return args


def f_id(ref):
    from libray.core.ids import TaskID

    return TaskID(ref.binary()[:24])


def test_many_arguments_and_returns():
    @libray.remote
    def total(*args):
        return sum(args)

    refs = [libray.put(i) for i in range(10_000)]
    assert libray.get(total.remote(*refs), timeout=120) == sum(range(10_000))


def test_long_chain_of_dependent_tasks():
    @libray.remote
    def step(x):
        return x + 1

    ref = libray.put(0)
    for _ in range(10_000):
        ref = step.remote(ref)
    assert libray.get(ref, timeout=120) == 10_000


def test_exceptions_that_resist():
    class Final(Exception):
        def __init_subclass__(cls):
            raise TypeError("no subclasses, please")

    class OwnArgs(Exception):
        @property
        def args(self):
            return ("mine",)

    class NoText(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    @libray.remote
    def fail(error):
        raise error

    with pytest.raises(exc.RayTaskError) as info:
        libray.get(fail.remote(Final("x")))
    assert isinstance(info.value.cause, Exception) and not isinstance(info.value, Final)
    with pytest.raises(OwnArgs) as info:
        libray.get(fail.remote(OwnArgs()))
    assert info.value.args == (info.value.cause,)
    with pytest.raises(NoText):
        libray.get(fail.remote(NoText()))


def test_crash_names_task_signal_and_remedy():
    @libray.remote(max_retries=0)
    def overflow():
        import ctypes

        ctypes.string_at(0)

    with pytest.raises(exc.WorkerCrashedError) as info:
        libray.get(overflow.remote())
    text = str(info.value)
    assert "overflow" in text and "signal 11" in text and "max_retries" in text
    assert text.startswith("The worker died unexpectedly while executing this task.")


def test_cancelled_tasks_take_their_dependents_with_them(tmp_path):
    started = tmp_path / "started"

    @libray.remote
    def slow():
        started.touch()
        time.sleep(60)

    @libray.remote
    def use(x):
        return x

    root = slow.remote()
    after = use.remote(use.remote(root))
    waiting = use.remote(slow.remote())
    while not started.exists():
        time.sleep(0.01)
    libray.cancel(root)
    with pytest.raises(exc.TaskCancelledError) as info:
        libray.get(after, timeout=60)
    assert "slow" in str(info.value)
    libray.cancel(waiting)
    with pytest.raises(exc.TaskCancelledError):
        libray.get(waiting, timeout=60)


def test_pickling_references_by_hand_can_be_forbidden(run_script):
    done = run_script(
        """
        import os, pickle
        os.environ["RAY_allow_out_of_band_object_ref_serialization"] = "0"
        import libray
        libray.init(num_cpus=1)
        ref = libray.put(1)
        try:
            pickle.dumps(ref)
        except libray.exceptions.OufOfBandObjectRefSerializationException as e:
            print("refused", "outside" in str(e))
        print(libray.get(libray.get(libray.put([ref]))[0]))
        """
    )
    assert done.stdout.split() == ["refused", "True", "1"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups")
def test_exception_groups_keep_their_parts():
    class Errors(ExceptionGroup):  # noqa: F821
        def __new__(cls, code, parts):
            return super().__new__(cls, f"code {code}", parts)

        def __init__(self, code, parts):
            self.code = code

        def __reduce__(self):
            return (Errors, (self.code, self.exceptions))

    @libray.remote
    def fail():
        raise Errors(7, [ValueError("a"), KeyError("b")])

    with pytest.raises(ExceptionGroup) as info:  # noqa: F821
        libray.get(fail.remote())
    assert isinstance(info.value, exc.RayTaskError) and info.value.code == 7
    assert [type(e) for e in info.value.exceptions] == [ValueError, KeyError]


def test_cancel_of_a_reference_that_another_process_made():
    @libray.remote
    def sleeper():
        time.sleep(60)

    @libray.remote
    def parent():
        return [sleeper.remote()]

    for force in (False, True):
        (child,) = libray.get(parent.remote())
        with pytest.raises(exc.GetTimeoutError):
            libray.get(child, timeout=0.2)
        libray.cancel(child, force=force)
        with pytest.raises((exc.TaskCancelledError, exc.WorkerCrashedError)):
            libray.get(child, timeout=30)


def test_assigned_resources():
    @libray.remote
    def held():
        return libray.get_runtime_context().get_assigned_resources()

    assert libray.get(held.remote()) == {"CPU": 1.0}
    assert libray.get(held.options(num_cpus=0.5).remote()) == {"CPU": 0.5}
    assert libray.get(held.options(num_cpus=0).remote()) == {}
    with pytest.raises(AssertionError):
        libray.get_runtime_context().get_assigned_resources()


def test_errors_of_arguments_name_the_tasks_between():
    @libray.remote
    def first():
        raise ValueError("root")

    @libray.remote
    def second(x):
        return x

    with pytest.raises(ValueError) as info:
        libray.get(second.options(name="third").remote(second.remote(first.remote())))
    text = str(info.value)
    heads = [line.split("(pid")[0] for line in text.splitlines() if "(pid=" in line]
    assert heads == [
        "ray::third() ",
        "ray.exceptions.RayTaskError: ray::second() ",
        "ray.exceptions.RayTaskError: ray::first() ",
    ]
    assert text.count("At least one of the input arguments") == 2
    assert text.endswith("ValueError: root")


def test_what_cannot_be_pickled_is_named():
    import threading

    lock = threading.Lock()

    @libray.remote
    def use(x):
        return x

    @libray.remote
    def captures():
        return lock

    with pytest.raises(TypeError) as info:
        use.remote({"inner": lock})
    text = str(info.value)
    assert "Could not serialize the argument" in text and "use" in text and "cannot pickle" in text
    assert "inner" in text  # what in it is to blame
    with pytest.raises(TypeError) as info:
        captures.remote()
    text = str(info.value)
    assert "Could not serialize the function" in text and "captures" in text and "lock" in text


def test_recursion_on_one_cpu(run_script):
    done = run_script(
        """
        import libray
        libray.init(num_cpus=1)

        @libray.remote
        def leaf(x):
            return x

        @libray.remote
        def middle(x):
            return libray.get(leaf.remote(x))

        @libray.remote
        def top(x):
            return libray.get(middle.remote(x))

        print(sum(libray.get([top.remote(i) for i in range(1000)])))
        """,
        timeout=150,
    )
    assert done.stdout.split() == [str(sum(range(1000)))]


def test_stack_overflow_in_native_code():
    @libray.remote(max_retries=0)
    def overflow():
        import ctypes
        import sys

        # Python frames that are C frames too, until the stack is used up.
        sys.setrecursionlimit(1 << 30)
        compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

        def down(a, b):
            data = (ctypes.c_int * 2)(2, 1)
            ctypes.CDLL(None).qsort(data, 2, 4, compare(down))
            return 0

        down(None, None)

    with pytest.raises(exc.WorkerCrashedError) as info:
        libray.get(overflow.remote(), timeout=60)
    assert "overflow" in str(info.value) and "signal 11" in str(info.value)
