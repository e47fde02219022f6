"""`list_*`, `get_*` and `summarize_*`: rows of the control store in Ray's words. They may be a second behind, and
know dead actors, failed tasks and freed objects as well as living ones."""

import os
from collections import Counter
from typing import Any, Dict, Iterator, List, Optional

import libray
from libray import _libray
from libray.api import tables
from libray.core import process
from ray.util.state import common
from ray.util.state.common import DEFAULT_LIMIT, DEFAULT_RPC_TIMEOUT, Filter

_KINDS = {
    "TASK": "NORMAL_TASK",
    "ACTOR_CREATE": "ACTOR_CREATION_TASK",
    "ACTOR_CALL": "ACTOR_TASK",
}
_TASK_STATES = {
    "SUBMITTED": "PENDING_NODE_ASSIGNMENT",
    "PENDING": "PENDING_NODE_ASSIGNMENT",
    "CANCELLED": "FAILED",
}


def _ms(ns: Any) -> Optional[int]:
    return None if not ns else int(ns) // 1_000_000


def _short(name: Any, parts: int = 1) -> str:
    """A name without its module: the last `parts` of it."""
    return ".".join(str(name or "").split(".")[-parts:])


def _actor(row: Dict[str, Any]) -> Dict[str, Any]:
    return {
        "actor_id": tables.text(row["actor"]),
        "class_name": _short(row["class"]),
        "state": {"PENDING": "PENDING_CREATION"}.get(row["state"], row["state"]),
        "job_id": tables.text(row["job"]),
        "name": row["name"] or "",
        "node_id": tables.text(row["node"]),
        "pid": row.get("pid") or 0,
        "ray_namespace": row["ns"],
        "is_detached": bool(row["lifetime"]),
        "num_restarts": str(row["incarnation"]),
        "death_cause": row.get("cause") or None,
        "repr_name": "",
    }


def _task(row: Dict[str, Any]) -> Dict[str, Any]:
    kind = _KINDS.get(row["kind"], row["kind"])
    name = _short(row["name"], 1 if kind == "NORMAL_TASK" else 2)
    return {
        "task_id": tables.text(row["task"]),
        "attempt_number": row["attempt"],
        "name": name,
        "func_or_class_name": name,
        "state": _TASK_STATES.get(row["state"], row["state"]),
        "type": kind,
        "actor_id": tables.text(row["actor"]) or None,
        "parent_task_id": tables.text(row["parent"]),
        "node_id": tables.text(row["node"]) or None,
        "worker_id": row["worker"],
        "worker_pid": row["pid"],
        "error_type": None if row["code"] in ("OK", None) else row["code"],
        "error_message": row["error"],
        "creation_time_ms": _ms(row["submit_ns"]),
        "start_time_ms": _ms(row["start_ns"]),
        "end_time_ms": _ms(row["end_ns"]),
    }


def _object_rows() -> List[Dict[str, Any]]:
    """Results of tasks from the control store, and what else the node's store holds: objects that were put."""
    rows = tables.rows("objects")
    known = {tables.text(row["object"]) for row in rows}
    node = next((n["NodeID"] for n in libray.nodes()), "")
    for row in tables.rows("store"):
        if tables.text(row["id"]) not in known:
            held = {"object": row["id"], "size": row["size"], "state": "READY", "producer": ""}
            rows.append({**held, "in_store": True, "node": node})
    return rows


def _object(row: Dict[str, Any]) -> Dict[str, Any]:
    return {
        "object_id": tables.object_text(row["object"]),
        "object_size": row["size"] if row["size"] is not None else -1,
        "task_status": "FINISHED" if row["state"] == "READY" else row["state"],
        "state": row["state"],
        "producer": tables.text(row["producer"]),
        "reference_type": "IN_STORE" if row["in_store"] else "INLINE",
        "node_id": tables.text(row["node"]),
    }


def _node(row: Dict[str, Any]) -> Dict[str, Any]:
    return {
        "node_id": row["NodeID"],
        "node_ip": row.get("NodeManagerAddress", "127.0.0.1"),
        "is_head_node": True,
        "state": "ALIVE" if row["Alive"] else "DEAD",
        "node_name": row.get("NodeName", row.get("NodeManagerAddress", "")),
        "resources_total": row["Resources"],
        "labels": row.get("Labels", {}),
        "start_time_ms": _ms(row.get("start_ns")),
    }


def _worker(row: Dict[str, Any]) -> Dict[str, Any]:
    return {
        "worker_id": str(row["worker"]),
        "is_alive": row["state"] != "dead",
        "worker_type": "DRIVER" if row["kind"] == "driver" else "WORKER",
        "pid": row["pid"],
        "state": row["state"],
        "job_id": tables.text(row["job"]),
        "actor_id": tables.text(row["actor"]),
        "exit_type": None,
    }


