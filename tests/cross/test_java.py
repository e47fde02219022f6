"""A Python driver that calls Java's functions and actors by their names. Built by Maven first.

libray-test: slow
libray-test: serial
"""

import datetime
import os
import sys
from pathlib import Path

import numpy
import pytest

import libray
from libray import exceptions

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "devtool"))
import java  # noqa: E402

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cross_functions as functions  # noqa: E402

pytestmark = pytest.mark.skipif(not java.is_there(), reason=java.ABSENT)


@pytest.fixture(scope="module")
def cluster():
    for name in ("LIBRAY_CACHE", "JAVA_HOME"):
        os.environ[name] = java.environment()[name]
    java.build_native()
    yield libray.init(num_cpus=2, java_classpath=java.class_path())
    libray.shutdown()


def call(name, *args):
    return libray.get(libray.function("java", "org.libray.CrossFunctions", name).remote(*args), timeout=60)


@pytest.mark.parametrize("value", [
    None, True, 0, -1, 127, 128, -32769, 2**31, -(2**63), 2**64 - 1, 1.5, float("inf"), "", "ü😀", b"", b"\x00\xff",
    [], [1, [None, "x"]],
    {"a": 1, 2: [3.5]}, {"nested": {"deep": [True]}},
])
def test_values_come_back_as_they_went(cluster, value):
    back = call("echo", value)
    assert back == value and type(back) is type(value)


def test_kinds(cluster):
    values = [1, 300, 2**40, 1.5, "x", True]
    assert [call("kind", v).rpartition(".")[2] for v in values] == ["Long", "Long", "Long", "Double", "String", "Boolean"]
    assert call("kind", [1]) == "java.util.ArrayList" and call("kind", {}) == "java.util.LinkedHashMap"


def test_overloads_records_and_ranges(cluster):
    assert call("add", 2, 3) == 5 and isinstance(call("add", 2, 3), int)
    assert call("add", 2.0, 3.0) == 5.0 and isinstance(call("add", 2.0, 3.0), float)
    assert call("mirror", {"x": 1, "y": 2.5, "name": "p"}) == {"x": -1, "y": -2.5, "name": "p"}
    assert call("points", 2) == [{"x": 0, "y": 0.0, "name": "p0"}, {"x": 1, "y": 0.5, "name": "p1"}]
    with pytest.raises(exceptions.RayTaskError, match="out of range"):
        call("narrow", 2**40)
    with pytest.raises(exceptions.RayTaskError, match="nix"):
        call("nix")
    t = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc)
    assert call("later", t) == t + datetime.timedelta(seconds=1)


def test_arrays_are_shared(cluster):
    ref = libray.put(numpy.full(100_000, 0.25, dtype="f4"))
    address = libray.get(ref).__array_interface__["data"][0]
    assert call("sum", ref, ref) == [25_000.0, *functions.place_of(address)]
    assert functions.place_of(address)[0] != 0
    ones = call("ones", 100_000)
    assert ones.dtype == "f4" and ones.sum() == 100_000
    array = numpy.arange(24.0).reshape(2, 3, 4)
    assert (call("echo", {"a": array})["a"] == array).all()


def test_errors(cluster):
    with pytest.raises(exceptions.CrossLanguageError) as caught:
        call("fail", "why")
    error = caught.value
    assert (error.language, error.type_name) == ("java", "java.lang.IllegalStateException")
    assert "CrossFunctions.java:" in error.stack and "why" in str(error)
    assert error.__cause__.type_name == "java.lang.IllegalArgumentException"
    with pytest.raises(exceptions.RayTaskError, match="StringBuilder"):
        call("unportable")


def test_streams_references_and_actors(cluster):
    count = libray.function("java", "org.libray.CrossFunctions", "countTo").options(num_returns="streaming")
    assert [libray.get(r) for r in count.remote(4)] == [0, 1, 2, 3]
    assert call("valueOf", [libray.put(17)]) == 17
    counter = libray.actor_class("java", "org.libray.CrossFunctions$Counter").options(name="java's").remote(10)
    assert libray.get(counter.add.remote(3)) == 13
    assert call("useActor", [counter]) == 18
    assert libray.get(libray.get_actor("java's").add.remote(2)) == 20
    mine = libray.remote(functions.Counter).remote(1)
    assert call("useActor", [mine]) == 6


def test_rays_spelling(cluster):
    libray.install_as_ray()
    from ray import cross_language

    add = cross_language.java_function("org.libray.CrossFunctions", "add")
    assert libray.get(add.remote(20, 22)) == 42
