"""Where the running code stands (`get_runtime_context`), and what the cluster has. Called by programs on any thread;
nothing is kept: ids come from the extension, the rest from the node."""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any, Dict, List, Optional

from .. import _libray
from ..core import accelerators, ids as _ids, import_ray, own_actor, process, runtime_env as _runtime_env
from ..exceptions import RaySystemError
from . import placement as _placement
from .actor import current_actor


def _worker_only(what: str) -> bool:
    """Tells a driver that asks for something that only a task has."""
    if _libray.is_worker():
        return True
    import logging

    logging.getLogger("ray.runtime_context").warning(
        "This method is only available when the process is a worker. Current mode: driver (%s)",
        what,
    )
    return False


def _own_actor() -> Optional[str]:
    if not _libray.is_worker():
        return None
    return own_actor.own_actor()


class RuntimeContext:
    """Where the running code stands: ids as hexadecimal digits, names, resources."""

    @staticmethod
    def _need(what: str) -> None:
        if not _libray.is_initialized():
            raise AssertionError(
                f"{what} is not available because Ray has not been initialized: call init() first."
            )

    def get_job_id(self) -> str:
        """Id of the job: of the driver that all of this began with."""
        self._need("Job ID")
        return str(_libray.context()["job"])

    def get_node_id(self) -> str:
        """Id of the node that this process is on."""
        self._need("Node ID")
        return str(_libray.context()["node"])

    def get_worker_id(self) -> str:
        """Id of this process."""
        self._need("Worker ID")
        context = _libray.context()
        return _ids.worker_id(context["node"], context["worker"])

    def get_task_id(self) -> Optional[str]:
        """Id of the running task; None in a driver. """
        if not _worker_only("get_task_id"):
            return None
        own: Optional[str] = _libray.context()["task"]
        if own is None:  # a thread that the task started: it is clear whose when only one runs
            mode = own_actor.mode
            alone = mode.concurrency == 1 and not mode.is_async and not mode.groups
            task = _libray._current_task() if alone else None
            own = None if task is None else task[4].hex()
        return own

    def get_task_name(self) -> Optional[str]:
        """Name of the running task: that of its options, else of its function or method."""
        task = _libray._current_task() if _worker_only("get_task_name") else None
        return None if task is None else task[0]

    def get_task_function_name(self) -> Optional[str]:
        """Module and name of the running function, or of the class and the method."""
        task = _libray._current_task() if _worker_only("get_task_function_name") else None
        if task is None:
            return None
        return f"{task[1]}.{task[2]}" if task[2] else task[1]

    def get_actor_id(self) -> Optional[str]:
        """Id of the actor that this process is; None elsewhere."""
        return _own_actor() if _worker_only("get_actor_id") else None

    @property
    def runtime_env(self) -> Any:
        """The environment of this process: the job's, with that of the task or actor on top."""
        known = sys.modules.get("ray.runtime_env")  # there once `import ray` means libray
        current = _runtime_env.current()
        return known.RuntimeEnv(_validate=False, **current) if known is not None else current

    def get_runtime_env_string(self) -> str:
        """The same as JSON."""
        return _runtime_env.describe()

    @property
    def namespace(self) -> str:
        """Namespace of this job's named actors."""
        from . import tables

        return tables.namespace()

    def get_actor_name(self) -> Optional[str]:
        """Name of the actor that this process is, "" when it has none; None elsewhere."""
        if not _worker_only("get_actor_name") or self.get_actor_id() is None:
            return None
        return own_actor.mode.name

    @property
    def current_actor(self) -> Any:
        """A handle of the actor that this process is."""
        if _own_actor() is None:
            raise RuntimeError("This method is only available in an actor.")
        return current_actor()

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the actor that this process is was restarted."""
        if _own_actor() is None:
            raise RuntimeError("This method is only available in an actor.")
        return own_actor.mode.incarnation > 0

    def get_assigned_resources(self) -> Dict[str, float]:
        """What this task or actor holds: {"CPU": 1.0} for a task that asks for nothing, {} for such
        an actor. Asks the node."""
        assert _libray.is_worker(), (
            "This method is only available when the process is a worker. Current mode: driver"
        )
        own = _libray.context()["worker"]
        held = next((row["resources"] for row in _query("workers") if row["worker"] == own), {})
        return {name: float(amount) for name, amount in held.items()}

    def get_accelerator_ids(self) -> Dict[str, List[str]]:
        """Ids of the accelerators assigned to this task or actor, by resource: {"GPU": ["0"], ...}.
        Libraries that go by CUDA_VISIBLE_DEVICES, TPU_VISIBLE_CHIPS and the like see only those."""
        self._need("Accelerator ids")
        return accelerators.accelerator_ids()

    def get_resource_ids(self) -> Dict[str, List[str]]:
        """The older name of `get_accelerator_ids`."""
        return self.get_accelerator_ids()

    def get_session_name(self) -> str:
        """Name of this cluster's session directory."""
        self._need("Session name")
        return os.path.basename(process.session_dir())

    def get_temp_dir(self) -> str:
        """Directory that holds the session's directory."""
        self._need("Temp directory")
        return os.path.dirname(process.session_dir())

    def get_node_labels(self) -> Dict[str, str]:
        """Labels of the node: what init() was given, and its id."""
        return _placement.node_labels()

    @property
    def job_id(self) -> _ids.JobID:
        _old("job_id")
        return _ids.JobID.from_hex(self.get_job_id())

    @property
    def node_id(self) -> _ids.NodeID:
        _old("node_id")
        return _ids.NodeID.from_hex(self.get_node_id())

    @property
    def task_id(self) -> Optional[_ids.TaskID]:
        _old("task_id")
        task = self.get_task_id()
        return _ids.TaskID.from_hex(task) if task else None

    @property
    def actor_id(self) -> Optional[_ids.ActorID]:
        _old("actor_id")
        actor = self.get_actor_id()
        return _ids.ActorID.from_hex(actor) if actor else None

    @property
    def current_placement_group_id(self) -> Any:
        _old("placement_group_id")
        group = _placement.get_current_placement_group()
        return _placement.PlacementGroupID.nil() if group is None else group.id

    def get_placement_group_id(self) -> Optional[str]:
        """Id of the placement group that the running task or actor is in; None elsewhere."""
        group = _placement.get_current_placement_group()
        return None if group is None else str(group.id.hex())

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether what the running task submits is placed in its group by itself."""
        return _placement.current_captures()

    @property
    def gcs_address(self) -> str:
        return process.session_dir()

    @property
    def worker(self) -> Any:
        """Ray's own worker object, of which libraries read the mode."""
        known = sys.modules.get("ray._private.worker")  # there once `import ray` means libray
        if known is None:
            raise AttributeError("the object `worker` is there in programs that import ray")
        return known.global_worker

    def is_canceled(self) -> bool:
        """Whether the task that this thread runs was cancelled: look at it in long loops."""
        if not _libray.is_worker():
            raise RuntimeError("is_canceled is only available inside a task: this is a driver")
        return bool(_libray._main_task_cancelled())

    def get(self) -> Dict[str, Any]:
        """The ids as one dict: job, node and namespace, in a task also task and actor."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            out: Dict[str, Any] = {"job_id": self.job_id, "node_id": self.node_id}
            out["namespace"] = self.namespace
            if _libray.is_worker():
                for name in ("task_id", "actor_id"):
                    if getattr(self, name) is not None:
                        out[name] = getattr(self, name)
        return out


def _old(name: str) -> None:
    """The properties with ids as objects are those of an older Ray."""
    warnings.warn(f"Use get_{name}() instead", DeprecationWarning, stacklevel=3)


def ref_info(ref: Any, what: str) -> Any:
    """Called by ObjectRef.task_id(), job_id() and owner_address()."""
    if what == "task":
        return _ids.TaskID(ref.binary()[: _ids.SIZE])
    if what == "job":
        return _ids.JobID.from_hex(_libray.context()["job"])
    return b""


def get_runtime_context() -> RuntimeContext:
    """Where the calling code stands. It starts nothing: what needs a cluster says so when there is none."""
    return RuntimeContext()


def _query(what: str, **filters: Any) -> Any:
    _libray.ensure()
    return _libray.query(what, bytes(_libray.encode(filters, False)[1]) if filters else b"")


def _need_running() -> None:
    if not _libray.is_initialized():
        raise RaySystemError(
            import_ray.named(
                "Ray has not been started yet. Trying to use state API before libray.init() has been called."
            )
        )


def cluster_resources() -> Dict[str, float]:
    """All resources of the cluster."""
    _need_running()
    out = {name: float(amount) for name, amount in _query("resources").items() if amount}
    return out if _in_cluster() else {**out, "object_store_memory": float(_store_bytes())}


def _in_cluster() -> bool:
    """Whether the node was started as one of several: then each has said what its store holds."""
    return os.path.exists(os.path.join(process.session_dir(), "cluster.json"))


def _store_bytes() -> int:
    """How much the node's store holds at most."""
    try:
        with open(os.path.join(process.session_dir(), "session.json")) as file:
            return int(json.load(file)["store_bytes"])
    except (OSError, ValueError, KeyError):
        return 0


