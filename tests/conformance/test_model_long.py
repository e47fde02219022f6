"""Random programs against the model, with faults, for a quarter of an hour: the long version of test_model_programs.

libray-test: long
libray-test: serial
libray-test: timeout 2400
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTER = Path(__file__).resolve().parents[2] / "bindings" / "conformance" / "tester"


@pytest.mark.parametrize("arguments", [
    ["--seeds", "100000", "--minutes", "10", "--seed", "100000", "--faults"],
    ["--seeds", "100000", "--minutes", "5", "--seed", "300000", "--faults", "--driver", "python"],
], ids=["c", "python"])
def test_many_random_programs(arguments, tmp_path):
    env = dict(os.environ, CONFORMANCE_OUT=str(tmp_path))
    done = subprocess.run([sys.executable, "-u", str(TESTER), "--stop", "3", *arguments], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-8000:]