def _job(row: Dict[str, Any]) -> Dict[str, Any]:
    status = {"FINISHED": "SUCCEEDED"}.get(row["state"], row["state"])
    return {
        "job_id": tables.text(row["job"]),
        "type": "DRIVER",
        "status": status,
        "state": status,
        "entrypoint": row["name"],
        "ray_namespace": row["ns"],
        "start_time": _ms(row.get("created_ns")),
    }


def _event(row: Dict[str, Any]) -> Dict[str, Any]:
    return {"time": row["time"], "source_type": "NODE", "node_id": row["node"], "message": row["info"]}


def _placement_group(row: Dict[str, Any]) -> Dict[str, Any]:
    return {
        "placement_group_id": row["placement_group_id"],
        "name": row["name"],
        "state": row["state"],
        "bundles": row["bundles"],
        "stats": row.get("stats"),
    }


def _groups() -> List[Dict[str, Any]]:
    from ray.util.placement_group import placement_group_table

    return list(placement_group_table().values())


_TABLES: Dict[str, Any] = {
    "actors": (lambda: tables.rows("actors"), _actor, common.ActorState, "actor_id"),
    "tasks": (tables.task_rows, _task, common.TaskState, "task_id"),
    "objects": (_object_rows, _object, common.ObjectState, "object_id"),
    "nodes": (libray.nodes, _node, common.NodeState, "node_id"),
    "workers": (lambda: tables.rows("workers"), _worker, common.WorkerState, "worker_id"),
    "jobs": (lambda: tables.rows("jobs"), _job, common.JobState, "job_id"),
    "events": (lambda: tables.rows("events"), _event, common.ClusterEventState, "time"),
    "placement_groups": (_groups, _placement_group, common.PlacementGroupState, "placement_group_id"),
}


def _list(what: str, filters: Optional[List[Filter]], limit: int) -> List[Any]:
    source, convert, schema, _ = _TABLES[what]
    limit = common.check_limit(limit)
    _libray.ensure()
    rows = [convert(row) for row in source()]
    checked = common.check_filters(filters, list(rows[0]) if rows else ())
    return [schema(row) for row in rows if common.matches(row, checked)][:limit]


def _get(what: str, id: str) -> Any:
    found = _list(what, [(_TABLES[what][3], "=", id)], common.RAY_MAX_LIMIT_FROM_API_SERVER)
    return found[0] if found else None


def _lister(what: str, doc: str) -> Any:
    def lister(
        address: Optional[str] = None,
        filters: Optional[List[Filter]] = None,
        limit: int = DEFAULT_LIMIT,
        timeout: int = DEFAULT_RPC_TIMEOUT,
        detail: bool = False,
        raise_on_missing_output: bool = True,
        _explain: bool = False,
    ) -> List[Any]:
        return _list(what, filters, limit)

    lister.__name__ = lister.__qualname__ = f"list_{what}"
    lister.__doc__ = doc
    return lister


list_actors = _lister("actors", "Actors, living and dead.")
list_tasks = _lister("tasks", "Tasks and actor calls with their latest attempt.")
list_objects = _lister("objects", "Objects that tasks returned, and those in the store that were put.")
list_nodes = _lister("nodes", "Nodes.")
list_workers = _lister("workers", "Worker processes and drivers.")
list_jobs = _lister("jobs", "Jobs.")
list_placement_groups = _lister("placement_groups", "Placement groups.")


def list_runtime_envs(*args: Any, **kwargs: Any) -> List[Any]:
    """Always empty: libray keeps no environments for later use."""
    return []


def list_cluster_events(*args: Any, **kwargs: Any) -> List[Any]:
    """What happened to actors and workers."""
    return _list("events", None, common.RAY_MAX_LIMIT_FROM_API_SERVER)


def get_actor(id: str, address: Any = None, timeout: Any = None, _explain: bool = False) -> Any:
    return _get("actors", id)


def get_node(id: str, address: Any = None, timeout: Any = None, _explain: bool = False) -> Any:
    return _get("nodes", id)


def get_job(id: str, address: Any = None, timeout: Any = None, _explain: bool = False) -> Any:
    return _get("jobs", id)


def get_worker(id: str, address: Any = None, timeout: Any = None, _explain: bool = False) -> Any:
    return _get("workers", id)


def get_placement_group(
    id: str, address: Any = None, timeout: Any = None, _explain: bool = False
) -> Any:
    return _get("placement_groups", id)