def available_resources() -> Dict[str, float]:
    """Resources that nobody holds now. In a cluster, `object_store_memory` is less by what the own node's store uses, and
    not by what those of other nodes do (docs/cluster.md)."""
    _need_running()
    out = {name: float(amount) for name, amount in _query("available").items() if amount}
    used = sum(row.get("size", row.get("bytes", 0)) for row in _query("store"))
    store = out.get("object_store_memory", 0.0) if _in_cluster() else _store_bytes()
    return {**out, "object_store_memory": float(max(store - used, 0))}


_PORTS = (
    "NodeManagerPort",
    "ObjectManagerPort",
    "MetricsExportPort",
    "MetricsAgentPort",
    "RuntimeEnvAgentPort",
    "DashboardAgentListenPort",
)


def _host_of(address: str) -> str:
    """Of HOST:PORT, as the head of a cluster has it, the host."""
    host, colon, port = address.rpartition(":")
    return host if colon and port.isdigit() and not host.endswith(":") else address


def nodes() -> List[Dict[str, Any]]:
    """One dict per node; of a cluster, those that are dead too."""
    _need_running()
    out: Dict[str, Dict[str, Any]] = {}  # every shard of the control store may tell of a node
    for row in _query("nodes"):
        row = dict(row)
        node = row.get("id", row.get("node", ""))
        row["NodeID"] = node.hex() if isinstance(node, bytes) else str(node)
        row["Alive"] = bool(row.get("alive", row.get("state", "ALIVE") in ("ALIVE", "alive", 1)))
        row["Resources"] = {k: float(v) for k, v in dict(row.get("resources") or {}).items()}
        row["NodeManagerAddress"] = _host_of(str(row.get("address") or "127.0.0.1"))
        row["NodeManagerHostname"] = row["NodeName"] = str(row.get("host") or os.uname().nodename)
        session = str(row.get("session") or process.session_dir())
        row["RayletSocketName"] = os.path.join(session, "node.sock")
        row["ObjectStoreSocketName"] = os.path.join(session, "store.sock")
        for port in _PORTS:  # libray opens none
            row[port] = 0
        row["alive"] = row["Alive"]
        row["DeathReason"], row["DeathReasonMessage"] = 0, str(row.get("cause") or "")
        row["Labels"] = row["labels"] = row["labels"] if "labels" in row else _placement.node_labels()
        out[row["NodeID"]] = row
    return list(out.values())
