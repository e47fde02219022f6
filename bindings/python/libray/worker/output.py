"""A worker's standard output and error. Both go to files of the session (rayd opened them); the
driver reads the files and prints the lines with a prefix that names who printed them.

The name travels in the file itself, as a *label* (core/output_labels.py). A label is written when the
name differs from that of the output before, so a task that prints nothing pays nothing. Called by whatever thread of
the worker prints.
"""

from __future__ import annotations

import errno
import io
import sys
from typing import Any, Optional

from .. import _libray
from ..core.output_labels import encode_label

_actor_label: Optional[str] = None  # what this worker's actor is called


# A disk without room, in its kinds. Printing is no part of a task's work: it must not fail for it.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _LabelledFile(io.FileIO):
    """The descriptor, with a label before the first output under each name. What a full disk does not
    take is dropped and counted, and the first that it takes again is preceded by a line that says so."""

    _label: Optional[str] = None
    _lost = 0
    _why = ""

    def write(self, data: Any) -> int:
        label = _actor_label or _libray._task_label() or self._label
        try:
            if self._lost:
                self._tell_loss()
            if label != self._label:
                super().write(encode_label(label or ""))
                self._label = label
            return super().write(data)
        except OSError as e:
            if e.errno not in _FULL:
                raise
            size = memoryview(data).nbytes
            self._lost += size
            self._why = e.strerror or str(e)
            return size

    def close(self) -> None:
        """Does nothing: see _Buffer."""

    def _tell_loss(self) -> None:
        note = b"\n[libray: %d bytes of output are lost here: %s]\n" % (self._lost, self._why.encode())
        if super().write(note) == len(note):
            self._lost = 0
            self._label = None  # its label may be among what is lost


class _Buffer(io.BufferedWriter):
    """A task that closes sys.stdout, or what is below it, closes nothing: the tasks after it print, too."""

    def close(self) -> None:
        self.flush()


class _Stream(io.TextIOWrapper):
    """Flushed at the end of each line and of each task: a task's last words are in the file before its
    result can be seen."""

    def write(self, text: str) -> int:
        written = super().write(text)
        if not text.endswith("\n"):
            _libray._output_pending()
        return written


def _open(fd: int, name: str) -> _Stream:
    raw = _LabelledFile(fd, "wb", closefd=False)
    raw.name = name  # type: ignore[misc]
    return _Stream(
        _Buffer(raw, 16384),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # closed or replaced by the user's code
            pass


def set_actor(name: str) -> None:
    """From now on everything that this process prints is the actor's: also what its C code and its
    children print, so the label is written at once."""
    global _actor_label
    if name == _actor_label:
        return
    _actor_label = name
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()  # type: ignore[union-attr]
            raw = stream.buffer.raw  # type: ignore[union-attr]
            raw._label = name
            io.FileIO.write(raw, encode_label(name))
        except Exception:
            pass


def actor_name(instance: Any) -> str:
    """The class, or what its own __repr__ says."""
    cls = type(instance)
    if cls.__repr__ is object.__repr__:
        return str(cls.__name__)
    try:
        return str(repr(instance))
    except Exception:
        return str(cls.__name__)


def install() -> None:
    """In a new worker, before anything prints."""
    sys.stdout = sys.__stdout__ = _open(1, "<stdout>")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _open(2, "<stderr>")  # type: ignore[misc]
    _libray._set_flush(flush)
