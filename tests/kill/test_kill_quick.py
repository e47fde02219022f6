"""A handful of runs of the kill matrix, and that the matrix sees what it is there to see."""

import sys

import matrix
import pytest


def outcome(tmp_path, monkeypatch, script):
    """The matrix over one run of this script instead of a program; (whether it passed, its report)."""
    monkeypatch.setenv("LIBRAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(matrix.Run, "command", lambda _: [sys.executable, "-c", script])
    monkeypatch.setattr(matrix, "BOUND", 5)
    monkeypatch.setattr(matrix, "GRACE", 1)
    lines = []
    arguments = matrix.parser().parse_args(["--runs", "1", "--seed", "3", "--program", "python"])
    return matrix.Matrix(arguments, lines.append).run(), "\n".join(lines)


LANGUAGES = ["c", "cpp", "java", "python", "rust"]
READY = "import os, socket, subprocess, time; d = os.environ['KILL_DIR']; open(d + '/ready', 'w'); "


@pytest.mark.parametrize("script, why", [
    (READY + "raise SystemExit(1)", "ended with status 1"),
    (READY + "time.sleep(60)", "did not end within 5 s"),
    ("import time; time.sleep(60)", "not ready within 5 s"),
    (READY + "subprocess.Popen(['sleep', '60'])", "left behind"),
    (READY + "s = socket.socket(socket.AF_UNIX); s.bind(d + '/a.sock')", "files left behind"),
    (READY + "os.mkdir(d + '/spill'); open(d + '/spill/1', 'w').write('x')", "files left behind"),
])
def test_the_matrix_can_fail(tmp_path, monkeypatch, script, why):
    passed, report = outcome(tmp_path, monkeypatch, script)
    assert not passed
    assert why in report
    assert "./dev soak --runs 1 --seed 3" in report


def test_the_matrix_can_pass(tmp_path, monkeypatch):
    assert outcome(tmp_path, monkeypatch, READY)[0]


def test_a_plan_is_its_seed():
    for seed in range(50):
        assert str(matrix.Plan(seed, LANGUAGES)) == str(matrix.Plan(seed, LANGUAGES))
        assert matrix.Plan(seed, ["c"]).kills == matrix.Plan(seed, ["rust", "java"]).kills
    plans = [matrix.Plan(seed, LANGUAGES) for seed in range(1000)]
    assert {p.program for p in plans} == set(LANGUAGES)
    assert {p.faults.split("=")[0] for p in plans if "kill" in p.faults} == set(matrix.POINTS)
    assert {role for p in plans for _, role, _ in p.kills} == {"driver", "worker", "shard", "node"}


@pytest.mark.parametrize("program", ["c", "cpp", "python", "rust"])  # test_kill_java.py has the fifth
def test_a_handful_of_runs(program):
    if program not in matrix.programs():
        pytest.skip("its tools are not here")
    arguments = matrix.parser().parse_args(["--runs", "3", "--seed", "9000", "--program", program])
    lines = []
    assert matrix.Matrix(arguments, lines.append).run(), "\n".join(lines)
