"""Where the running code stands, and what the cluster has."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from . import _core, _libray


class RuntimeContext:
    """Ids of the running job, node, worker, task and actor, as hexadecimal digits."""

    def get_job_id(self) -> str:
        return str(_libray.context()["job"])

    def get_node_id(self) -> str:
        return str(_libray.context()["node"])

    def get_worker_id(self) -> str:
        return str(_libray.context()["worker"])

    def get_task_id(self) -> Optional[str]:
        return _libray.context()["task"] if _libray.is_worker() else None

    def get_actor_id(self) -> Optional[str]:
        return _libray.context()["actor"]

    @property
    def gcs_address(self) -> str:
        return _core._context["session_dir"] if _core._context is not None else ""

    def is_canceled(self) -> bool:
        """Whether the task that this thread runs was cancelled: look at it in long loops."""
        return bool(_libray._main_task_cancelled())

    def get(self) -> Dict[str, Any]:
        return dict(_libray.context())


def get_runtime_context() -> RuntimeContext:
    _core.ensure()
    return RuntimeContext()


def _query(what: str, **filters: Any) -> Any:
    _core.ensure()
    return _libray.query(what, bytes(_libray.encode(filters, False)[1]) if filters else b"")


def cluster_resources() -> Dict[str, float]:
    """All resources of the cluster."""
    return {name: float(amount) for name, amount in _query("resources").items()}


def available_resources() -> Dict[str, float]:
    """Resources that nobody holds now."""
    return {name: float(amount) for name, amount in _query("available").items() if amount}


def nodes() -> List[Dict[str, Any]]:
    """One dict per node."""
    out: Dict[str, Dict[str, Any]] = {}  # every shard of the control store may tell of a node
    for row in _query("nodes"):
        row = dict(row)
        node = row.get("id", row.get("node", ""))
        row["NodeID"] = node.hex() if isinstance(node, bytes) else str(node)
        row["Alive"] = bool(row.get("alive", row.get("state", "ALIVE") in ("ALIVE", "alive", 1)))
        row["Resources"] = {k: float(v) for k, v in dict(row.get("resources") or {}).items()}
        row.setdefault("NodeManagerAddress", "127.0.0.1")
        out[row["NodeID"]] = row
    return list(out.values())
