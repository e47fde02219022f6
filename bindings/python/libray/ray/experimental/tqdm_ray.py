"""`ray.experimental.tqdm_ray`: progress bars of tasks and actors, drawn on the driver's terminal.

A bar in a worker prints its state as one line of JSON, at most ten times a second. The driver's log monitor knows such
lines and gives them to the bar manager of the driver (libray/driver/progress_bars.py)."""

import builtins
import json
import os
import sys
import time
import uuid
from typing import Any, Iterable, Optional

from libray import _libray
from libray.core.output_labels import BAR
from libray.driver.progress_bars import PLACE, instance, safe_print

RAY_TQDM_MAGIC = BAR
_print = builtins.print


class tqdm:
    """The part of `tqdm.tqdm` that makes sense at a distance: total, desc, update, set_description, refresh, close."""

    def __init__(
        self,
        iterable: Optional[Iterable[Any]] = None,
        desc: Optional[str] = None,
        total: Optional[int] = None,
        unit: Optional[str] = None,
        position: Optional[int] = None,
        flush_interval_s: Optional[float] = None,
        **ignored: Any,
    ) -> None:
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)  # type: ignore[arg-type]
        self._iterable = iterable
        self._desc, self._total, self._unit = desc or "", total, unit or "it"
        self._position = position or 0
        self._interval = 0.1 if flush_interval_s is None else flush_interval_s
        self._x = 0
        self._closed = False
        self._last = 0.0
        self._uuid = uuid.uuid4().hex

    @property
    def n(self) -> int:
        return self._x

    @n.setter
    def n(self, n: int) -> None:
        self._x = n

    @property
    def total(self) -> Optional[int]:
        return self._total

    @total.setter
    def total(self, total: Optional[int]) -> None:
        self._total = total

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
        state = {
            "__magic_token__": RAY_TQDM_MAGIC,
            "x": self._x,
            "pos": self._position,
            "desc": self._desc,
            "total": self._total,
            "unit": self._unit,
            "ip": PLACE,
            "pid": os.getpid(),
            "uuid": self._uuid,
            "closed": self._closed,
        }
        if _libray.is_worker():
            # The worker's own standard output, whatever the user's code put in its place.
            _print(json.dumps(state), file=sys.__stdout__, flush=True)
        else:
            instance().process_state_update(state)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.refresh()

    def __iter__(self) -> Any:
        if self._iterable is None:
            raise ValueError("No iterable provided")
        try:
            for item in self._iterable:
                yield item
                self.update(1)
        finally:
            self.close()

    def __enter__(self) -> "tqdm":
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


__all__ = ["RAY_TQDM_MAGIC", "instance", "safe_print", "tqdm"]
