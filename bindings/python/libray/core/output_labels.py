"""What stands in a worker's log file besides its lines: the names of those who printed them, and progress bars.

A name travels as a *label*: an operating system command that terminals do not know and therefore do not show. Written
by worker/output.py, read by driver/log_monitor.py; any thread."""

from __future__ import annotations

LABEL_START = b"\x1b]libray;"
LABEL_END = b"\x07"
BAR = "__ray_tqdm_magic_token__"  # in a line that is the state of a progress bar (driver/progress_bars.py)
_MAX_NAME = 200

_CONTROL = {code: " " for code in (*range(32), 127)}


def encode_label(name: str) -> bytes:
    shown = name[:_MAX_NAME].translate(_CONTROL)
    return LABEL_START + shown.encode("utf-8", "replace") + LABEL_END
