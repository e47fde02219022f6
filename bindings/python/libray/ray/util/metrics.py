"""`ray.util.metrics`: metrics of user programs. Each process adds up its own numbers and writes them, at most twice a
second while they change, and at its end, into the key-value table of the control store (namespace "metrics", one key
per process).
`collect` adds up the processes; `prometheus_text` prints that as Prometheus reads it.

Recording takes no lock, for a collection may come at any moment and run a finaliser that records too: it leaves the
record in a queue. A thread of its own, or whoever finds many, adds them up and writes."""

from __future__ import annotations

import _thread
import atexit
import bisect
import os
import queue
import re
import threading
import time
import warnings
from typing import Any, Dict, List, Optional, Tuple

from libray import _libray
from libray.core import process

_SPACE = "metrics"
_INTERVAL = 0.5
_NAME = re.compile(r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")
_Tags = Tuple[Tuple[str, str], ...]

_MANY = 1000  # records: so many are added up before the writer comes
_lock = threading.Lock()  # of _own
_own: Dict[Tuple[str, _Tags], Dict[str, Any]] = {}  # this process's numbers
_adding = 0  # the thread that has the lock: a finaliser may come back on it
_records: "queue.SimpleQueue[Tuple[Any, ...]]" = queue.SimpleQueue()  # which a collection may come back to
_changed = False  # something was recorded since the last write
_wake: "queue.SimpleQueue[None]" = queue.SimpleQueue()  # of the writer
_writes = threading.Lock()  # held for as long as there is a writer


def _forked() -> None:
    """In a child: the numbers and the writer are the parent's, and a thread that held a lock is not there."""
    global _lock, _adding, _records, _changed, _wake, _writes
    _lock, _writes, _adding, _changed = threading.Lock(), threading.Lock(), 0, False
    _records, _wake = queue.SimpleQueue(), queue.SimpleQueue()
    _own.clear()


os.register_at_fork(after_in_child=_forked)


class Metric:
    """A name, a description, and the keys of its tags."""

    _kind = ""

    def __init__(
        self, name: str, description: str = "", tag_keys: Optional[Tuple[str, ...]] = None
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, got {type(name)}.")
        if len(name) == 0:
            raise ValueError("Empty name is not allowed. Please provide a metric name.")
        self._discarded = not _NAME.match(name)
        if self._discarded:
            warnings.warn(
                f"Invalid metric name: {name}. The metric is not recorded: names have letters, digits, "
                "'_' and ':' only, and do not begin with a digit.",
                UserWarning,
                stacklevel=3,
            )
        if not isinstance(tag_keys or (), tuple):
            raise TypeError(f"tag_keys should be a tuple type, got: {type(tag_keys)}")
        for key in tag_keys or ():
            if not isinstance(key, str):
                raise TypeError(f"Tag keys must be str, got {type(key)}.")
        self._name, self._description = name, description
        self._tag_keys = tuple(tag_keys or ())
        self._default_tags: Dict[str, str] = {}

    def set_default_tags(self, default_tags: Dict[str, str]) -> "Metric":
        """Values of tags for records that do not give them."""
        for key, value in default_tags.items():
            if key not in self._tag_keys:
                raise ValueError(f"Unrecognized tag key {key}.")
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        self._default_tags = dict(default_tags)
        return self

    @property
    def info(self) -> Dict[str, Any]:
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def _tags(self, tags: Optional[Dict[str, str]]) -> _Tags:
        final = {**self._default_tags, **(tags or {})}
        for key, value in final.items():
            if key not in self._tag_keys:
                raise ValueError(f"Unrecognized tag key {key}.")
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        missing = [key for key in self._tag_keys if key not in final]
        if missing:
            raise ValueError(f"Missing value for tag key(s): {','.join(missing)}.")
        return tuple(sorted(final.items()))

    def _entry(self, tags: _Tags) -> Dict[str, Any]:
        """Called with the lock held."""
        assert _adding == threading.get_ident()
        entry = _own.get((self._name, tags))
        if entry is None:
            entry = _own[(self._name, tags)] = {
                "name": self._name,
                "kind": self._kind,
                "help": self._description,
                "tags": dict(tags),
                "value": 0.0,
            }
        return entry

    def __reduce__(self) -> Any:
        return (_rebuild, (type(self), self._arguments(), self._default_tags))

    def _arguments(self) -> Tuple[Any, ...]:
        return (self._name, self._description, self._tag_keys)


def _rebuild(cls: type, arguments: Tuple[Any, ...], default_tags: Dict[str, str]) -> Metric:
    metric: Metric = cls(*arguments)
    return metric.set_default_tags(default_tags)


class Counter(Metric):
    """A number that only grows."""

    _kind = "counter"

    def inc(self, value: float = 1.0, tags: Optional[Dict[str, str]] = None) -> None:
        if not isinstance(value, (int, float)):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        if value <= 0:
            raise ValueError(f"value must be >0, got {value}")
        final = self._tags(tags)
        if self._discarded:
            return
        _record(self, final, float(value))

    def _add(self, tags: _Tags, value: float) -> None:
        self._entry(tags)["value"] += value


class Gauge(Metric):
    """A number as it is now."""

    _kind = "gauge"

    def set(self, value: Optional[float], tags: Optional[Dict[str, str]] = None) -> None:
        if value is None:
            return
        if not isinstance(value, (int, float)):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        final = self._tags(tags)
        if self._discarded:
            return
        _record(self, final, float(value))

    def _add(self, tags: _Tags, value: float) -> None:
        self._entry(tags)["value"] = value


class Histogram(Metric):
    """How often values fell between boundaries."""

    _kind = "histogram"

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Optional[List[float]] = None,
        tag_keys: Optional[Tuple[str, ...]] = None,
    ) -> None:
        super().__init__(name, description, tag_keys)
        if not boundaries:
            raise ValueError(
                "boundaries argument should be provided when using the Histogram class, e.g. "
                "Histogram(name='name', boundaries=[1.0, 2.0])"
            )
        if any(b <= 0 for b in boundaries):
            raise ValueError(
                f"Invalid `boundaries` argument, {boundaries}. Use positive values: all must be > 0."
            )
        self.boundaries = sorted(float(b) for b in boundaries)

    def observe(self, value: float, tags: Optional[Dict[str, str]] = None) -> None:
        if not isinstance(value, (int, float)):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        final = self._tags(tags)
        if self._discarded:
            return
        _record(self, final, float(value))

    def _add(self, tags: _Tags, value: float) -> None:
        entry = self._entry(tags)
        if "buckets" not in entry:
            entry["bounds"] = self.boundaries
            entry["buckets"] = [0] * (len(self.boundaries) + 1)
        entry["buckets"][bisect.bisect_left(entry["bounds"], value)] += 1
        entry["value"] += value

    @property
    def info(self) -> Dict[str, Any]:
        return {**super().info, "boundaries": self.boundaries}

    def _arguments(self) -> Tuple[Any, ...]:
        return (self._name, self._description, self.boundaries, self._tag_keys)


def _record(metric: Any, tags: _Tags, value: float) -> None:
    global _changed
    _records.put((metric, tags, value))
    if not _changed:
        _changed = True
        _wake.put(None)
    if _writes.acquire(blocking=False):
        _thread.start_new_thread(_write_loop, ())  # threading.Thread takes locks of its own
    if _records.qsize() > _MANY:
        _add_up(wait=False)


def _write_loop() -> None:
    while True:
        _wake.get()
        while _changed:  # without a node it stays so
            time.sleep(_INTERVAL)
            flush()


def _add_up(wait: bool) -> List[Dict[str, Any]]:
    """Adds what was recorded to this process's numbers, which it gives. Without waiting, it is left to whoever does so now;
    so it is inside of itself."""
    global _adding
    if _adding == threading.get_ident() or not _lock.acquire(blocking=wait):
        return []
    try:
        _adding = threading.get_ident()
        while True:
            try:
                metric, tags, value = _records.get_nowait()
            except queue.Empty:
                break
            metric._add(tags, value)
        return [dict(entry) for entry in _own.values()]
    finally:
        _adding = 0
        _lock.release()


def flush() -> None:
    """Writes this process's numbers now, if they changed and a node is there to take them."""
    global _changed
    if not _changed or not _libray.is_initialized() or _adding == threading.get_ident():
        return
    _changed = False
    data = bytes(_libray.encode(_add_up(wait=True), False)[1])
    context = _libray.context()
    try:
        _libray.kv_put(_SPACE, f"{context['node']}/{context['pid']}".encode(), data, None)
    except Exception:  # the node is going; what it did not get is lost with it
        if _libray.is_initialized():
            raise


def _forget() -> None:
    """At the end of a runtime: the numbers of its job do not go into the next one."""
    flush()
    _add_up(wait=True)
    with _lock:
        _own.clear()


process.on_shutdown.append(_forget)
atexit.register(flush)


def collect() -> List[Dict[str, Any]]:
    """The metrics of all processes of the cluster: counters and histograms added up, gauges one per process (tag
    "pid"). Each is a dict with name, kind, help, tags, value (of a histogram: the sum), buckets and bounds."""
    _libray.ensure()
    flush()
    merged: Dict[Any, Dict[str, Any]] = {}
    for key in sorted(_libray.kv_list(_SPACE, b"")):
        found = _libray.kv_get(_SPACE, key)
        for entry in _libray.decode(found[0], 1) if found else ():
            if entry["kind"] == "gauge":
                entry["tags"] = {**entry["tags"], "pid": key.decode().split("/")[1]}
            same = merged.setdefault((entry["name"], tuple(sorted(entry["tags"].items()))), entry)
            if same is not entry:
                same["value"] += entry["value"]
                same["buckets"] = [a + b for a, b in zip(same.get("buckets", ()), entry.get("buckets", ()))]
    return [merged[key] for key in sorted(merged)]


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _labels(tags: Dict[str, str], **more: str) -> str:
    pairs = [f'{k}="{_escape(v)}"' for k, v in {**tags, **more}.items()]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def prometheus_text() -> str:
    """All metrics in Prometheus' text format; names have the prefix `ray_`, as Ray exports them."""
    lines: List[str] = []
    last = None
    for entry in collect():
        name = f"ray_{entry['name']}"
        if entry["kind"] == "counter" and not name.endswith("_total"):
            name += "_total"
        if name != last:
            lines += [f"# HELP {name} {_escape(entry['help'])}", f"# TYPE {name} {entry['kind']}"]
            last = name
        if entry["kind"] != "histogram":
            lines.append(f"{name}{_labels(entry['tags'])} {entry['value']}")
            continue
        seen = 0
        for bound, count in zip([*entry["bounds"], "+Inf"], entry["buckets"]):
            seen += count
            lines.append(f"{name}_bucket{_labels(entry['tags'], le=str(bound))} {seen}")
        lines.append(f"{name}_sum{_labels(entry['tags'])} {entry['value']}")
        lines.append(f"{name}_count{_labels(entry['tags'])} {seen}")
    return "\n".join(lines) + ("\n" if lines else "")
