"""Every CPython from 3.9 on that this machine offers: the package is built and installed from this tree
with pip into an environment of its own, and a program that uses all of it runs there, in the driver and
in the workers. LIBRAY_TEST_PYTHONS (paths, separated by colons) names other interpreters.

The core is compiled once, in the build folder of the wheel's test; only the extension differs. The
environments stay in build/interpreters, so that a second run only repeats what changed.

libray-test: slow
libray-test: timeout 1800
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "build" / "interpreters"
SETUP = ("scikit-build-core>=0.10", "pybind11>=2.13", "cloudpickle>=2.2", "numpy", "pytest")
# Besides the program: what depends most on the C API of an interpreter.
TESTS = ("test_values.py", "test_async.py")

PROGRAM = '''
import asyncio, gc, os, signal, sys, threading, time
import libray

libray.install_as_ray()
import ray
from ray.util import ActorPool

assert ray.init is libray.init or ray.init
ray.init(num_cpus=2)

@ray.remote
def where(*args, **kwargs):
    return sys.version_info[:3], sys.prefix, args, kwargs

version, prefix, args, kwargs = ray.get(where.remote(1, "two", b"3", x=None, y=[{"a": (1.5, True)}]))
assert version == sys.version_info[:3] and prefix == sys.prefix, (version, prefix)
assert args == (1, "two", b"3") and kwargs == {"x": None, "y": [{"a": (1.5, True)}]}

# Values of every kind, there and back.
class Point:
    __slots__ = ("x",)
    def __init__(self, x): self.x = x
    def __eq__(self, o): return type(o) is Point and o.x == self.x
    def __reduce__(self): return Point, (self.x,)

cycle = []
cycle.append(cycle)
for value in (0, -1, 2**63, -2**70, 1e300, float("inf"), "\\U0001f600\\x00", "", b"", bytes(100_000), bytearray(b"x"),
              (), [], {}, {1: 2}, {"k": (1, [2, {3}])}, frozenset({1}), range(5), complex(1, 2), Point(3), int, len,
              ValueError("v"), Ellipsis, NotImplemented, slice(1, 2)):
    got = ray.get(where.remote(value))[2][0]
    assert type(got) is type(value) and (got == value or isinstance(value, Exception) and got.args == value.args), value
got = ray.get(ray.put(cycle))
assert got[0] is got

# Closures, lambdas, redefinition, recursion, references as arguments, many returns.
base = 10
add = ray.remote(lambda a, b=1: a + b + base)
assert ray.get(add.remote(ray.put(1), b=add.remote(1))) == 1 + 12 + 10
@ray.remote
def fibonacci(n):
    return n if n < 2 else sum(ray.get([fibonacci.remote(n - 1), fibonacci.remote(n - 2)]))
assert ray.get(fibonacci.remote(7)) == 13
@ray.remote(num_returns=3)
def three():
    return 1, 2, 3
assert ray.get(list(three.remote())) == [1, 2, 3]
assert sum(ray.get([add.remote(i) for i in range(2000)])) == sum(range(2000)) + 2000 * 11

# Generators, also asynchronous ones.
@ray.remote(num_returns="streaming")
def count(n):
    for i in range(n):
        yield i
assert [ray.get(r) for r in count.remote(50)] == list(range(50))

# Errors: both classes, notes of 3.11, groups, chains, signatures.
@ray.remote(max_retries=0)
def fail(kind):
    if kind == "group":
        raise ExceptionGroup("several", [KeyError("a"), IndexError("b")])
    if kind == "chain":
        try:
            {}["missing"]
        except KeyError as e:
            raise ValueError("outer") from e
    os._exit(3)
try:
    ray.get(fail.remote("chain"))
except ValueError as e:
    assert isinstance(e, ray.exceptions.RayTaskError) and "missing" in str(e), str(e)
else:
    raise AssertionError
if sys.version_info >= (3, 11):
    try:
        ray.get(fail.remote("group"))
    except ExceptionGroup as e:
        assert [type(x) for x in e.exceptions] == [KeyError, IndexError]
    else:
        raise AssertionError
try:
    ray.get(fail.remote("exit"))
except ray.exceptions.WorkerCrashedError:
    pass
else:
    raise AssertionError
try:
    fail.remote(1, 2, 3)
except TypeError:
    pass
else:
    raise AssertionError

# Actors: with state, with threads, with an event loop, with groups.
@ray.remote
class Counter:
    def __init__(self, start=0):
        self.n = start
    def add(self, k=1, *more, **named):
        self.n += k + len(more) + len(named)
        return self.n
counter = Counter.remote(start=5)
assert ray.get([counter.add.remote(), counter.add.remote(2, 3, x=4)]) == [6, 10]
threaded = Counter.options(max_concurrency=4).remote()
ray.get([threaded.add.remote() for _ in range(20)])
@ray.remote
class Loop:
    async def double(self, x):
        await asyncio.sleep(0.01)
        return 2 * (await x[0] if isinstance(x, list) else x)
    async def items(self, n):
        for i in range(n):
            await asyncio.sleep(0)
            yield i
    async def fails(self):
        raise KeyError("async")
    async def sleeps(self):
        await asyncio.sleep(100)
loop = Loop.remote()
assert ray.get([loop.double.remote(i) for i in range(200)]) == [2 * i for i in range(200)]
assert ray.get(loop.double.remote([ray.put(4)])) == 8
assert [ray.get(r) for r in loop.items.options(num_returns="streaming").remote(5)] == list(range(5))
try:
    ray.get(loop.fails.remote())
except KeyError:
    pass
else:
    raise AssertionError
sleeping = loop.sleeps.remote()
time.sleep(0.2)
ray.cancel(sleeping)
try:
    ray.get(sleeping, timeout=20)
except (ray.exceptions.TaskCancelledError, ray.exceptions.RayTaskError):
    pass
else:
    raise AssertionError
assert list(ActorPool([counter]).map(lambda a, v: a.add.remote(v), [1, 2])) == [11, 13]

# A task that hangs in Python code is interrupted.
@ray.remote
def spin():
    while True:
        pass
spinning = spin.remote()
time.sleep(0.5)
ray.cancel(spinning)
try:
    ray.get(spinning, timeout=20)
except ray.exceptions.TaskCancelledError:
    pass
else:
    raise AssertionError

# asyncio in the driver.
async def main():
    assert await add.remote(1) == 12
    assert await asyncio.gather(*[loop.double.remote(i) for i in range(20)]) == [2 * i for i in range(20)]
    assert [await r async for r in count.remote(5)] == list(range(5))
    done, _ = await asyncio.wait([asyncio.ensure_future(r.future() and asyncio.wrap_future(r.future())) for r in [add.remote(2)]])
    assert [d.result() for d in done] == [13]
asyncio.run(main())

# Threads, counts of references, large values.
results = []
def in_thread():
    results.extend(ray.get([add.remote(i) for i in range(50)]))
threads = [threading.Thread(target=in_thread) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
assert sorted(results) == sorted(4 * [i + 11 for i in range(50)])
none = sys.getrefcount(None)
for _ in range(200):
    ray.get(where.remote(None, x=None))
if sys.version_info < (3, 12):  # None is immortal from then on
    assert abs(sys.getrefcount(None) - none) < 100, "a reference is lost per call"
try:
    import numpy
except ImportError:
    print("no numpy")
else:
    array = numpy.arange(1_000_000, dtype=numpy.float32).reshape(1000, 1000)
    got = ray.get(ray.put(array))
    assert got.dtype == array.dtype and (got == array).all() and not got.flags.writeable
    @ray.remote
    def total(a):
        return a.sum(dtype=float)
    assert ray.get(total.remote(array)) == array.sum(dtype=float)
    del got
assert libray.get(libray.c_function("libm.so.6", "pow", "f64(f64,f64)").remote(2.0, 3.0)) == 8.0
assert ray.util.queue.Queue if hasattr(ray.util, "queue") else True
del cycle, value
gc.collect()
ray.shutdown()
print("all of it ran in", sys.version.split()[0], os.path.dirname(libray.__file__))
'''


def version_of(python):
    code = (
        "import sys, sysconfig, os\n"
        "print(sys.implementation.name, '%d.%d' % sys.version_info[:2],"
        " os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')),"
        " os.path.realpath(sys.executable))"
    )
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True)
    words = done.stdout.split()
    if done.returncode != 0 or words[0] != "cpython" or words[2] != "True":
        return None, None
    number = tuple(int(part) for part in words[1].split("."))
    return (number if number >= (3, 9) else None), words[3]


def candidates():
    if os.environ.get("LIBRAY_TEST_PYTHONS"):
        return [Path(p) for p in os.environ["LIBRAY_TEST_PYTHONS"].split(":")]
    roots = [Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"]
    roots.append(Path.home() / ".local" / "share" / "uv" / "python")
    found = [p for r in roots for p in sorted(r.glob("*/bin/python3"))]
    for folder in ["/usr/bin", "/usr/local/bin", *os.environ.get("PATH", "").split(":")]:
        found += sorted(p for p in Path(folder).glob("python3*") if p.name[6:].replace(".", "").isdigit())
    return found


def interpreters():
    """One of each version and origin: pyenv's and Debian's may differ in how they were built."""
    found, seen = {}, set()
    for python in candidates():
        number, real = version_of(python) if python.exists() else (None, None)
        if number is None or real in seen or ".pyenv/shims" in str(python):
            continue
        seen.add(real)
        found.setdefault((number, real.startswith("/usr/")), python)
    return [
        pytest.param(python, id=f"{number[0]}.{number[1]}{'-system' if system else ''}")
        for (number, system), python in sorted(found.items())
    ]


def run(*command, **options):
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, timeout=900, **options
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


def environment_of(python, name, env):
    """Its own environment with what building and testing take, made once. Skips when it cannot be had."""
    home = HOME / name
    mark = home / ("ready-" + hashlib.sha256(repr((str(python), "pip", SETUP)).encode()).hexdigest()[:16])
    inner = home / "bin" / "python"
    if mark.exists():
        return inner
    for command in (
        (python, "-m", "venv", "--clear", home),
        (inner, "-m", "pip", "install", "-q", "--upgrade", "pip"),  # some bring one older than --config-settings
        (inner, "-m", "pip", "install", "-q", *SETUP),
    ):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env)
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            pytest.skip(f"no environment for {python}: {last}")
    mark.write_text("")
    return inner


def install(inner, build, env):
    run(
        inner, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "--no-index",
        "--force-reinstall", "--config-settings", f"build-dir={build}", ROOT / "bindings" / "python",
        env=env,
    )  # fmt: skip


@pytest.mark.parametrize("python", interpreters())
def test_install_and_run(python, tmp_path, request, wheel_build):
    name = request.node.callspec.id
    env = {
        k: v
        for k, v in os.environ.items()
        if k not in ("PYTHONPATH", "LIBRAY_ADDRESS", "VIRTUAL_ENV") and not k.startswith("PYENV")
    }
    env.update(CCACHE_BASEDIR=str(ROOT), CCACHE_NOHASHDIR="true", PIP_DISABLE_PIP_VERSION_CHECK="1")
    if shutil.which("ccache"):
        for language in ("C", "CXX"):
            env[f"CMAKE_{language}_COMPILER_LAUNCHER"] = "ccache"
    inner = environment_of(python, name, env)
    with wheel_build() as build:
        install(inner, build, env)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    shown = run(inner, "-X", "dev", program, cwd=tmp_path, env=env)
    assert f"all of it ran in {name.split('-')[0]}." in shown and str(HOME / name) in shown
    tests = [ROOT / "tests" / "python" / test for test in TESTS]
    run(inner, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests, env=env, cwd=tmp_path)


def test_there_is_one():
    assert interpreters(), f"no CPython with headers besides {sys.executable}"
