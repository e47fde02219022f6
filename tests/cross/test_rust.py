"""Python calls a Rust program's functions and actors by their names, and a Rust driver calls Python's: the example `cross`
of the crate is both."""

import datetime
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import libray
from libray import exceptions

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(ROOT / "tools" / "devtool"))
import cross_functions as functions  # noqa: E402
import rust as tool  # noqa: E402

if shutil.which("cargo") is None:
    pytest.skip(tool.ABSENT, allow_module_level=True)


@pytest.fixture(scope="module")
def program():
    subprocess.run(["cargo", "build", "-q", "--locked", "-p", "libray", "--example", "cross"], cwd=tool.WORKSPACE,
                   env=tool.environment(), check=True)
    # Its workers find the library on the loader's path, which they have from the driver.
    os.environ["LD_LIBRARY_PATH"] = tool.environment()["LD_LIBRARY_PATH"]
    return ROOT / "build" / "cargo" / "debug" / "examples" / "cross"


@pytest.fixture(scope="module")
def cluster(program):
    yield libray.init(num_cpus=2, rust_binary=str(program))
    libray.shutdown()


def call(name, *args, **options):
    return libray.get(libray.function("rust", name).options(**options).remote(*args), timeout=60)


TIME = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc)


def test_values(cluster):
    for value in (None, True, -1, 2**63, -(2**63), 0.25, "käse", [1, [2, []]], {"a": [None, {"b": "x"}]}):
        assert call("echo", value) == value
    assert call("echo", (1, ("a", 2.5))) == [1, ["a", 2.5]]
    assert call("reversed", bytes(range(256))) == bytes(reversed(range(256)))
    assert call("day_later", TIME) == TIME + datetime.timedelta(days=1)
    assert call("mirrored", {"x": 2, "y": None}, (-1, 1)) == {"x": -2, "y": None}
    assert call("both", 5, num_returns=1) == [5, "5"]
    one, two = libray.function("rust", "both").options(num_returns=2).remote(6)
    assert libray.get([one, two]) == [6, "6"]


def test_a_value_that_is_not_what_it_takes(cluster):
    with pytest.raises(exceptions.CrossLanguageError, match="argument 'b'.*f64|argument 'b'.*floating"):
        call("area", 1.0, "two")
    with pytest.raises(exceptions.CrossLanguageError, match="takes 2 arguments, 1 was given"):
        call("area", 1.0)


def test_arrays_lie_where_they_lay(cluster):
    ref = libray.put(numpy.arange(200_000, dtype="f8").reshape(2, -1))
    here = libray.get(ref)
    total, inode, offset, shape = call("sum_and_place", ref)
    assert (total, shape) == (here.sum(), [2, 100_000])
    assert (inode, offset) == functions.place_of(here.__array_interface__["data"][0]) and inode
    made = call("ones", 5000)
    assert made.sum() == 5000 and not made.flags.writeable


def test_tables(cluster):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"n": list(range(1000))})
    assert call("same_table", table).equals(table)


def test_streams(cluster):
    refs = libray.function("rust", "count").options(num_returns="streaming").remote(5)
    assert [libray.get(ref) for ref in refs] == [0, 1, 2, 3, 4]


def test_errors(cluster):
    with pytest.raises(exceptions.CrossLanguageError) as failed:
        call("breaks", "on purpose")
    error = failed.value
    assert (error.language, error.type_name, error.remote_message) == ("rust", "panic", "on purpose")
    assert "cross::breaks" in error.stack and "cross.rs:" in str(error)
    with pytest.raises(functions.OwnError, match="from Python") as failed:  # through Rust it is what it was
        call("through", "from Python")
    with pytest.raises(exceptions.RayTaskError, match="no_such_name"):
        call("no_such_name")


def test_actors(cluster):
    counter = libray.actor_class("rust", "Counter").remote(10)
    assert libray.get([counter.add.remote(1), counter.add.remote(2)]) == [11, 13]
    assert call("add_to", counter, [libray.put(7)]) == 20
    with pytest.raises(exceptions.RayTaskError, match="up_to"):
        libray.get(counter.no_such_method.remote())


def test_a_driver_in_rust(program):
    env = dict(tool.environment(), LIBRAY_PYTHON=sys.executable)
    done = subprocess.run([program, "drive", Path(__file__).parent], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "all of it\n", done.stderr
