"""A Python driver that calls a C program's functions and actors by their names, and has it call Python back."""

import datetime
import functools
import os
import sys
import time

import numpy
import pytest

import libray
from libray import _libray, exceptions

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cross_functions as functions  # noqa: E402

PROGRAM = os.path.join(os.environ.get("LIBRAY_BUILD", "build/release"), "tests", "cross_program")


@pytest.fixture(scope="module")
def cluster():
    yield libray.init(num_cpus=4, native_binary=PROGRAM)
    libray.shutdown()


def cpp(*names, **options):
    return libray.function("cpp", *names, **options)


def call(name, *args):
    return libray.get(cpp(name).remote(*args), timeout=60)


# ---- functions


def test_functions_by_name(cluster):
    assert call("area", 2, 3.5) == 7.0
    assert libray.get(cpp("geometry", "area").remote(2, 2)) == 4.0
    assert libray.get(cpp("area").options(name="mine").remote(1, 1)) == 1.0
    assert libray.get(libray.native_function("area").remote(1, 2)) == 2.0
    assert call("who") == 1  # RAY_LANG_PYTHON


def test_names_are_checked():
    for names in ((), ("",), (1,), ("a", "b", "c")):
        with pytest.raises(ValueError, match="one or two non-empty strings"):
            libray.function("java", *names)
    with pytest.raises(ValueError, match="the language must be one of"):
        libray.function("cobol", "f")
    with pytest.raises(ValueError, match="two names"):
        libray.function("java", "pkg.Class")
    with pytest.raises(ValueError, match="'module:function'"):
        libray.function("python", "f")
    with pytest.raises(ValueError, match="Invalid option keyword speed"):
        libray.function("rust", "f", speed=3)


def test_names_that_nobody_registered(cluster):
    with pytest.raises(exceptions.RayTaskError, match="nobody_registered_this"):
        call("nobody_registered_this")


def test_a_language_without_workers(cluster):
    with pytest.raises(NotImplementedError, match="LIBRAY_RUST_CODE"):
        libray.function("rust", "f").remote()


def test_functions_travel(cluster):
    @libray.remote
    def area_there(function):
        return libray.get(function.remote(3, 3))

    assert libray.get(area_there.remote(cpp("area"))) == 9.0


def test_python_by_name(cluster):
    add = libray.function("python", "cross_functions", "add")
    assert libray.get(add.remote(1, b=2)) == 3
    greet = libray.function("python", "cross_functions:greet")
    assert libray.get(greet.remote("you", greeting="Hi")) == "Hi, you!"
    counter = libray.actor_class("python", "cross_functions", "Counter").remote(start=5)
    assert libray.get(counter.add.remote(n=2)) == 7
    meeting = libray.actor_class("python", "cross_functions:Meeting", max_concurrency=2).remote(2)
    assert libray.get([meeting.arrive.remote(), meeting.arrive.remote()]) == [2, 2]


def test_a_tensor_without_its_bytes(cluster):
    with pytest.raises(exceptions.RayError, match="too small"):
        call("hollow")
    assert call("echo", numpy.empty((3, 0))).shape == (3, 0)


@pytest.mark.parametrize("how", [lambda ref: libray.get(ref), lambda ref: libray.get([libray.put(1), ref])])
def test_an_error_that_says_timed_out_is_no_reason_to_wait(cluster, how):
    with pytest.raises(exceptions.GetTimeoutError, match="the sensor did not answer"):
        how(cpp("own_timeout").remote())


def test_what_only_python_reads_of_a_call(cluster, tmp_path):
    python = functools.partial(libray.function, "python", "cross_functions")
    made = libray.get(python("count_to").options(num_returns="dynamic").remote(3))
    assert libray.get(list(made)) == [0, 1, 2]
    counter = libray.actor_class("python", "cross_functions", "Counter").remote()
    assert libray.get(list(libray.get(counter.count_to.options(num_returns="dynamic").remote(2)))) == [0, 1]
    pairs = python("pairs", num_returns="streaming", _num_objects_per_yield=2).remote(2)
    assert [libray.get(ref) for ref in pairs] == [0, "0", 1, "1"]
    assert python("add", num_returns=0).remote(1, 2) is None
    path = tmp_path / "attempts"
    with pytest.raises(ValueError):
        libray.get(python("fail_and_count", retry_exceptions=[KeyError], max_retries=2).remote(str(path)))
    assert path.read_text() == "x"
    with pytest.raises(ValueError):
        libray.get(python("fail_and_count", retry_exceptions=[ValueError], max_retries=2).remote(str(path)))
    assert path.read_text() == "x" * 4
    with pytest.raises(libray.exceptions.RayTaskError, match="portable"):
        libray.get(python("unportable", portable=True).remote())
    assert libray.get(python("unportable").remote()) == {"numbers": {1, 2}}


