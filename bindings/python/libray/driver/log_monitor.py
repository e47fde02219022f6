"""Brings what the workers of this job print to the driver's own standard output and error.

One thread of the driver. It sleeps on inotify until a worker's log file grows, lets a moment pass so
that bursts are read at once, reads whole lines, and prints them with `(name pid=…)`. Nothing of it
touches a call: a worker writes into its file, the driver's thread reads it (docs/node.md has the
files, core/output_labels.py the names in them). A line without an end is shown when the worker has
been silent for a while, or has ended.
"""

from __future__ import annotations

import errno
import json
import os
import re
import select
import struct
import sys
import threading
import time
from typing import Any, Dict, List, Optional, Tuple

from .. import _libray
from ..core import import_ray
from ..core.output_labels import BAR, LABEL_END, LABEL_START
from .log_dedup import Deduplicator, setting

_FILE = re.compile(r"worker-(\d+)-([0-9a-f]+)-(\d+)\.(out|err)$")
_BURST_S = 0.02  # from the first sign of output to the reading of it
_PARTIAL_S = 0.5  # a line without an end is shown after this long
_MAX_LINE = 1 << 20  # longer ones are shown in pieces
_READ = 1 << 20
_MAX_BEHIND = 64 << 20  # a worker that prints faster than a terminal takes: the middle is left out
_EVENT = struct.Struct("iIII")
_IN_DELETE, _IN_Q_OVERFLOW = 0x200, 0x4000
_CYAN, _RESET = "\033[36m", "\033[0m"
_COLOURS = [f"\033[{code}m" for code in (36, 35, 32, 33, 34, 31, 96, 95, 92, 93)]

_BARS_S = 0.3  # progress bars that made room for printed lines are drawn again after this long


class _File:
    """One log file that is being read."""

    __slots__ = ("path", "pid", "is_error", "offset", "rest", "name", "waits_since")

    def __init__(self, path: str, pid: int, is_error: bool) -> None:
        self.path = path
        self.pid = pid
        self.is_error = is_error
        self.offset = 0
        self.rest = b""  # of a line that has no end yet
        self.name = ""
        self.waits_since = 0.0

    def read(self) -> bytes:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            size = os.fstat(fd).st_size
            if size < self.offset:  # the user's code truncated it
                self.offset = 0
            behind = size - self.offset
            note = b""
            if behind > _MAX_BEHIND:
                skipped = behind - _MAX_BEHIND // 2
                self.offset += skipped
                note = b"\n[libray: %d bytes of output are left out here, see %s]\n" % (
                    skipped,
                    os.fsencode(self.path),
                )
            data = os.pread(fd, _READ, self.offset)
            self.offset += len(data)
            return note + data
        except OSError:
            return b""
        finally:
            os.close(fd)

    def split(self, data: bytes, now: float) -> List[Tuple[str, bytes]]:
        """(name, line) for each line that is complete."""
        out = []
        if self.rest:
            data = self.rest + data
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._labels(line, out, True)
        # What is before a label ended there; a label that is cut in two stays with the rest.
        if LABEL_START in rest:
            rest = self._labels(rest, out, False)
        while len(rest) > _MAX_LINE:
            out.append((self.name, rest[:_MAX_LINE]))
            rest = rest[_MAX_LINE:]
        if rest and rest != self.rest:
            self.waits_since = now
        self.rest = rest
        return out

    def _labels(self, line: bytes, out: List[Tuple[str, bytes]], complete: bool) -> bytes:
        while True:
            at = line.find(LABEL_START)
            end = line.find(LABEL_END, at) if at >= 0 else -1
            if end < 0:
                break
            if at:
                out.append((self.name, line[:at]))
            self.name = line[at + len(LABEL_START) : end].decode("utf-8", "replace")
            line = line[end + 1 :]
        if complete:
            out.append((self.name, line))
            return b""
        return line

    def take_rest(self) -> List[Tuple[str, bytes]]:
        rest, self.rest = self.rest, b""
        if not rest or rest.startswith(LABEL_START):
            return []
        return [(self.name, rest)]


