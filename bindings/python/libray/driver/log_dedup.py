"""Folds lines that several workers print, as Ray does: the first is shown at once, those that other
workers print within the window are counted, and the count is shown with the last of them. Lines
that differ in numbers alone are the same line. Lines of one worker are never folded.

Used by the log monitor's thread alone. Environment (the same names with RAY_ work): LIBRAY_DEDUP_LOGS=0
turns it off, LIBRAY_DEDUP_LOGS_AGG_WINDOW_S is the window (5), ..._ALLOW_REGEX is never folded,
..._SKIP_REGEX is not shown at all.
"""

from __future__ import annotations

import os
import re
from typing import Any, Dict, Hashable, List, Optional, Pattern, Set, Tuple

_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")
_MAX_KEYS = 10000  # distinct lines that are remembered


def setting(name: str, default: str = "") -> str:
    value = os.environ.get("LIBRAY_" + name)
    return os.environ.get("RAY_" + name, default) if value is None else value


def _pattern(name: str) -> Optional[Pattern[str]]:
    text = setting(name)
    return re.compile(text) if text else None


class _Seen:
    __slots__ = ("since", "count", "line", "origin", "sources")

    def __init__(self, since: float, line: str, origin: Any, source: Hashable) -> None:
        self.since = since
        self.count = 0  # lines that were held back
        self.line = line  # the last of them
        self.origin = origin
        self.sources: Set[Hashable] = {source}


class Deduplicator:
    """add() and expire() give (origin, line) pairs to print; origin is the caller's own."""

    def __init__(self) -> None:
        self.enabled = setting("DEDUP_LOGS", "1") not in ("0", "false", "False")
        try:
            self.window = float(setting("DEDUP_LOGS_AGG_WINDOW_S", "5"))
        except ValueError:
            self.window = 5.0
        self.allow = _pattern("DEDUP_LOGS_ALLOW_REGEX")
        self.skip = _pattern("DEDUP_LOGS_SKIP_REGEX")
        self.seen: Dict[Tuple[Any, str], _Seen] = {}  # oldest first
        self.explained = False

    def add(self, line: str, stream: Any, source: Hashable, origin: Any, now: float) -> bool:
        """Whether the line is to be printed now. `stream` keeps output and errors apart."""
        if not self.enabled:
            return True
        if self.allow is not None and self.allow.search(line):
            return True
        if self.skip is not None and self.skip.search(line):
            return False
        text = _NUMBER.sub("", line)
        if not text.strip():
            return True
        key = (stream, text)
        seen = self.seen.get(key)
        if seen is None:
            if len(self.seen) < _MAX_KEYS:
                self.seen[key] = _Seen(now, line, origin, source)
            return True
        seen.sources.add(source)
        if len(seen.sources) == 1:
            return True
        seen.count += 1
        seen.line = line
        seen.origin = origin
        return False

    def next_deadline(self) -> Optional[float]:
        for seen in self.seen.values():
            return seen.since + self.window
        return None

    def expire(self, now: float) -> List[Tuple[Any, str]]:
        """What was held back for a whole window. A line that was repeated is watched on."""
        out = []
        while self.seen:
            key, seen = next(iter(self.seen.items()))
            if now < seen.since + self.window:
                break
            del self.seen[key]
            if seen.count == 0:
                continue
            out.append((seen.origin, self._shown(seen)))
            if seen.count > 1:
                seen.since = now
                seen.count = 0
                self.seen[key] = seen
        return out

    def flush(self) -> List[Tuple[Any, str]]:
        """Everything that is held back."""
        out = [(s.origin, self._shown(s)) for s in self.seen.values() if s.count]
        self.seen.clear()
        return out

    def _shown(self, seen: _Seen) -> str:
        if seen.count == 1:
            return seen.line
        hint = ""
        if not self.explained:
            self.explained = True
            hint = (
                " (libray folds lines that workers repeat; set LIBRAY_DEDUP_LOGS=0 to see each of them)"
            )
        return f"{seen.line} [repeated {seen.count}x across cluster]{hint}"
