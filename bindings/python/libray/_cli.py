"""The `libray` command: the tool that comes with the package."""

from __future__ import annotations

import os
import sys


def tool() -> str:
    """Path of the tool: in a wheel, else in the build folder that this package is in; "" = not there."""
    here = os.path.dirname(os.path.abspath(__file__))
    for place in (
        os.path.join(here, "_native", "bin", "libray"),
        os.path.join(os.path.dirname(os.path.dirname(here)), "bin", "libray"),
    ):
        if os.path.exists(place):
            return place
    return ""


def main() -> None:
    path = tool()
    if not path:
        sys.exit("libray: the command line tool is not part of this installation")
    os.execv(path, ["libray", *sys.argv[1:]])


if __name__ == "__main__":
    main()