class LogMonitor:
    """Started by init, ended by shutdown."""

    def __init__(self, session: str, job: str) -> None:
        self.folder = os.path.join(session, "logs")
        self.job = job[:8]
        self.files: Dict[str, _File] = {}
        self.dedup = Deduplicator()
        self.by_pid = setting("COLOR_PREFIX") == "1"
        self.stopping = False
        self.bars_hidden_since = 0.0
        self.watch = _libray._watch_folder(self.folder)
        self.wake_read, self.wake_write = os.pipe()
        self.thread = threading.Thread(target=self._run, name="libray-log-monitor", daemon=True)
        try:
            self.thread.start()
        except RuntimeError as e:  # no threads left
            self.abandon()
            raise OSError(errno.EAGAIN, str(e)) from None

    def stop(self) -> None:
        """Ends the thread; prints what is in the files by then. Call it when the workers are gone."""
        self.stopping = True
        os.write(self.wake_write, b"x")
        if self.thread is not threading.current_thread():
            self.thread.join(10)
        if not self.thread.is_alive():
            self._finish()
        for fd in (self.watch, self.wake_read, self.wake_write):
            os.close(fd)

    def abandon(self) -> None:
        """In a forked child: the thread is not there, the descriptors are the parent's."""
        for fd in (self.watch, self.wake_read, self.wake_write):
            os.close(fd)

    # ---- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self.watch, select.POLLIN)
        poll.register(self.wake_read, select.POLLIN)
        stop = select.poll()
        stop.register(self.wake_read, select.POLLIN)
        changed = self._list()
        while not self.stopping:
            more = self._read(changed)
            now = time.monotonic()
            self._print(self._silent(now))
            self._print([(o, line) for o, line in self.dedup.expire(now)])
            if self.bars_hidden_since and now - self.bars_hidden_since > _BARS_S:
                self._hide_bars(False)
            if more:  # a busy worker: the others have their turn, and so has the program
                changed = more | self._events() if self._ready(poll, 0) else more
                time.sleep(0.001)
                continue
            if self._ready(poll, self._timeout(time.monotonic())):
                self._ready(stop, _BURST_S)  # the moment for a burst to complete; shutdown ends it
                changed = self._events()
            else:
                changed = set()

    @staticmethod
    def _ready(poll: Any, timeout: Optional[float]) -> bool:
        return bool(poll.poll(None if timeout is None else max(0, int(timeout * 1000) + 1)))

    def _timeout(self, now: float) -> Optional[float]:
        waits = [f.waits_since + _PARTIAL_S for f in self.files.values() if f.rest]
        folded = self.dedup.next_deadline()
        if folded is not None:
            waits.append(folded)
        if self.bars_hidden_since:
            waits.append(self.bars_hidden_since + _BARS_S)
        return max(0.0, min(waits) - now) if waits else None

    def _list(self) -> "set[str]":
        try:
            return set(os.listdir(self.folder))
        except OSError:
            return set()

    def _events(self) -> "set[str]":
        """Names of files that changed."""
        try:
            data = os.read(self.watch, 65536)
        except (BlockingIOError, InterruptedError):
            return set()
        except OSError:
            return self._list()
        names, at = set(), 0
        while at + _EVENT.size <= len(data):
            _, mask, _, size = _EVENT.unpack_from(data, at)
            name = os.fsdecode(data[at + _EVENT.size : at + _EVENT.size + size].rstrip(b"\0"))
            at += _EVENT.size + size
            if mask & _IN_Q_OVERFLOW:
                names |= self._list()
            elif mask & _IN_DELETE:
                self.files.pop(name, None)
            else:
                names.add(name)
        return names

    # ---- files to lines ------------------------------------------------------------------------

    def _file(self, name: str) -> Optional[_File]:
        file = self.files.get(name)
        if file is None:
            match = _FILE.match(name)
            if match is None or match.group(2) != self.job:
                return None
            path = os.path.join(self.folder, name)
            file = _File(path, int(match.group(3)), match.group(4) == "err")
            self.files[name] = file
        return file

    def _read(self, names: "set[str]") -> "set[str]":
        """Reads a piece of each file; returns those that have more."""
        more = set()
        for name in sorted(names):
            file = self._file(name)
            if file is None:
                continue
            data = file.read()
            if not data:
                continue
            self._take(file, file.split(data, time.monotonic()))
            if len(data) >= _READ:
                more.add(name)
        return more

    def _silent(self, now: float) -> List[Tuple[Any, str]]:
        out: List[Tuple[Any, str]] = []
        for file in self.files.values():
            if file.rest and now - file.waits_since >= _PARTIAL_S:
                out += [((file, n), self._text(line)) for n, line in file.take_rest()]
        return out

    @staticmethod
    def _text(line: bytes) -> str:
        return line.rstrip(b"\r").decode("utf-8", "replace")

    def _take(self, file: _File, lines: List[Tuple[str, bytes]]) -> None:
        now = time.monotonic()
        shown = []
        for name, raw in lines:
            line = self._text(raw)
            if BAR in line:
                self._print(shown)
                shown = []
                self._draw(line)
                continue
            if self.dedup.add(line, file.is_error, file.pid, (file, name), now):
                shown.append(((file, name), line))
        self._print(shown)

    def _finish(self) -> None:
        names = self._list()
        while names:
            names = self._read(names)
        rests = [((f, n), self._text(x)) for f in self.files.values() for n, x in f.take_rest()]
        self._print(rests + self.dedup.flush())

    # ---- progress bars ---------------------------------------------------------------------------

    @staticmethod
    def _draw(line: str) -> None:
        if not import_ray.is_installed():
            return
        try:
            from . import progress_bars

            progress_bars.instance().process_state_update(json.loads(line))
        except Exception as e:  # a line that was cut, a terminal that is gone
            import logging

            logging.getLogger("ray").debug("a progress bar cannot be drawn: %s", e)

    def _hide_bars(self, hide: bool) -> None:
        bars: Any = sys.modules.get("libray.driver.progress_bars")
        manager = getattr(bars, "_manager", None)
        if manager is not None:
            self.bars_hidden_since = time.monotonic() if hide else 0.0
            manager.hide_bars() if hide else manager.unhide_bars()

    # ---- lines to the terminal -----------------------------------------------------------------

    def _print(self, lines: List[Tuple[Any, str]]) -> None:
        if lines:
            self._hide_bars(True)
        for is_error in (False, True):
            mine = [(f, name, line) for (f, name), line in lines if f.is_error == is_error]
            if not mine:
                continue
            stream = sys.stderr if is_error else sys.stdout
            colour = self._wants_colour(stream)
            text = "".join(self._prefix(f.pid, name, colour) + line + "\n" for f, name, line in mine)
            with _fork_lock:
                _write(stream, text)

    @staticmethod
    def _wants_colour(stream: Any) -> bool:
        try:
            return "NO_COLOR" not in os.environ and bool(stream.isatty())
        except Exception:
            return False

    def _prefix(self, pid: int, name: str, colour: bool) -> str:
        text = f"({name} pid={pid})" if name else f"(pid={pid})"
        if not colour:
            return text + " "
        start = _COLOURS[pid % len(_COLOURS)] if self.by_pid else _CYAN
        return f"{start}{text}{_RESET} "


def _write(stream: Any, text: str) -> None:
    """One write, so that lines of the program do not come between. A program without a standard output,
    or one that nobody reads any more, goes on."""
    try:
        stream.write(text)
        stream.flush()
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        _write(stream, text.encode(encoding, "backslashreplace").decode(encoding))
    except Exception:  # of a stream that the program has put in its place, too: its errors are not this thread's end
        pass


# Held while the thread writes, and across forks: a child must not inherit a locked stream.
_fork_lock = threading.Lock()
_fork_held = False


def _before_fork() -> None:
    global _fork_held
    _fork_held = _fork_lock.acquire(timeout=1)


def _after_fork() -> None:
    global _fork_held
    if _fork_held:
        _fork_held = False
        _fork_lock.release()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
)
