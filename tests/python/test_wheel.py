"""The wheel: built from this tree, tagged by auditwheel, installed into a fresh environment without a compiler, runs tasks
there alone; what it holds, how large it is, what its metadata says.

libray-test: slow
libray-test: timeout 1500
"""

import base64
import csv
import hashlib
import io
import os
import re
import subprocess
import sys
import textwrap
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "devtool"))
import build  # noqa: E402

LARGEST = 8 << 20  # bytes
PROGRAM = """
    import os, sys
    import libray

    libray.init(num_cpus=1)

    @libray.remote
    def where(x):
        return x + 1, libray.__file__, sys.executable

    @libray.remote
    class Actor:
        async def add(self, x):
            return x + 1

    value, path, python = libray.get(where.remote(1))
    assert value == 2 and path.startswith(sys.prefix) and python == sys.executable, path
    assert libray.get(Actor.remote().add.remote(1)) == 2
    assert libray.get(libray.c_function("libm.so.6", "pow", "f64(f64,f64)").remote(2.0, 3.0)) == 8.0
    native = os.path.join(os.path.dirname(libray.__file__), "_native")
    assert os.path.join(native, "lib", "libray.so") in open("/proc/self/maps").read()
    daemons = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            exe = os.readlink(f"/proc/{pid}/exe")
            if libray.core.process.session_dir() in open(f"/proc/{pid}/cmdline").read():
                daemons.append(exe)
        except OSError:
            pass
    assert len(daemons) >= 2 and set(daemons) == {os.path.join(native, "bin", "rayd")}, daemons
    print("ran in", sys.prefix)
"""


def run(*command, **options):
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=1400, **options
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def sources():
    """What lies in bindings/python, but for what Python itself puts there."""
    return {p for p in (ROOT / "bindings" / "python").rglob("*") if "__pycache__" not in p.parts}


@pytest.fixture(scope="module")
def clean_env():
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LIBRAY_ADDRESS")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, wheel_build):
    """Built as `pip install ./bindings/python` does: in the folder that pyproject.toml names."""
    with wheel_build():  # one at a time
        before = sources()
        made = build.make_wheel(tmp_path_factory.mktemp("wheel"))
        assert sources() == before, "the build left something beside the sources"
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory, clean_env):
    """(python, package) of a fresh environment; neither a compiler nor CMake is on its PATH."""
    home = tmp_path_factory.mktemp("env")
    run(sys.executable, "-m", "venv", home)
    python = home / "bin" / "python"
    env = {**clean_env, "PATH": str(home / "bin"), "CC": "/nonexistent", "CXX": "/nonexistent"}
    run(python, "-m", "pip", "install", "-q", wheel, env=env)
    return python, next((home / "lib").glob("python*/site-packages/libray"))


