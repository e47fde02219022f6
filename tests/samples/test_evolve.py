"""The main job: samples/python/evolve.py solves its environment, draws the curve, serves the policy.

libray-test: slow
libray-test: serial
"""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "samples" / "python" / "evolve.py"


def test_solves_the_environment(tmp_path):
    curve = tmp_path / "curve.png"
    done = subprocess.run([sys.executable, str(SCRIPT), "--out", str(curve), "--requests", "500"],
                          cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert re.search(r"solved +\S+ after \d+ generations", done.stdout), done.stdout
    assert curve.read_bytes()[:4] == b"\x89PNG"
