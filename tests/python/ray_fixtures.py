"""Runs test functions' bodies where `import ray` is libray: in an interpreter of its own, so that the other tests'
process keeps what it has."""

import os
import subprocess
import sys
import textwrap

HEAD = "import libray\nray = libray.install_as_ray()\n"


def run(source, timeout=90, **env):
    """Runs the program after installing libray as ray; its output lines."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()
