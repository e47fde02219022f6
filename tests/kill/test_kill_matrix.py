"""Some dozens of runs of the kill matrix; `./dev soak` makes as many as there is time for.

libray-test: slow
"""

import matrix


def test_some_dozens_of_runs():
    chosen = [f"--program={p}" for p in matrix.programs() if p != "java"]  # which has a file of its own
    arguments = matrix.parser().parse_args(["--runs", "50", "--seed", "1", *chosen])
    lines = []
    assert matrix.Matrix(arguments, lines.append).run(), "\n".join(lines)
