"""`ray.util.timer`."""

import time
from typing import Any, List


class _Timer:
    """`with timer:` measures; the mean is of the last `window_size` times. `push_units_processed` in between gives a
    throughput."""

    def __init__(self, window_size: int = 10) -> None:
        self._window_size = window_size
        self._samples: List[float] = []
        self._units_processed: List[float] = []
        self._start_time: Any = None
        self._total_time = 0.0
        self.count = 0

    def __enter__(self) -> "_Timer":
        assert self._start_time is None, "concurrent updates not supported"
        self._start_time = time.time()
        return self

    def __exit__(self, *exc: Any) -> None:
        assert self._start_time is not None
        taken, self._start_time = time.time() - self._start_time, None
        self.push(taken)

    def push(self, time_delta: float) -> None:
        self._samples = [*self._samples, time_delta][-self._window_size :]
        self.count += 1
        self._total_time += time_delta

    def push_units_processed(self, n: float) -> None:
        self._units_processed = [*self._units_processed, n][-self._window_size :]

    def has_units_processed(self) -> bool:
        return bool(self._units_processed)

    @property
    def mean(self) -> float:
        return sum(self._samples) / len(self._samples) if self._samples else 0.0

    @property
    def mean_units_processed(self) -> float:
        return sum(self._units_processed) / len(self._units_processed) if self._units_processed else 0.0

    @property
    def mean_throughput(self) -> float:
        total = sum(self._samples)
        return sum(self._units_processed) / total if total else 0.0


__all__ = ["_Timer"]
