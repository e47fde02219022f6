"""`ray.util.iter_metrics`: counters, timers and notes of a local iterator. Its stages reach them with
`LocalIterator.get_metrics()`, whoever has the iterator with `iterator.shared_metrics.get()`."""

import collections
from typing import Any, Dict, List, Optional

from ray.util.timer import _Timer


class MetricsContext:
    """`counters`, `timers` and `info` are the program's own; `current_actor` gave the item that is on its way."""

    def __init__(self) -> None:
        self.counters: Dict[Any, int] = collections.defaultdict(int)
        self.timers: Dict[Any, _Timer] = collections.defaultdict(_Timer)
        self.info: Dict[Any, Any] = {}
        self.current_actor: Any = None

    def save(self) -> Dict[str, Any]:
        """What `restore` takes; timers are not kept."""
        return {"counters": dict(self.counters), "info": dict(self.info), "timers": None}

    def restore(self, values: Dict[str, Any]) -> None:
        self.counters.clear()
        self.counters.update(values["counters"])
        self.timers.clear()
        self.info = values["info"]


class SharedMetrics:
    """A MetricsContext that several iterators share. With parents (of a union), they share it from now on."""

    def __init__(
        self,
        metrics: Optional[MetricsContext] = None,
        parents: Optional[List["SharedMetrics"]] = None,
    ) -> None:
        self.parents = list(parents or ())
        self.set(metrics or MetricsContext())

    def set(self, metrics: MetricsContext) -> None:
        self.metrics = metrics
        for parent in self.parents:
            parent.set(metrics)

    def get(self) -> MetricsContext:
        return self.metrics


__all__ = ["MetricsContext", "SharedMetrics"]
