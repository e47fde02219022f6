"""What a test needs to know: what exists, who holds it, what runs. Answers come from this process (`ref_count`,
`fault`, `encode`), from the node as it is now (`workers`, `store`, `store_bytes`, `object_exists`) or from the control
store, which may be a second behind (`actors`, `actor_state`, `tasks`). May change in any release."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Optional

from . import _libray
from .api import tables


def ref_count(ref: Any) -> int:
    """References that this process holds to the object."""
    return int(_libray.ref_count(ref))


def object_exists(ref: Any) -> bool:
    """Whether the object (a value or an error) is there to be read at once."""
    return bool(_libray.wait([ref], timeout=0)[0])


def in_store(ref: Any) -> bool:
    """Whether the node's shared memory, or its spill folder, holds the object. Small values never go there."""
    return any(row["id"] == ref.hex() for row in store())


def store() -> List[Dict[str, Any]]:
    """Objects in shared memory: id, size, state, pins, spilled."""
    return [{**row, "id": tables.object_text(row["id"])} for row in tables.rows("store")]


def store_bytes() -> int:
    """Bytes of the objects in shared memory that are not spilled."""
    return sum(int(row["size"]) for row in store() if not row.get("spilled"))


def workers() -> List[Dict[str, Any]]:
    """Processes of the node: pid, kind ("driver" or "worker"), state, job, actor."""
    return tables.rows("workers")


def actors() -> Dict[str, str]:
    """State of each actor by its id: PENDING, ALIVE, RESTARTING or DEAD."""
    return {tables.text(row["actor"]): str(row["state"]) for row in tables.rows("actors")}


def actor_state(handle: Any) -> Optional[str]:
    """State of one actor; None while the control store does not know it."""
    return actors().get(object.__getattribute__(handle, "_actor_id_hex"))


def tasks(name: Optional[str] = None, state: Optional[str] = None) -> List[Dict[str, Any]]:
    """Tasks and actor calls, of that function and in that state if given. `name` may be without the module."""
    found = tables.task_rows()
    return [
        row
        for row in found
        if (name is None or row["name"] == name or row["name"].endswith("." + name))
        and (state is None or row["state"] == state)
    ]


def wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Calls `condition` until it is true and returns what it gave; AssertionError when that never happens."""
    import gc

    deadline = time.monotonic() + seconds
    while True:
        gc.collect()
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"the condition did not become true within {seconds} s")
        time.sleep(0.01)


def fault(point: str, action: str = "") -> None:
    """Arms a fault point of this process ("kill", "stop", "delay:5ms", "fail", "@N"); empty
    disarms."""
    _libray.test_fault(point, action)


def encode(value: Any) -> Any:
    """(format, bytes, number of out-of-band buffers, number of references) of a value."""
    return _libray.encode(value, True)
