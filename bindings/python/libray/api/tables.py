"""Rows of the control store for `ray.util.state`, `ray.timeline`, `libray.testing` and the names of actors. Any thread;
asks the node each time."""

from __future__ import annotations

from typing import Any, Dict, List

from .. import _libray

MAX_ROWS = 10_000


def text(value: Any) -> str:
    """An id as hexadecimal digits, whether it came as bytes or as text."""
    return value.hex() if isinstance(value, bytes) else str(value or "")


def object_text(core_id: Any) -> str:
    """The id of an object as its reference tells it (56 digits: the task's id, the index little endian)."""
    digits = text(core_id)
    index = int(digits[40:], 16)
    return digits[:40] + "0" * 8 + index.to_bytes(4, "little").hex()


def rows(what: str, **filters: Any) -> List[Dict[str, Any]]:
    """Rows of a table; the newest state that the shards know."""
    _libray.ensure()
    filters.setdefault("limit", MAX_ROWS)
    return [dict(r) for r in _libray.query(what, bytes(_libray.encode(filters, False)[1]))]


def _node_rows(what: str) -> List[Dict[str, Any]]:
    return [dict(r) for r in _libray.query(what, b"")]


def task_rows() -> List[Dict[str, Any]]:
    """Tasks; the name of an actor's call is that of its class and method. What runs is known to the node
    alone, the tables learn of a task when it is submitted and when it ends."""
    found = rows("tasks")
    running = {text(r["task"]): r for r in _node_rows("running")}
    for row in found:
        now = running.get(text(row["task"])) if row["state"] == "SUBMITTED" else None
        if now is not None:
            row.update(now, task=row["task"], state="RUNNING")
    classes = {text(r["actor"]): r["class"] for r in rows("actors")}
    for row in found:
        method = "__init__" if row["kind"] == "ACTOR_CREATE" else row["method"]
        if method:
            owner = classes.get(text(row["actor"])) or row["name"]
            row["name"] = f"{owner}.{method}"
    return found


def namespace() -> str:
    """The namespace of the running job."""
    own = _libray.context()["job"]
    return next((str(row["ns"]) for row in rows("jobs") if text(row["job"]) == own), "")
