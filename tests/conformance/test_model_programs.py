"""Random programs against the model for about a minute; `./dev model` runs as many as there is time for.

libray-test: serial
libray-test: timeout 600
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTER = Path(__file__).resolve().parents[2] / "bindings" / "conformance" / "tester"


@pytest.mark.parametrize("arguments", [
    ["--seeds", "800", "--minutes", "0.3"],
    ["--seeds", "800", "--minutes", "0.3", "--seed", "40000", "--faults"],
    ["--seeds", "80", "--minutes", "0.15", "--seed", "120000", "--driver", "cpp"],
    ["--seeds", "80", "--minutes", "0.15", "--seed", "160000", "--driver", "cpp", "--faults"],
], ids=["c", "faults", "cpp", "cpp-faults"])
def test_random_programs(arguments, tmp_path):
    env = dict(os.environ, CONFORMANCE_OUT=str(tmp_path))
    done = subprocess.run([sys.executable, "-u", str(TESTER), "--stop", "3", *arguments], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-8000:]
