"""The `libray` command: the tool that comes with the package."""

from __future__ import annotations

import os
import sys


def main() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    tool = os.path.join(here, "_native", "bin", "libray")
    if not os.path.exists(tool):
        sys.exit("libray: the command line tool is not part of this installation")
    os.execv(tool, ["libray", *sys.argv[1:]])
