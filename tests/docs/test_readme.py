"""The programs in README.md do what README.md says."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIB = Path(os.environ.get("LIBRAY_BUILD", ROOT / "build" / "release")) / "lib"


def block(language):
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return found.group(1)


def run(*command, cwd):
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_first_program_in_c(tmp_path):
    (tmp_path / "first.c").write_text(block("c"))
    run("cc", "-std=c99", "-Wall", "first.c", f"-I{ROOT / 'include'}", f"-L{LIB}",
        f"-Wl,-rpath,{LIB}", "-lray", "-o", "first", cwd=tmp_path)
    assert run(tmp_path / "first", cwd=tmp_path) == "144"


def test_first_program_in_python(tmp_path):
    (tmp_path / "first.py").write_text(block("python"))
    assert run(sys.executable, "first.py", cwd=tmp_path) == "285"
