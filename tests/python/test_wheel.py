"""The wheel: built from this tree, installed into a fresh environment, runs tasks there alone.

libray-test: slow
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
    import os, sys
    import libray

    libray.init(num_cpus=1)

    @libray.remote
    def where(x):
        return x + 1, libray.__file__

    value, path = libray.get(where.remote(1))
    assert value == 2 and path.startswith(sys.prefix), path
    assert libray.get(libray.c_function("libm.so.6", "pow", "f64(f64,f64)").remote(2.0, 3.0)) == 8.0
    session = libray._core._context["session_dir"]
    maps = open("/proc/self/maps").read()
    assert os.path.join(os.path.dirname(libray.__file__), "_native", "lib", "libray.so") in maps
    print("ran in", sys.prefix)
"""


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_wheel_in_a_fresh_environment(tmp_path):
    for needed in ("scikit_build_core", "pybind11", "pip"):
        pytest.importorskip(needed)
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LIBRAY_ADDRESS")}
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-build-isolation",
        "--no-deps",
        "-C",
        f"build-dir={ROOT / 'build' / 'wheel'}",
        "-w",
        str(tmp_path),
        str(ROOT / "bindings" / "python"),
        env=env,
    )
    (wheel,) = tmp_path.glob("libray-*.whl")
    run(sys.executable, "-m", "venv", str(tmp_path / "env"))
    python = str(tmp_path / "env" / "bin" / "python")
    run(python, "-m", "pip", "install", "-q", str(wheel), env=env)
    as_ray = "import ray, importlib.metadata as m, ray.util.queue; print(ray.__file__, m.version('ray'))"
    shown = run(python, "-m", "libray.as_ray", "-c", as_ray, cwd=tmp_path, env=env)
    assert str(tmp_path) in shown and shown.split()[1].count(".") == 2
    path = run(python, "-m", "libray.as_ray", "--path", cwd=tmp_path, env=env).strip()
    shown = run(python, "-c", as_ray, cwd=tmp_path, env={**env, "PYTHONPATH": path})
    assert str(tmp_path) in shown
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    assert "ran in" in run(python, str(program), cwd=tmp_path, env=env)
    package = next((tmp_path / "env" / "lib").glob("python*/site-packages/libray"))
    for binary in [
        *package.glob("_native/bin/*"),
        *package.glob("_native/lib/*.so*"),
        *package.glob("*.so"),
    ]:
        listed = run("ldd", str(binary), env=env)
        assert "not found" not in listed
        for line in listed.splitlines():
            if "libnng" in line or "libsqlite3" in line or "libffi" in line:
                assert str(package) in line, line  # ours, not the machine's
