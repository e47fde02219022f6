"""Some dozens of runs of the kill matrix; `./dev soak` makes as many as there is time for.

libray-test: slow
"""

import matrix


def test_some_dozens_of_runs():
    arguments = matrix.parser().parse_args(["--runs", "40", "--seed", "1"])
    lines = []
    assert matrix.Matrix(arguments, lines.append).run(), "\n".join(lines)
