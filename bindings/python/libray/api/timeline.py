"""Executions of tasks as Chrome trace events, from the control store. Called by `ray.timeline`."""

from __future__ import annotations

from typing import Any, Dict, List

from . import tables


def trace_events() -> List[Dict[str, Any]]:
    """One complete event ("ph": "X") per finished execution: processes are nodes, threads are workers."""
    events: List[Dict[str, Any]] = []
    for row in tables.task_rows():
        start, end = row["start_ns"], row["end_ns"]
        if not start or not end:
            continue
        events.append(
            {
                "cat": f"task::{row['name']}",
                "ph": "X",
                "name": row["name"],
                "pid": f"Node {row['node']}",
                "tid": f"worker:{row['pid']}",
                "ts": start / 1000,
                "dur": (end - start) / 1000,
                "cname": "generic_work" if row["state"] == "FINISHED" else "terrible",
                "args": {
                    "task_id": row["task"],
                    "job_id": row.get("job"),
                    "attempt_number": row["attempt"],
                    "state": row["state"],
                    "name": row["name"],
                },
            }
        )
    return events