def get_task(id: Any, address: Any = None, timeout: Any = None, _explain: bool = False) -> Any:
    """The task of an id or of a reference."""
    if hasattr(id, "task_id"):
        task = id.task_id()
        id = task if isinstance(task, str) else task.hex()
    found = _list("tasks", [("task_id", "=", id)], common.RAY_MAX_LIMIT_FROM_API_SERVER)
    return found if len(found) > 1 else (found[0] if found else None)


def get_objects(id: str, address: Any = None, timeout: Any = None, _explain: bool = False) -> Any:
    return _list("objects", [("object_id", "=", id)], common.RAY_MAX_LIMIT_FROM_API_SERVER)


def _log_folder() -> str:
    _libray.ensure()
    assert process.session
    return os.path.join(process.session, "logs")


def list_logs(
    address: Any = None,
    node_id: Any = None,
    node_ip: Any = None,
    glob_filter: Optional[str] = None,
    timeout: Any = None,
) -> Dict[str, List[str]]:
    """Log files of the session by kind."""
    import fnmatch

    found: Dict[str, List[str]] = {}
    for name in sorted(os.listdir(_log_folder())):
        if glob_filter is None or fnmatch.fnmatch(name, glob_filter):
            kind = name.split("-")[0].split(".")[0]
            found.setdefault(kind, []).append(name)
    return found


def get_log(
    address: Any = None,
    node_id: Any = None,
    node_ip: Any = None,
    filename: Optional[str] = None,
    actor_id: Any = None,
    task_id: Any = None,
    pid: Optional[int] = None,
    follow: bool = False,
    tail: int = -1,
    timeout: Any = None,
    suffix: str = "out",
    encoding: Optional[str] = "utf-8",
    errors: Optional[str] = "strict",
    **ignored: Any,
) -> Iterator[str]:
    """The text of a log file; `tail` lines from its end, -1 for all."""
    if filename is None:
        raise NotImplementedError("libray finds logs by file name: see list_logs(), or `libray logs`")
    if follow:
        raise NotImplementedError("to follow a log, use `libray logs -f`")
    path = os.path.join(_log_folder(), os.path.basename(filename))
    with open(path, encoding=encoding, errors=errors) as file:
        lines = file.readlines()
    yield "".join(lines if tail < 0 else lines[-tail:] if tail else [])


def _summary(rows: List[Any], key: str, *more: str) -> Dict[str, Any]:
    groups: Dict[str, Any] = {}
    for row in rows:
        group = groups.setdefault(row[key], {key: row[key], "state_counts": Counter()})
        group["state_counts"][row["state"]] += 1
        for column in more:
            group[column] = row[column]
    for group in groups.values():
        group["state_counts"] = dict(group["state_counts"])
    return groups


def _cluster(summary: Dict[str, Any], **totals: Any) -> Dict[str, Any]:
    return {"cluster": {"summary": summary, **totals}}


def summarize_tasks(*args: Any, **kwargs: Any) -> Dict[str, Any]:
    """Tasks by function and state."""
    rows = _list("tasks", None, common.RAY_MAX_LIMIT_FROM_API_SERVER)
    kinds = Counter(row["type"] for row in rows)
    return _cluster(
        _summary(rows, "func_or_class_name", "type"),
        total_tasks=kinds["NORMAL_TASK"],
        total_actor_tasks=kinds["ACTOR_TASK"],
        total_actor_scheduled=kinds["ACTOR_CREATION_TASK"],
        summary_by="func_name",
    )


def summarize_actors(*args: Any, **kwargs: Any) -> Dict[str, Any]:
    """Actors by class and state."""
    rows = _list("actors", None, common.RAY_MAX_LIMIT_FROM_API_SERVER)
    return _cluster(
        _summary(rows, "class_name"), total_actors=len(rows), summary_by="class"
    )


def summarize_objects(*args: Any, **kwargs: Any) -> Dict[str, Any]:
    """Objects by state."""
    rows = _list("objects", None, common.RAY_MAX_LIMIT_FROM_API_SERVER)
    size = sum(max(row["object_size"], 0) for row in rows)
    return _cluster(
        _summary(rows, "state"),
        total_objects=len(rows),
        total_size_mb=size / 2**20,
        callsite_enabled=False,
        summary_by="callsite",
    )


class StateApiClient:
    """`list(resource, options)` as the functions above."""

    def __init__(self, address: Optional[str] = None, **ignored: Any) -> None:
        self.address = address

    def list(self, resource: Any, options: Any = None, **ignored: Any) -> List[Any]:
        name = getattr(resource, "value", resource)
        return _list(
            name, getattr(options, "filters", None), getattr(options, "limit", DEFAULT_LIMIT)
        )
