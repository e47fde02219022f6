"""Runs a program with libray in place of Ray: `python [flags] -m libray.as_ray program.py [args]`, or with
`-m module`, `-c code`, a folder, a zip file or `-` in the program's place. `python -m libray.as_ray --path` prints what
to put into PYTHONPATH so that `import ray` means libray without any other change.

The program runs as under plain `python`: this process sets PYTHONPATH and becomes that interpreter (exec), so that
arguments, flags, `__main__`, tracebacks and children that multiprocessing spawns are what they always are. Only an
interpreter that reads no environment (-E, -I), and so no PYTHONPATH, runs the program in this process instead."""

from __future__ import annotations

import os
import runpy
import sys
from typing import List

from .core import import_ray

_USAGE = "usage: python [flags] -m libray.as_ray (program.py | -m module | -c code | --path) [args...]"


def main(arguments: List[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        raise SystemExit(0 if arguments else 2)
    if arguments[0] == "--path":
        print(os.pathsep.join(import_ray.search_path()))
        return
    if arguments[0] in ("-m", "-c") and len(arguments) < 2:
        print(_USAGE, file=sys.stderr)
        raise SystemExit(2)
    if __name__ != "__main__" or sys.flags.ignore_environment or not sys.executable:
        _run_here(arguments)
        return
    import_ray.extend_pythonpath()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [*_interpreter(), *arguments])


def _interpreter() -> List[str]:
    """The command line of this process up to what named this module: the interpreter and its flags."""
    if not hasattr(sys, "orig_argv"):  # before Python 3.10
        import subprocess

        flags: List[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        return [sys.executable, *flags]
    command = list(sys.orig_argv[: len(sys.orig_argv) - (len(sys.argv) - 1)])
    if command[-1] == __spec__.name and len(command) > 1:  # "-m name", or "-Xm name" with flags before the m
        del command[-1]
        command[-1] = command[-1][:-1]
    else:  # "-mname"
        command[-1] = command[-1][: -len("m" + __spec__.name)]
    return command if command[-1] != "-" else command[:-1]


def _run_here(arguments: List[str]) -> None:
    """Runs the program in this process, as the real `__main__`, so that what it defines can be pickled as such."""
    import __main__

    kind = arguments[0]
    # The interpreter put the folder of `-m`, the working directory, in front (but not with -I); a program has its own.
    if not sys.flags.isolated:
        first = {"-m": os.getcwd(), "-c": ""}.get(kind, os.path.dirname(os.path.abspath(kind)))
        sys.path[0] = first
    sys.argv[:] = [kind, *arguments[2:]] if kind in ("-m", "-c") else arguments
    import_ray.install_as_ray()
    if kind == "-m":
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    path = "" if kind == "-c" else os.path.abspath(kind)
    if kind == "-c":
        source: bytes = arguments[1].encode()
    else:
        with open(path, "rb") as file:
            source = file.read()
    code = compile(source, path or "<string>", "exec", dont_inherit=True)
    scope = __main__.__dict__
    for name in [n for n in scope if not n.startswith("__") or n in ("__file__", "__cached__")]:
        del scope[name]
    scope.update(__spec__=None, __doc__=None, __package__=None)
    if path:
        scope.update(__file__=path, __cached__=None)
    exec(code, scope)


if __name__ == "__main__":
    main(sys.argv[1:])
