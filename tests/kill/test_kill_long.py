"""Hundreds of runs of the kill matrix over the programs of all languages.

libray-test: long
libray-test: serial
libray-test: timeout 3600
"""

import matrix


def test_hundreds_of_runs():
    arguments = matrix.parser().parse_args(["--runs", "400", "--seed", "20000"])
    lines = []
    assert matrix.Matrix(arguments, lines.append).run(), "\n".join(lines)