def test_contents(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        str(p.relative_to(ROOT / "bindings" / "python"))
        for p in (ROOT / "bindings" / "python" / "libray").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert {s for s in sources if s.endswith((".py", ".pyi", "py.typed"))} <= names
    assert {n for n in names if n.startswith("libray/ray/")}, "the tree of install_as_ray"
    assert {n for n in names if n.startswith("libray/_shim/")}
    native = {n.split("libray/_native/")[1] for n in names if n.startswith("libray/_native/")}
    assert {"bin/rayd", "bin/libray", "bin/libray-worker", "bin/libray-relay", "lib/libray.so.0", "include/ray.h"} <= native
    # Each library once: a link would be one more copy, and so would one that auditwheel missed and added.
    archive = zipfile.ZipFile(wheel)
    libraries = [n for n in names if n.startswith("libray/_native/lib/")]
    assert len({archive.getinfo(n).CRC for n in libraries}) == len(libraries) >= 5, sorted(libraries)
    # Nothing else: no tests, no objects, no folder that is not the package.
    assert {n.split("/")[0] for n in names if not re.match(r"libray-[^/]*\.dist-info/", n)} == {"libray"}
    assert not [n for n in names if n.endswith((".o", ".a", ".pyc", ".cmake", ".cc"))]


def test_size(wheel):
    assert wheel.stat().st_size <= LARGEST, f"{wheel.stat().st_size} bytes"


def test_metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    (info,) = {n.split("/")[0] for n in archive.namelist() if re.match(r"libray-[^/]*\.dist-info/", n)}
    about = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
    assert about["Name"] == "libray" and re.fullmatch(r"\d+\.\d+\.\d+", about["Version"])
    assert about["Requires-Python"] == ">=3.9" and about["Summary"]
    assert [r for r in about.get_all("Requires-Dist") if "extra" not in r] == ["cloudpickle>=2.2"]
    classifiers = about.get_all("Classifier")
    assert {"Typing :: Typed", "Operating System :: POSIX :: Linux"} <= set(classifiers)
    assert "Programming Language :: Python :: 3.9" in classifiers
    # A licence is named when the project has one, and its text is inside then.
    texts = [p for p in ROOT.iterdir() if p.name.upper().startswith(("LICENSE", "LICENCE", "COPYING"))]
    claimed = about["License"] or about["License-Expression"]
    assert bool(claimed) == bool(texts)
    entry_points = archive.read(f"{info}/entry_points.txt").decode()
    assert re.search(r"^libray ?= ?libray\._cli:main$", entry_points, re.MULTILINE)
    tag = archive.read(f"{info}/WHEEL").decode()
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    (platform,) = re.findall(rf"^Tag: {python}-{python}-(.*)$", tag, re.MULTILINE)
    assert re.fullmatch(r"manylinux_2_\d+_\w+", platform) and wheel.name.endswith(f"-{platform}.whl")
    glibc = tuple(map(int, os.confstr("CS_GNU_LIBC_VERSION").split()[1].split(".")))
    assert tuple(map(int, platform.split("_")[1:3])) <= glibc  # or this machine could not install it


def test_the_record_is_right(wheel):
    """RECORD names each file but itself, with its size and its hash."""
    archive = zipfile.ZipFile(wheel)
    (record,) = [n for n in archive.namelist() if n.endswith(".dist-info/RECORD")]
    rows = {name: (digest, size) for name, digest, size in csv.reader(io.StringIO(archive.read(record).decode()))}
    assert set(rows) == {n for n in archive.namelist() if not n.endswith("/")}
    assert rows.pop(record) == ("", "")
    for name, (digest, size) in rows.items():
        content = archive.read(name)
        right = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        assert (digest, int(size)) == (f"sha256={right}", len(content)), name


def test_self_contained(installed, clean_env):
    """No path of the build tree, no library of this machine but those of C and C++."""
    _, package = installed
    binaries = [*package.glob("_native/bin/*"), *package.glob("_native/lib/*.so*"), *package.glob("*.so")]
    assert len(binaries) >= 5
    for binary in binaries:
        dynamic = run("readelf", "-d", binary)
        for path in re.findall(r"\(R(?:UN)?PATH\).*\[(.*)\]", dynamic):
            assert all(part.startswith("$ORIGIN") for part in path.split(":")), (binary, path)
        assert str(ROOT).encode() + b"/build" not in binary.read_bytes(), binary
        listed = run("ldd", binary, env=clean_env)
        assert "not found" not in listed
        if binary.parent.name == "lib" and not binary.name.startswith("libray."):
            continue  # others' libraries have no path of their own: that of the program that loads them counts
        for line in listed.splitlines():
            name = line.split()[0]
            system = re.match(r"(/lib64/ld-|linux-vdso|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+)\.so)", name)
            assert system or str(package) in line, line  # ours, not the machine's


def test_runs_alone(installed, tmp_path, clean_env):
    python, _ = installed
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    env = {**clean_env, "PATH": "/nonexistent"}
    assert "ran in" in run(python, program, cwd=tmp_path, env=env)
    tool = run(python.parent / "libray", "--version", env=env)
    assert re.match(r"libray \d+\.\d+\.\d+", tool)
    assert "session-" in run(python.parent / "libray", "sessions", env=env)


def test_stands_in_for_ray(installed, tmp_path, clean_env):
    python, package = installed
    source = "import ray, importlib.metadata as m, ray.util.queue; print(ray.__file__, m.version('ray'))"
    shown = run(python, "-m", "libray.as_ray", "-c", source, cwd=tmp_path, env=clean_env).split()
    assert shown[0].startswith(str(package)) and shown[1].count(".") == 2
    path = run(python, "-m", "libray.as_ray", "--path", cwd=tmp_path, env=clean_env).strip()
    shown = run(python, "-c", source, cwd=tmp_path, env={**clean_env, "PYTHONPATH": path})
    assert shown.startswith(str(package))
