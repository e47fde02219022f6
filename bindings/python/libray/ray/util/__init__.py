"""`ray.util`."""

from typing import Any, List

from ray._private.services import get_node_instance_id, get_node_ip_address
from ray.util import accelerators, iter
from ray.util.actor_pool import ActorPool
from ray.util.check_serialize import inspect_serializability
from ray.util.debug import disable_log_once_globally, enable_periodic_logging, log_once
from ray.util.helpers import as_completed, map_unordered
from ray.util.placement_group import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.serialization import deregister_serializer, register_serializer

__all__ = [
    "ActorPool",
    "accelerators",
    "as_completed",
    "connect",
    "deregister_serializer",
    "disable_log_once_globally",
    "disconnect",
    "enable_periodic_logging",
    "get_current_placement_group",
    "get_node_instance_id",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "iter",
    "list_named_actors",
    "log_once",
    "map_unordered",
    "placement_group",
    "placement_group_table",
    "register_serializer",
    "remove_placement_group",
]


def list_named_actors(all_namespaces: bool = False) -> List[Any]:
    """Names of the living actors of this namespace, or of all as `{"name", "namespace"}`."""
    from libray.api.control import named_actors

    return named_actors(all_namespaces)


def connect(conn_str: str, **kwargs: Any) -> Any:
    raise NotImplementedError("libray has no thin client: use ray.init(address=<session directory>)")


def disconnect() -> None:
    import ray

    ray.shutdown()


def __getattr__(name: str) -> Any:
    import importlib

    if name in ("pdb", "rpdb", "debugpy", "ray_debugpy"):
        return importlib.import_module("ray.util.rpdb")
    if name in _LATE:
        return importlib.import_module(f"ray.util.{name}")
    raise AttributeError(f"module 'ray.util' has no attribute {name!r}")


_LATE = (
    "actor_group annotations client collective dask joblib metrics multiprocessing queue scheduling_strategies "
    "state tracing"
).split()
