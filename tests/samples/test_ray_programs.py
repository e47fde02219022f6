"""The programs of samples/ray run on libray and print what they must; `./dev programs --peer ray` compares with Ray."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "samples" / "ray"
PROGRAMS = sorted(p.stem for p in FOLDER.glob("*.py"))


def test_there_are_twenty():
    assert len(PROGRAMS) >= 20
    assert sorted(p.stem for p in (FOLDER / "expected").glob("*.txt")) == PROGRAMS
    listed = (FOLDER / "README.md").read_text()
    assert all(f"| `{name}` |" in listed for name in PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_prints_what_it_must(name):
    source = (FOLDER / f"{name}.py").read_text()
    assert "import ray" in source and "libray" not in source
    done = subprocess.run(
        [sys.executable, "-m", "libray.as_ray", FOLDER / f"{name}.py"],
        capture_output=True, text=True, timeout=100, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == (FOLDER / "expected" / f"{name}.txt").read_text()
