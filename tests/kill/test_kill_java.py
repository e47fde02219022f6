"""A dozen runs of the kill matrix with its Java program, which Maven builds first. Not in the usual run: they take some
minutes.

libray-test: long
libray-test: serial
"""

import matrix
import pytest


@pytest.mark.skipif("java" not in matrix.programs(), reason=matrix.java.ABSENT)
def test_a_dozen_runs():
    arguments = matrix.parser().parse_args(["--runs", "12", "--seed", "7000", "--program", "java"])
    lines = []
    assert matrix.Matrix(arguments, lines.append).run(), "\n".join(lines)
