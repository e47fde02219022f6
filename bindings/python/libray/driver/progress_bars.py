"""Progress bars of tasks and actors on the driver's terminal: with `tqdm` where that is installed, else one line. What
workers or the program itself print clears the bars first, so that neither cuts through the other.

The states come from the log monitor's thread, and from bars of the program itself (ray/experimental/tqdm_ray.py) on any
thread; the manager's lock orders them. Imported when the first state comes."""

from __future__ import annotations

import builtins
import os
import sys
import threading
from typing import Any, Dict, Optional, Tuple

from .log_dedup import setting

_print = builtins.print
PLACE = "127.0.0.1"


class _Bar:
    """One bar on the terminal, at the lines of its process plus its own position."""

    def __init__(self, state: Dict[str, Any], pos_offset: int) -> None:
        self.state, self.pos_offset = state, pos_offset
        try:
            from tqdm.auto import tqdm as real
        except ImportError:
            real = _Line
        self.bar: Any = real(
            desc=state["desc"],
            total=state["total"],
            unit=state["unit"],
            position=pos_offset + state["pos"],
            dynamic_ncols=True,
        )
        if state["x"]:
            self.bar.update(state["x"])

    def update(self, state: Dict[str, Any]) -> None:
        if state["desc"] != self.state["desc"]:
            self.bar.set_description(state["desc"])
        self.bar.total = state["total"]
        self.bar.update(state["x"] - self.state["x"])
        self.bar.refresh()
        self.state = state

    def update_offset(self, pos_offset: int) -> None:
        if pos_offset != self.pos_offset:
            self.pos_offset = pos_offset
            self.bar.clear()
            self.bar.pos = -(pos_offset + self.state["pos"])
            self.bar.refresh()

    def close(self) -> None:
        self.bar.close()


class _BarGroup:
    """The bars of one process."""

    def __init__(self, ip: str, pid: int, pos_offset: int) -> None:
        self.ip, self.pid, self.pos_offset = ip, pid, pos_offset
        self.bars_by_uuid: Dict[str, _Bar] = {}

    def slots_required(self) -> int:
        """How many lines of the terminal they need."""
        return max((bar.state["pos"] + 1 for bar in self.bars_by_uuid.values()), default=0)

    def update_offset(self, pos_offset: int) -> None:
        self.pos_offset = pos_offset
        for bar in self.bars_by_uuid.values():
            bar.update_offset(pos_offset)

    def hide_bars(self) -> None:
        for bar in self.bars_by_uuid.values():
            bar.bar.clear()

    def unhide_bars(self) -> None:
        for bar in self.bars_by_uuid.values():
            bar.bar.refresh()


class _BarManager:
    """All bars of the terminal. Called on any thread of the driver."""

    def __init__(self) -> None:
        self.ip, self.pid = PLACE, os.getpid()
        self.bar_groups: Dict[Tuple[str, int], _BarGroup] = {}
        self.in_hidden_state = False
        self.num_hides = 0
        self.lock = threading.RLock()

    def process_state_update(self, state: Dict[str, Any]) -> None:
        """Draws the bar as it is now; one that is not known yet is added, a closed one goes."""
        state = dict(state)
        if state["pid"] != self.pid:
            state["desc"] = f"(pid={state['pid']}) {state['desc']}"
        with self.lock:
            self.unhide_bars()
            place = (state["ip"], state["pid"])
            group = self.bar_groups.get(place)
            if group is None:
                group = _BarGroup(*place, sum(g.slots_required() for g in self.bar_groups.values()))
            bar = group.bars_by_uuid.get(state["uuid"])
            if bar is not None:
                bar.update(state)
            else:
                bar = group.bars_by_uuid[state["uuid"]] = _Bar(state, group.pos_offset)
                self.bar_groups[place] = group  # not before it has a bar: others look without the lock
                self._update_offsets()
            if state["closed"]:
                bar.close()
                del group.bars_by_uuid[state["uuid"]]
                self._update_offsets()

    def _update_offsets(self) -> None:
        offset = 0
        for group in self.bar_groups.values():
            group.update_offset(offset)
            offset += group.slots_required()

    def hide_bars(self) -> None:
        """Clears them, so that something else can be printed."""
        with self.lock:
            if not self.in_hidden_state:
                self.in_hidden_state = True
                self.num_hides += 1
                for group in self.bar_groups.values():
                    group.hide_bars()

    def unhide_bars(self) -> None:
        """Draws them again."""
        with self.lock:
            if self.in_hidden_state:
                self.in_hidden_state = False
                for group in self.bar_groups.values():
                    group.unhide_bars()


class _Line:
    """A bar without tqdm: one line on stderr that is written over."""

    def __init__(self, desc: str, total: Optional[int], **ignored: Any) -> None:
        self.desc, self.total, self.n, self.pos = desc, total, 0, 0

    def set_description(self, desc: str) -> None:
        self.desc = desc

    def update(self, n: int) -> None:
        self.n += n

    def _write(self, text: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(text)
            sys.stderr.flush()

    def refresh(self) -> None:
        of = f"/{self.total}" if self.total is not None else ""
        self._write(f"\r{self.desc}: {self.n}{of}")

    def clear(self) -> None:
        self._write("\r\033[K")

    def close(self) -> None:
        self._write("\n")


_manager: Optional[_BarManager] = None
_manager_lock = threading.RLock()  # a collection may come back here


def _forget() -> None:
    """In a forked child: the bars are the parent's, and a thread that held a lock is not there."""
    global _manager, _manager_lock
    _manager, _manager_lock = None, threading.RLock()


os.register_at_fork(after_in_child=_forget)


def instance() -> _BarManager:
    """The manager of this process. From the first call on `print` clears the bars before it prints, unless
    RAY_TQDM_PATCH_PRINT is 0."""
    global _manager
    with _manager_lock:
        if _manager is None:
            _manager = _BarManager()
            if setting("TQDM_PATCH_PRINT", "1") not in ("0", "false", "False"):
                builtins.print = safe_print
        return _manager


def safe_print(*args: Any, **kwargs: Any) -> None:
    """print that does not cut through bars."""
    if kwargs.get("file") not in (sys.stdout, sys.stderr, None):
        return _print(*args, **kwargs)
    manager = instance()
    with manager.lock:
        manager.hide_bars()
        try:
            _print(*args, **kwargs)
        finally:
            manager.unhide_bars()
