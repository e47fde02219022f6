"""`python -m libray.as_ray` differs from plain `python` in nothing but what `import ray` gives: each way to start a
program is run under both, and what the program can see of itself is compared."""

import json
import os
import subprocess
import sys

import pytest

# What a program sees of how it was started. Names of the folders in which `ray` and libray are found are left out.
LOOK = r"""
import builtins, dataclasses, json, os, sys, warnings

@dataclasses.dataclass
class Data:
    number: int = 0

def annotated(x: int, y: "str" = ""): ...

main = sys.modules["__main__"]
known = [os.path.realpath(p) for p in os.environ["LEFT_OUT"].split(os.pathsep)]
seen = {
    "argv": sys.argv,
    "orig_argv": getattr(sys, "orig_argv", None),
    "executable": sys.executable,
    "path": [p for p in sys.path if os.path.realpath(p) not in known or not p],
    "flags": str(sys.flags),
    "warnoptions": sys.warnoptions,
    "xoptions": sorted(sys._xoptions),
    "filters": len(warnings.filters),
    "names": sorted(n for n in vars(main) if n.startswith("__")),
    "file": getattr(main, "__file__", None),
    "spec": getattr(main.__spec__, "name", None),
    "package": main.__package__,
    "loader": type(main.__loader__).__name__,
    "doc": main.__doc__,
    "annotations": [str(annotated.__annotations__), str(Data.__annotations__)],
    "field": str(dataclasses.fields(Data)[0].type),
    "same": main.__dict__ is globals(),
    "libray": "libray" in sys.modules,
    "stdin": sys.stdin.isatty(),
}
print(json.dumps(seen, sort_keys=True))
"""
FAILS = LOOK + "def inner():\n    raise KeyError('gone')\ninner()\n"
EXITS = LOOK + "sys.exit(7)\n"


def left_out():
    import libray

    package = os.path.dirname(os.path.abspath(libray.__file__))
    return os.pathsep.join([os.path.join(package, "_shim"), os.path.dirname(package)])


def both(tmp_path, flags, program, source=None, **env):
    """What plain Python and the launcher do with one command line: (status, output, errors) each."""
    results = []
    for launcher in ([], ["-m", "libray.as_ray"]):
        done = subprocess.run(
            [sys.executable, *flags, *launcher, *program],
            input=source, capture_output=True, text=True, timeout=60, cwd=tmp_path,
            env={**os.environ, "LEFT_OUT": left_out(), "PYTHONDONTWRITEBYTECODE": "1", **env},
        )  # fmt: skip
        results.append((done.returncode, done.stdout, done.stderr))
    return results


@pytest.fixture
def programs(tmp_path):
    folder = tmp_path / "folder"
    package = tmp_path / "package"
    for path in (folder, package):
        path.mkdir()
    (tmp_path / "program.py").write_text(LOOK)
    (tmp_path / "fails.py").write_text(FAILS)
    (tmp_path / "exits.py").write_text(EXITS)
    (folder / "__main__.py").write_text('"""A folder."""\n' + LOOK)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(LOOK)
    (package / "module.py").write_text(LOOK)
    return tmp_path


@pytest.mark.parametrize(
    "flags, program",
    [
        ([], ["program.py", "a", "-b", "--", "-m"]),
        ([], ["./folder/../program.py"]),
        ([], ["folder", "x"]),
        ([], ["-m", "package", "x"]),
        ([], ["-m", "package.module", "-c"]),
        ([], ["-c", LOOK, "-x", "y"]),
        (["-O", "-X", "dev", "-W", "error::UserWarning"], ["program.py"]),
        (["-OO", "-s", "-B"], ["-m", "package"]),
        (["-u", "-X", "utf8"], ["-c", LOOK]),
        ([], ["fails.py"]),
        ([], ["exits.py"]),
        ([], ["-m", "no_such_module"]),
        ([], ["no_such_file.py"]),
        (["-E"], ["program.py"]),
    ],
    ids=lambda value: " ".join(v if len(v) < 40 else "CODE" for v in value) or "none",
)
def test_same_as_plain_python(programs, flags, program):
    plain, ours = both(programs, flags, program)
    if "-E" in flags:  # no PYTHONPATH is read: the program runs in the launcher's process
        a, b = json.loads(plain[1]), json.loads(ours[1])
        for name in ("argv", "flags", "names", "file", "spec", "package", "annotations", "field", "same"):
            assert a[name] == b[name], name
        return
    assert ours == plain


def test_same_from_standard_input(programs):
    plain, ours = both(programs, [], ["-", "a"], LOOK)
    assert ours == plain


def test_flags_joined_with_the_module(programs):
    plain, _ = both(programs, ["-O"], ["program.py"])
    for joined in (["-Om", "libray.as_ray"], ["-O", "-mlibray.as_ray"], ["-Omlibray.as_ray"]):
        done = subprocess.run(
            [sys.executable, *joined, "program.py"], capture_output=True, text=True, timeout=60, cwd=programs,
            env={**os.environ, "LEFT_OUT": left_out(), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == plain, joined


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_children_of_multiprocessing(tmp_path, method):
    (tmp_path / "pool.py").write_text(
        "import multiprocessing, os, ray\n"
        "started = os.environ.setdefault('STARTED', str(os.getpid()))\n"
        "def work(x):\n    return x * x, ray.__name__, 'libray' in ray.__file__\n"
        "if __name__ == '__main__':\n"
        f"    with multiprocessing.get_context({method!r}).Pool(2) as pool:\n"
        "        print(pool.map(work, range(3)))\n"
        "    ray.init(num_cpus=1)\n"
        "    print(ray.get(ray.remote(work).remote(5)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "libray.as_ray", "pool.py"],
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout == f"{[(i * i, 'ray', True) for i in range(3)]}\n(25, 'ray', True)\n", done.stderr


def test_usage():
    for arguments, code in (([], 2), (["--help"], 0), (["-m"], 2), (["-c"], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "libray.as_ray", *arguments], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code and "usage: " in done.stdout + done.stderr
