"""Builds the wheel of bindings/python, installs it alone into a new environment and runs a task there.

Run by `./dev test wheel` with the interpreter of build/venv, which has what building takes.
"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bindings" / "python"

PROGRAM = '''
import os, libray
libray.init(num_cpus=1)
@libray.remote
def twice(x):
    return 2 * x, os.getpid()
value, pid = libray.get(twice.remote(21))
assert value == 42 and pid != os.getpid(), (value, pid)
libray.shutdown()
print(libray.__file__)
'''


def run(*command, **kwargs):
    print("$", *command, flush=True)
    return subprocess.run([str(c) for c in command], check=True, **kwargs)


def main():
    house = ROOT / "build" / "wheelhouse"
    shutil.rmtree(house, ignore_errors=True)
    run(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", house,
        "-C", f"build-dir={ROOT / 'build' / 'wheel'}", PACKAGE)
    wheel, = house.glob("libray-*.whl")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
    with tempfile.TemporaryDirectory() as place:
        python = Path(place) / "venv" / "bin" / "python"
        run(sys.executable, "-m", "venv", python.parents[1])
        run(python, "-m", "pip", "install", "-q", wheel)
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LD_LIBRARY_PATH")}
        done = run(python, "-c", PROGRAM, cwd=place, env=env, stdout=subprocess.PIPE, text=True)
        where = done.stdout.strip().splitlines()[-1]
        assert where.startswith(place), f"libray was imported from {where}"
    print("1 passed, 0 failed, 0 skipped")


if __name__ == "__main__":
    main()
