"""What this process is in a cluster: the session that it is in, and what its end calls.

Written by whoever starts, joins or ends the runtime (driver/start.py, api/local_mode.py), on any thread; read by every
layer. State alone: nothing here acts."""

from __future__ import annotations

from typing import Callable, List

session = ""  # directory of the session that this process is in; empty: of none
local_mode = False  # init(local_mode=True) made this process run everything itself
on_shutdown: List[Callable[[], None]] = []  # called before the runtime stops


def session_dir() -> str:
    """Directory of the session that this process is in."""
    return session
