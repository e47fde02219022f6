"""Random programs in two languages at once: a driver in one whose tasks and actors run in both; some of each pair.

libray-test: slow
libray-test: serial
libray-test: timeout 1800
"""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTER = ROOT / "bindings" / "conformance" / "tester"
sys.path.insert(0, str(TESTER))
sys.path.insert(0, str(ROOT / "tools" / "devtool"))

import java  # noqa: E402
import rust  # noqa: E402

LANGUAGES = ("c", "cpp", "java", "python", "rust")
PAIRS = [",".join(pair) for pair in itertools.combinations(LANGUAGES, 2)]
FIRST, COUNT = 28, 24  # in two sessions: each of both languages has the driver once


@pytest.mark.parametrize("pair", PAIRS)
def test_programs_of_two_languages(pair, tmp_path):
    if "java" in pair and not java.is_there():
        pytest.skip(java.ABSENT)
    if "rust" in pair and not rust.is_there():
        pytest.skip(rust.ABSENT)
    env = dict(os.environ, CONFORMANCE_OUT=str(tmp_path))
    done = subprocess.run([sys.executable, "-u", str(TESTER), "--driver", pair, "--seed", str(FIRST), "--seeds", str(COUNT),
                           "--stop", "3"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    assert done.returncode == 0, done.stdout[-8000:]
