"""`ray.experimental.tqdm_ray`: progress bars of tasks, drawn on the driver's terminal.

A bar writes its state, at most ten times a second, into the key-value table under its own name; the driver that made
or imported this module draws what it finds there. With `tqdm` installed it draws with that, else with one line."""

import os
import sys
import threading
import time
import uuid
from typing import Any, Dict, Iterable, Optional

from libray import _core, _libray

_SPACE = "tqdm"


class tqdm:
    """The part of `tqdm.tqdm` that makes sense at a distance: total, desc, update, set_description, refresh, close."""

    def __init__(
        self,
        iterable: Optional[Iterable[Any]] = None,
        desc: Optional[str] = None,
        total: Optional[int] = None,
        unit: Optional[str] = None,
        position: Optional[int] = None,
        flush_interval_s: float = 0.1,
        **ignored: Any,
    ) -> None:
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)  # type: ignore[arg-type]
        self._iterable = iterable
        self._desc, self._total, self._unit = desc or "", total, unit or "it"
        self._position, self._interval = position or 0, flush_interval_s
        self._x = 0
        self._closed = False
        self._last = 0.0
        self._uuid = uuid.uuid4().hex
        instance().start()
        self.refresh()

    @property
    def n(self) -> int:
        return self._x

    def update(self, n: int = 1) -> None:
        self._x += n
        if time.monotonic() - self._last > self._interval:
            self.refresh()

    def set_description(self, desc: str) -> None:
        self._desc = desc
        self.refresh()

    def refresh(self) -> None:
        """Makes the state known now."""
        self._last = time.monotonic()
        instance().process_state_update(
            {
                "uuid": self._uuid,
                "desc": self._desc,
                "total": self._total,
                "unit": self._unit,
                "x": self._x,
                "pos": self._position,
                "closed": self._closed,
                "pid": os.getpid(),
            }
        )

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.refresh()

    def __iter__(self) -> Any:
        try:
            for item in self._iterable or ():
                yield item
                self.update(1)
        finally:
            self.close()

    def __enter__(self) -> "tqdm":
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


class _BarManager:
    """The bars of this process: in a worker they are sent, in a driver drawn."""

    def __init__(self) -> None:
        self.bars: Dict[str, Dict[str, Any]] = {}
        self._drawn: Dict[str, Any] = {}
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self.hidden = False

    def start(self) -> None:
        """In a driver: begins to look for the bars of workers."""
        _core.ensure()
        if _libray.is_worker() or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._watch, name="libray-tqdm", daemon=True)
        self._thread.start()

    def process_state_update(self, state: Dict[str, Any]) -> None:
        if _libray.is_worker():
            data = bytes(_libray.encode(state, False)[1])
            _libray.kv_put(_SPACE, state["uuid"].encode(), data, None)
        else:
            self._draw(state)

    def _watch(self) -> None:
        while _libray.is_initialized():
            try:
                self.collect()
            except Exception:
                if _libray.is_initialized():
                    raise
                return
            time.sleep(0.2)

    def collect(self) -> None:
        """Reads what workers wrote; takes closed bars out of the table."""
        for key in _libray.kv_list(_SPACE, b""):
            found = _libray.kv_get(_SPACE, key)
            if found is None:
                continue
            state = _libray.decode(found[0], 1)
            self._draw(state)
            if state["closed"]:
                _libray.kv_delete(_SPACE, key, None)

    def _draw(self, state: Dict[str, Any]) -> None:
        with self._lock:
            if self.bars.get(state["uuid"]) == state:
                return
            self.bars[state["uuid"]] = state
            if not self.hidden:
                self._show(state)
            if state["closed"]:
                self._drawn.pop(state["uuid"], None)

    def _show(self, state: Dict[str, Any]) -> None:
        bar = self._drawn.get(state["uuid"])
        if bar is None:
            try:
                from tqdm import tqdm as real

                bar = real(desc=state["desc"], total=state["total"], unit=state["unit"], dynamic_ncols=True)
            except ImportError:
                bar = _Line()
            self._drawn[state["uuid"]] = bar
        bar.set_description(state["desc"], refresh=False)
        bar.total = state["total"]
        bar.n = state["x"]
        bar.refresh()
        if state["closed"]:
            bar.close()

    def hide_bars(self) -> None:
        self.hidden = True

    def unhide_bars(self) -> None:
        self.hidden = False


class _Line:
    """A bar without tqdm: one line on stderr that is written over."""

    total: Optional[int] = None
    n = 0
    desc = ""

    def set_description(self, desc: str, refresh: bool = True) -> None:
        self.desc = desc

    def refresh(self) -> None:
        if sys.stderr.isatty():
            of = f"/{self.total}" if self.total is not None else ""
            sys.stderr.write(f"\r{self.desc}: {self.n}{of}")
            sys.stderr.flush()

    def close(self) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\n")


_manager: Optional[_BarManager] = None


def instance() -> _BarManager:
    global _manager
    if _manager is None:
        _manager = _BarManager()
    return _manager


def safe_print(*args: Any, **kwargs: Any) -> None:
    """print that does not cut through bars."""
    manager = instance()
    with manager._lock:
        print(*args, **kwargs)
