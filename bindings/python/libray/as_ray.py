"""Runs a program with libray in place of Ray: `python -m libray.as_ray program.py [args]`, or
`python -m libray.as_ray -m module [args]`. `python -m libray.as_ray --path` prints what to put into PYTHONPATH so that
`import ray` means libray without any other change."""

from __future__ import annotations

import os
import runpy
import sys
from typing import List

from . import _as_ray

_USAGE = "usage: python -m libray.as_ray (program.py | -m module | -c code | --path) [args...]"


def main(arguments: List[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        raise SystemExit(0 if arguments else 2)
    if arguments[0] == "--path":
        print(os.pathsep.join(p for p in (_as_ray.SHIM, _as_ray._root_if_needed()) if p))
        return
    # The interpreter put the folder of `-m`, the working directory, in front; a program has its own there.
    if arguments[0] in ("-m", "-c"):
        if len(arguments) < 2:
            print(_USAGE, file=sys.stderr)
            raise SystemExit(2)
        sys.path[0] = "" if arguments[0] == "-c" else os.getcwd()
        sys.argv[:] = [arguments[0], *arguments[2:]]
        _as_ray.install_as_ray()
        if arguments[0] == "-m":
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            import __main__

            exec(compile(arguments[1], "<string>", "exec"), __main__.__dict__)
        return
    sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
    sys.argv[:] = arguments
    _as_ray.install_as_ray()
    _run_path(arguments[0])


def _run_path(path: str) -> None:
    """Runs the program as the real `__main__`, so that what it defines can be pickled as such."""
    import __main__

    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    scope = __main__.__dict__
    for name in [n for n in scope if not n.startswith("__")]:
        del scope[name]
    scope.update(__file__=path, __spec__=None, __doc__=None, __package__=None, __cached__=None)
    exec(code, scope)


if __name__ == "__main__":
    main(sys.argv[1:])