@pytest.mark.parametrize(
    "option, remedy",
    [
        ({"num_returns": "dynamic"}, "num_returns='dynamic' .*streaming"),
        ({"retry_exceptions": [KeyError]}, "retry_exceptions .*retry_exceptions=True"),
        ({"num_returns": "streaming", "_num_objects_per_yield": 2}, "_num_objects_per_yield .*leave it out"),
    ],
)
def test_options_that_only_python_knows_are_refused(option, remedy):
    with pytest.raises(ValueError, match=remedy):
        cpp("area").options(**option)
    with pytest.raises(ValueError, match=remedy):
        libray.c_function("", "abs", "i32(i32)", **option)
    info = libray.api.foreign.ForeignInfo(libray.api.foreign.RUST, "Counter")
    with pytest.raises(ValueError, match=remedy):
        info.spec("add", option)


# ---- values


class Number(int):
    pass


TIME = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc)
SAME = [
    None, True, False, 0, -1, 2**63, 2**64 - 1, -(2**63), 0.1, float("inf"), "", "käse", b"", b"\x00" * 300, [], {},
    [1, [2, [3]]], {"a": {1: b"x"}}, TIME, TIME.replace(year=1), TIME.replace(year=9999), TIME.replace(microsecond=0),
]  # fmt: skip


@pytest.mark.parametrize("value", SAME, ids=repr)
def test_values_come_back_as_they_went(cluster, value):
    back = call("echo", value)
    assert back == value and type(back) is type(value)


def test_kinds_of_plain_values_cross_as_those(cluster):
    for value, expected in (
        ((1, (2,)), [1, [2]]), (Number(7), 7), (numpy.float32(0.5), 0.5), (numpy.int8(-3), -3),
        (numpy.bool_(True), True), (numpy.float64(2.5), 2.5), (bytearray(b"ab"), b"ab"), (memoryview(b"ab"), b"ab"),
    ):  # fmt: skip
        back = call("echo", value)
        assert back == expected and type(back) is type(expected), value


def test_a_time_with_nanoseconds(cluster):
    time = libray.Timestamp.of(TIME, 123)
    back = call("echo", [time])[0]
    assert back == time and back.nanosecond == 123 and back > TIME and TIME < back and back != TIME
    import pickle

    assert pickle.loads(pickle.dumps(back)) == back
    assert len({back, time}) == 1


def test_nesting(cluster):
    deep = []
    for _ in range(90):
        deep = [deep]
    assert call("echo", deep) == deep
    for _ in range(10):
        deep = [deep]
    with pytest.raises(TypeError, match="deeper than 96"):
        call("echo", deep)
    cycle = []
    cycle.append(cycle)
    with pytest.raises(TypeError, match="refers to itself"):
        call("echo", cycle)


