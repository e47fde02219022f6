"""`ray._private.worker`: `init` with Ray's keywords, and `global_worker` for those who ask it where they are."""

from typing import Any, List

import cloudpickle as pickle  # noqa: F401
import libray
from libray import (
    cancel,
    get,
    get_actor,
    is_initialized,
    kill,
    put,
    remote,
    shutdown,
    wait,
)
from libray import _libray
from libray.core import process
from libray.driver import start
from libray.driver.start import RayContext, init
from libray.core.accelerators import get_gpu_ids
from ray._raylet import ActorID, JobID, NodeID, TaskID, WorkerID

SCRIPT_MODE, WORKER_MODE, LOCAL_MODE, SPILL_WORKER_MODE, RESTORE_WORKER_MODE = 0, 1, 2, 3, 4
BaseContext = RayContext


class Worker:
    """Where this process stands, in the words of Ray's own worker object."""

    @property
    def mode(self) -> Any:
        if not libray.is_initialized():
            return None
        if process.local_mode:
            return LOCAL_MODE
        return WORKER_MODE if _libray.is_worker() else SCRIPT_MODE

    @property
    def connected(self) -> bool:
        return libray.is_initialized()

    def check_connected(self) -> None:
        if not self.connected:
            raise libray.exceptions.RaySystemError("Ray has not been started yet: call ray.init()")

    def _id(self, kind: Any, key: str) -> Any:
        value = _libray.context()[key] if self.connected else None
        return kind(bytes.fromhex(value)) if isinstance(value, str) and value else kind.nil()

    @property
    def current_job_id(self) -> JobID:
        return self._id(JobID, "job")

    @property
    def current_task_id(self) -> TaskID:
        return self._id(TaskID, "task")

    @property
    def current_node_id(self) -> NodeID:
        return self._id(NodeID, "node")

    @property
    def actor_id(self) -> ActorID:
        return self._id(ActorID, "actor")

    @property
    def worker_id(self) -> bytes:
        value = _libray.context()["worker"]
        return bytes.fromhex(value) if isinstance(value, str) else str(value).encode()

    @property
    def namespace(self) -> str:
        return libray.get_runtime_context().namespace

    @property
    def runtime_env(self) -> dict:
        return dict(getattr(libray.get_runtime_context(), "runtime_env", None) or {})

    @property
    def node(self) -> "Worker":
        return self

    @property
    def node_ip_address(self) -> str:
        return "127.0.0.1"

    @property
    def address_info(self) -> Any:
        context = start.running_context()
        return dict(context.address_info) if context is not None else {}

    def get_session_dir_path(self) -> str:
        return self.address_info.get("session_dir", "")

    @property
    def gcs_client(self) -> Any:
        from ray._private.gcs_utils import GcsClient

        return GcsClient()

    @property
    def core_worker(self) -> "CoreWorkerView":
        return CoreWorkerView()

    def get_serialization_context(self) -> Any:
        from ray._private.serialization import SerializationContext

        return SerializationContext()

    def get_objects(self, object_refs: Any, timeout: Any = None) -> Any:
        return get(object_refs, timeout=timeout), b""

    def put_object(self, value: Any, **ignored: Any) -> Any:
        return put(value)

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        return False

    @property
    def placement_group_id(self) -> Any:
        from ray._raylet import PlacementGroupID
        from ray.util.placement_group import get_current_placement_group

        group = get_current_placement_group()
        return group.id if group is not None else PlacementGroupID.nil()


class CoreWorkerView:
    """The questions that tests put to Ray's core worker, and that libray can answer."""

    def get_actor_id(self) -> ActorID:
        return global_worker.actor_id

    def get_current_task_id(self) -> TaskID:
        return global_worker.current_task_id

    def get_current_job_id(self) -> JobID:
        return global_worker.current_job_id

    def get_current_node_id(self) -> NodeID:
        return global_worker.current_node_id

    def get_worker_id(self) -> WorkerID:
        return global_worker._id(WorkerID, "worker")

    def object_exists(self, object_ref: Any, memory_store_only: bool = False) -> bool:
        return bool(_libray.wait([object_ref], timeout=0)[0])

    def get_all_reference_counts(self) -> dict:
        """By the id's digits: how many references this process has ("local"), how many its tasks hold ("submitted")."""
        from libray.api import tables

        return {
            tables.object_text(row["object"]).encode(): {
                "local": row["count"] - row["by_tasks"] - row["by_results"] - row["by_values"],
                "submitted": row["by_tasks"],
            }
            for row in _libray.query("references", b"")
        }


global_worker = Worker()


class _GlobalNode:
    """`ray._private.worker._global_node`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(global_worker, name)


_global_node = _GlobalNode()


async def _wait_async(
    ray_waitables: List[Any],
    *,
    num_returns: int = 1,
    timeout: Any = None,
    fetch_local: bool = True,
) -> Any:
    """`wait` for a coroutine: the loop goes on meanwhile."""
    import asyncio
    import time

    def look() -> Any:
        return wait(ray_waitables, num_returns=num_returns, timeout=0, fetch_local=fetch_local)

    done, rest = look()
    if len(done) >= num_returns or timeout == 0:
        return done, rest
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: Any) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(changed.set)

    for ref in rest:
        ref._on_completed(tell)
    deadline = None if timeout is None else time.monotonic() + timeout
    while len(done) < num_returns:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            break
        try:
            await asyncio.wait_for(changed.wait(), left)
        except asyncio.TimeoutError:
            pass
        changed.clear()
        done, rest = look()
    return done, rest


def _unhandled_error_handler(e: Exception) -> None:
    """Shows an error that nobody looked at; tests replace it."""
    from libray.core import unread

    unread.log(e)


def get_dashboard_url() -> str:
    """libray has no dashboard: empty."""
    return ""


def print_logs(*args: Any, **kwargs: Any) -> None:
    """The daemon prints what workers write; nothing is left to do."""


__all__ = [
    "RayContext",
    "Worker",
    "cancel",
    "get",
    "get_actor",
    "get_gpu_ids",
    "global_worker",
    "init",
    "is_initialized",
    "kill",
    "put",
    "remote",
    "shutdown",
    "wait",
]
