"""The tester finds what is wrong in a driver: each one is told to answer wrongly in one way (CONFORMANCE_PLANT), and random
programs fail.

libray-test: slow
libray-test: serial
libray-test: timeout 900
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bindings" / "conformance" / "tester"))
sys.path.insert(0, str(ROOT / "tools" / "devtool"))

import java  # noqa: E402
import run  # noqa: E402
import rust  # noqa: E402

# A word of a value's pattern is another, a reference inside of a value is not there, values come in another order.
PLANTS = ("value", "lost", "order")
PROGRAMS = 40


def skip_what_is_not_here(driver):
    if driver == "java" and not java.is_there():
        pytest.skip(java.ABSENT)
    if driver == "rust" and not rust.is_there():
        pytest.skip(rust.ABSENT)


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("driver", ["c", "cpp", "java", "python", "rust"])
def test_a_planted_difference_is_found(driver, plant, monkeypatch):
    skip_what_is_not_here(driver)
    settings = run.Settings(0, False, driver)
    programs = [(seed, run.make(seed, settings)) for seed in range(PROGRAMS)]
    monkeypatch.setenv("CONFORMANCE_PLANT", plant)
    failure = run.run_some(programs, settings)
    assert failure is not None, f"{PROGRAMS} programs did not see it"
    assert failure.kind == "answer", f"{failure.kind}: {failure.text}"


@pytest.mark.parametrize("driver", ["c", "cpp", "java", "python", "rust"])
def test_a_planted_difference_in_the_other_language_is_found(driver):
    """In programs of two languages: it is in the bodies that the other driver's workers run, and nowhere else."""
    skip_what_is_not_here(driver)
    host = "cpp" if driver == "c" else "c"
    settings = run.Settings(0, False, f"{host},{driver}")
    programs = [(seed, run.make(seed, settings)) for seed in range(PROGRAMS)]
    settings.environment = lambda whole=settings.environment(): {**whole, "CONFORMANCE_PLANT": f"value@{driver}"}
    failure = run.run_some(programs, settings)
    assert failure is not None, f"{PROGRAMS} programs did not see it"
    assert failure.kind == "answer", f"{failure.kind}: {failure.text}"


def test_the_command_fails(tmp_path):
    tester = ROOT / "bindings" / "conformance" / "tester"
    env = dict(os.environ, CONFORMANCE_PLANT="value", CONFORMANCE_OUT=str(tmp_path))
    done = subprocess.run([sys.executable, "-u", str(tester), "--seeds", "40", "--stop", "1", "--no-shrink"], env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 1 and "answer" in done.stdout, done.stdout[-4000:]