class Own:
    pass


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({1}, r"^argument 1 cannot cross between languages: set .*pass a list"),
        ([0, {"a": {1}}], r"^argument 1, at \[1\]\['a'\], cannot cross .*pass a list"),
        (2**64, r"-2\*\*63 to 2\*\*64 - 1"),
        ({(1, 2): 3}, r"keys of maps are str, int or bytes, and \(1, 2\) is a tuple"),
        (1j, r"x\.real"),
        (TIME.replace(tzinfo=None), r"no time zone"),
        (TIME.date(), r"isoformat"),
        (Own(), r"Own is a class of Python's"),
        (len, r"class of Python's"),
        (functions.add, r"libray\.function"),
        ("\udc80", r"surrogates"),
        (numpy.array(["a"]), r"dtype <U1"),
        (numpy.array([object()]), r"dtype object"),
        (numpy.array(["2026"], "datetime64[s]"), r"dtype datetime64"),
        (numpy.datetime64("2026"), r"dtype datetime64"),
        (numpy.ma.array([1], mask=[True]), r"numpy"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_what_cannot_cross_says_what_would(cluster, value, says):
    with pytest.raises(TypeError, match=says):
        cpp("echo").remote(value)
    with pytest.raises(TypeError, match=says.replace("argument 1", "the value")):
        libray.put(value, portable=True)


def test_keyword_arguments_are_pythons(cluster):
    with pytest.raises(TypeError, match="no keyword arguments"):
        cpp("echo").remote(value=1)
    with pytest.raises(TypeError, match=r"argument 'b'.* cannot cross"):
        libray.function("python", "cross_functions", "add").remote(1, b={2})


def test_references_to_what_cannot_cross(cluster):
    pickled = libray.put({1, 2})
    with pytest.raises(ValueError, match="argument 0 .* is a pickle of Python's"):
        cpp("echo").remote(pickled)
    assert call("echo", libray.put([1, "a"])) == [1, "a"]


def test_portable_results(cluster):
    @libray.remote(portable=True)
    def made(value):
        return value

    assert call("echo", made.remote((1, 2))) == [1, 2]
    with pytest.raises(TypeError, match="the result cannot cross"):
        libray.get(made.remote({1}))


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16", ">i4"]
)
def test_arrays(cluster, dtype):
    array = numpy.arange(24).reshape(2, 3, 4).astype(dtype)
    back = call("echo", {"a": array})["a"]
    assert back.shape == array.shape and (back == array).all()
    assert back.dtype == array.dtype.newbyteorder("=")


def test_arrays_of_odd_shapes(cluster):
    for array in (
        numpy.array(2.5), numpy.zeros(0), numpy.zeros((3, 0)), numpy.arange(12).reshape(3, 4).T, numpy.arange(10)[::2],
    ):  # fmt: skip
        back = call("echo", array)
        assert back.shape == array.shape and back.dtype == array.dtype and (back == array).all()


def place(array):
    return list(functions.place_of(array.__array_interface__["data"][0]))


def test_arrays_are_shared(cluster):
    ref = libray.put(numpy.full(100_000, 0.25))
    here = libray.get(ref)
    assert place(here)[0] != 0
    assert call("sum", ref) == [25_000.0, *place(here)]


def test_tables(cluster):
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"n": list(range(50_000)), "s": ["a", "b"] * 25_000})
    back = call("echo", table)
    assert back.equals(table)
    assert call("echo", {"t": table, "n": 1})["t"].equals(table)
    assert call("echo", table.to_batches()[0]).equals(table)
    assert call("echo", table.schema.empty_table()).equals(table.schema.empty_table())
    ref = libray.put(table, portable=True)
    one, two = libray.get(ref), libray.get(ref)
    address = [t.column("n").chunk(0).buffers()[1].address for t in (one, two)]
    assert functions.place_of(address[0]) == functions.place_of(address[1])
    assert functions.place_of(address[0])[0] != 0  # in the store, not in this process
    assert address[0] % 64 == 0


# ---- errors


def test_an_error_of_c(cluster):
    with pytest.raises(exceptions.CrossLanguageError) as caught:
        call("fail")
    error = caught.value
    assert isinstance(error, exceptions.RayTaskError)
    assert (error.language, error.type_name, error.remote_message) == ("native", "DomainError", "no root of -1")
    assert "at root() in functions.c" in error.stack and "at root() in functions.c" in str(error)
    assert error.__cause__.type_name == "SignError"
    import pickle

    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.__cause__.type_name) == (str(error), "SignError")


def test_an_error_of_c_goes_through_python(cluster):
    @libray.remote
    def through():
        return libray.get(cpp("fail").remote())

    with pytest.raises(exceptions.RayTaskError) as caught:
        libray.get(through.remote())
    assert isinstance(caught.value.cause, exceptions.CrossLanguageError)
    assert caught.value.cause.type_name == "DomainError"


def test_an_error_of_python_goes_through_c(cluster):
    with pytest.raises(functions.OwnError) as caught:
        call("call_python", "cross_functions", "fail", "lost")
    assert isinstance(caught.value, exceptions.RayTaskError)
    assert "raise OwnError(text)" in str(caught.value)


def test_a_function_of_c_calls_python(cluster):
    assert call("call_python", "cross_functions", "echo", {"a": [1, None]}) == {"a": [1, None]}
    assert call("call_python", "cross_functions", "kind", TIME) == "datetime.datetime"


