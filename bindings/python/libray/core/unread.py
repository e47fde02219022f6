"""Errors that nobody looked at: a task failed, and the last reference to its result went without `get`, `wait`, `await`
or a task that took it. They are shown by the package's logger, as in Ray; RAY_IGNORE_UNHANDLED_ERRORS or
LIBRAY_IGNORE_UNHANDLED_ERRORS in the environment turns that off.

`show` runs on a thread that the extension makes when there are some (src/unread.cc), and at shutdown for the rest."""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, List

from .. import _libray, exceptions
from . import import_ray

_OFF = ("RAY_IGNORE_UNHANDLED_ERRORS", "LIBRAY_IGNORE_UNHANDLED_ERRORS")


def take() -> List[Dict[str, Any]]:
    """What the runtime knows of; each is given once."""
    return list(_libray.query("unread", b"")) if _libray.is_initialized() else []


def show(rows: Any = None) -> None:
    """Shows them; without `rows`, those that are there now."""
    for row in take() if rows is None else rows:
        if any(name in os.environ for name in _OFF):
            continue
        text = row["message"].decode("utf-8", "replace")
        try:
            error = exceptions.make_error(row["code"], text, row["payload"], row["format"])
            _handler()(error)
        except Exception:
            import traceback

            traceback.print_exc()


def watch_interactive() -> None:
    """In a shell or a notebook, which keep results: shows an error also when its reference lives and nobody looked at
    it for some seconds. Called by init; a thread of its own, while the runtime runs."""
    import threading

    generation = _libray.generation()

    def look() -> None:
        import time

        while True:
            time.sleep(1)
            if not _libray.is_initialized() or _libray.generation() != generation:
                return
            try:
                show(_libray.query("neglected", b""))
            except Exception:  # the node is gone, or the runtime is being shut down
                return

    threading.Thread(target=look, name="libray-errors", daemon=True).start()


def _handler() -> Any:
    """Tests put their own in place of Ray's function."""
    worker = sys.modules.get("ray._private.worker")
    return getattr(worker, "_unhandled_error_handler", log) if import_ray.is_installed() else log


def log(error: BaseException) -> None:
    """The usual way to show one."""
    import logging

    text = f"Unhandled error (suppress with 'RAY_IGNORE_UNHANDLED_ERRORS=1'): {error}"
    logger = logging.getLogger("ray" if import_ray.is_installed() else "libray")
    if not logger.hasHandlers():
        if _libray.is_worker():  # the driver shows it with the worker's name
            print(text, file=sys.stderr)
            return
        from . import logging_setup

        logging_setup.set_up_own_loggers(None, None)
    logger.error("%s", text)
