"""`ray._private.state`: nodes, resources and the timeline."""

import json
from typing import Any, Dict, List, Optional

import libray
from libray import available_resources, cluster_resources, nodes
from libray.api.timeline import trace_events


def timeline(filename: Optional[str] = None) -> Optional[List[Dict[str, Any]]]:
    """Every execution as Chrome trace events, read from the control store; into a file when one is named."""
    if not libray.is_initialized():
        raise RuntimeError("Ray has not been started yet: there is no timeline before ray.init()")
    events = trace_events()
    if filename is None:
        return events
    with open(filename, "w") as file:
        json.dump(events, file)
    return None


def actors(actor_id: Optional[str] = None) -> Dict[str, Any]:
    """Actors by their id."""
    from libray.api import tables
    from ray.util.state import list_actors

    raw = {tables.text(row["actor"]): row for row in tables.rows("actors")}
    table = {
        row["actor_id"]: {
            "ActorID": row["actor_id"],
            "ActorClassName": row["class_name"],
            "State": row["state"],
            "Name": row["name"],
            "NodeID": row["node_id"],
            "Address": {"NodeID": row["node_id"], "IPAddress": "127.0.0.1", "WorkerID": ""},
            "Pid": row["pid"],
            **_times(raw.get(row["actor_id"], {})),
        }
        for row in list_actors(limit=10000)
    }
    return table.get(actor_id, {}) if actor_id else table


def _times(row: Dict[str, Any]) -> Dict[str, Any]:
    """When the actor began and ended (0: it lives), in milliseconds, and how often it was restarted."""
    dead = row.get("state") == "DEAD"
    return {
        "Timestamp": row.get("updated_ns", 0) // 10**6,
        "StartTime": row.get("created_ns", 0) // 10**6,
        "EndTime": row.get("updated_ns", 0) // 10**6 if dead else 0,
        "NumRestarts": row.get("incarnation", 0),
    }


def node_ids() -> List[str]:
    return [node["NodeID"] for node in nodes() if node["Alive"]]


def total_resources_per_node() -> Dict[str, Any]:
    return {node["NodeID"]: node["Resources"] for node in nodes()}


def available_resources_per_node() -> Dict[str, Any]:
    return {node["NodeID"]: available_resources() for node in nodes() if node["Alive"]}


class GlobalState:
    """`ray._private.state.state`."""

    node_table = staticmethod(nodes)
    cluster_resources = staticmethod(cluster_resources)
    available_resources = staticmethod(available_resources)
    actor_table = staticmethod(actors)

    def job_table(self) -> List[Dict[str, Any]]:
        return [dict(row) for row in libray._context._query("jobs")]

    def chrome_tracing_dump(self, filename: Optional[str] = None) -> Any:
        return timeline(filename)

    def get_system_config(self) -> Dict[str, Any]:
        return {}

    def _check_connected(self) -> None:
        if not libray.is_initialized():
            raise libray.exceptions.RaySystemError("Ray has not been started yet: call ray.init()")


state = GlobalState()