# ---- references, actors, streams, cancellation


def test_references_and_handles(cluster):
    assert call("use_reference", [libray.put(17)]) == 17
    assert call("echo", libray.put(3)) == 3
    back = call("echo", [libray.put("inside")])
    assert libray.get(back[0]) == "inside"
    counter = libray.remote(functions.Counter).remote(1)
    assert call("use_reference", [counter]) == 2
    handle = call("echo", [counter])[0]
    assert libray.get(handle.add.remote(3)) == 5


def test_actors_of_c(cluster):
    Counter = libray.actor_class("cpp", "Counter")
    counter = Counter.options(name="the counter").remote(10)
    assert libray.get(counter.add.remote(5)) == 15
    with pytest.raises(exceptions.CrossLanguageError, match="no root of -1"):
        libray.get(counter.fail.remote())
    with pytest.raises(exceptions.RayTaskError, match="has no method 'nothing'"):
        libray.get(counter.nothing.remote())
    assert list(map(libray.get, counter.count_to.options(num_returns="streaming").remote(3))) == [0, 1, 2]
    with pytest.raises(TypeError, match="argument 1 cannot cross"):
        counter.add.remote({1})
    found = libray.get_actor("the counter")
    assert libray.get(found.add.remote(1)) == 16
    assert "native: Counter" in repr(found)

    @libray.remote
    def add_there(handle):
        return libray.get(handle.add.remote(100))

    assert libray.get(add_there.remote(counter)) == 116
    assert call("use_reference", [counter]) == 117
    assert functions.add_to  # the same in a Python function that is called by name
    by_name = libray.function("python", "cross_functions", "add_to")
    assert libray.get(by_name.remote([counter])) == 122
    libray.kill(counter)
    with pytest.raises(exceptions.ActorDiedError):
        libray.get(counter.add.remote(1))


def test_a_constructor_of_c_that_fails(cluster):
    counter = libray.actor_class("cpp", "Counter").remote(-1)
    with pytest.raises(exceptions.ActorDiedError, match="a counter starts at 0 or above"):
        libray.get(counter.add.remote(1))


def test_a_class_that_nobody_registered(cluster):
    actor = libray.actor_class("cpp", "Nothing").remote()
    with pytest.raises(exceptions.ActorDiedError, match="Nothing"):
        libray.get(actor.add.remote(1))


def test_streams(cluster):
    refs = cpp("count_to").options(num_returns="streaming").remote(5)
    assert [libray.get(r) for r in refs] == [0, 1, 2, 3, 4]


def test_cancel(cluster, tmp_path):
    path = str(tmp_path / "runs")
    ref = cpp("until_cancelled").remote(path)
    while not os.path.exists(path):
        time.sleep(0.005)
    libray.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        libray.get(ref, timeout=60)


# ---- the spelling of Ray, and where code lies


def test_rays_spelling(cluster):
    libray.install_as_ray()
    from ray import cross_language

    assert libray.get(cross_language.cpp_function("area").remote(2, 2)) == 4.0
    counter = cross_language.cpp_actor_class("RAY_FUNC(Counter::Create)", "Counter").remote(1)
    assert libray.get(counter.add.remote(1)) == 2
    assert "java: pkg.Class.method" in repr(cross_language.java_function("pkg.Class", "method"))
    assert "java: pkg.Class" in repr(cross_language.java_actor_class("pkg.Class"))


def test_code_is_given_before_its_workers_start(cluster):
    call("area", 1, 1)
    with pytest.raises(exceptions.RaySystemError, match="run already"):
        _libray.worker_code(0, "/bin/true")
    _libray.worker_code(0, PROGRAM)  # the same again


def test_code_search_path(tmp_path):
    from libray.api import foreign

    (tmp_path / "a.jar").touch()
    program = tmp_path / "program"
    program.touch(mode=0o755)
    (tmp_path / "text").touch(mode=0o644)
    folder = str(tmp_path)
    paths = [folder, f"{folder}/a.jar", str(program), f"{folder}/lib.so"]
    assert foreign.code_of_paths(paths) == {
        "java": f"{folder}:{folder}/*:{folder}/a.jar",
        "native": str(program),
    }
    with pytest.raises(ValueError, match="no folder, no jar and no program"):
        foreign.code_of_paths([f"{folder}/text"])
