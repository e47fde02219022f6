"""`ray.cluster_utils.Cluster`: a cluster of one node for tests that are written for several."""

import time
from typing import Any, Dict, List, Optional

import libray


class ClusterNode:
    """What `add_node` gives."""

    def __init__(self, address: str, head: bool) -> None:
        self.address = self.gcs_address = address
        self.head = head
        self.node_ip_address = "127.0.0.1"
        self.alive = True

    @property
    def node_id(self) -> str:
        return str(libray.get_runtime_context().get_node_id())

    @property
    def unique_id(self) -> str:
        return self.node_id

    def get_session_dir_path(self) -> str:
        return self.address

    def any_processes_alive(self) -> bool:
        return self.alive

    def remaining_processes_alive(self) -> bool:
        return self.alive


class Cluster:
    """One node, started in this process: `Cluster(initialize_head=True, head_node_args={"num_cpus": 2})`.

    The node lives as long as this process is connected to it. A second node is NotImplementedError: give the first
    one the resources of both.
    """

    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: Optional[Dict[str, Any]] = None,
        shutdown_at_exit: bool = True,
    ) -> None:
        self.head_node: Optional[ClusterNode] = None
        self.worker_nodes: set = set()
        self.connected = False
        self.redis_address = None
        if connect and not initialize_head:
            raise RuntimeError("Cannot connect to uninitialized cluster.")
        if initialize_head:
            self.add_node(**(head_node_args or {}))
            if connect:
                self.connect()

    @property
    def address(self) -> Optional[str]:
        return self.head_node.address if self.head_node else None

    @property
    def gcs_address(self) -> Optional[str]:
        return self.address

    def connect(self, namespace: Optional[str] = None, **kwargs: Any) -> None:
        import ray

        if self.head_node is None:
            raise RuntimeError("Cannot connect to uninitialized cluster.")
        ray.init(address=self.address, namespace=namespace, ignore_reinit_error=True)
        self.connected = True

    def add_node(self, wait: bool = True, **node_args: Any) -> ClusterNode:
        """Starts the node; only once."""
        import ray

        if self.head_node is not None:
            raise NotImplementedError(
                "libray has clusters of one node: give add_node the resources of all nodes at once"
            )
        if libray.is_initialized():
            libray.shutdown()
        context = ray.init(**{k: v for k, v in node_args.items() if k in _NODE_ARGUMENTS})
        self.head_node = ClusterNode(context.address_info["address"], True)
        _started.append(self)
        return self.head_node

    def remove_node(self, node: ClusterNode, allow_graceful: bool = True) -> None:
        if node is not self.head_node:
            raise ValueError("this node is not part of the cluster")
        self.shutdown()

    def list_all_nodes(self) -> List[ClusterNode]:
        return [self.head_node] if self.head_node else []

    def wait_for_nodes(self, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while sum(node["Alive"] for node in libray.nodes()) < len(self.list_all_nodes()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"Timed out after {timeout}s waiting for the node")
            time.sleep(0.05)

    def remaining_processes_alive(self) -> bool:
        return libray.is_initialized()

    def shutdown(self) -> None:
        if self.head_node is not None:
            self.head_node.alive = False
        self.head_node = None
        self.connected = False
        if self in _started:
            _started.remove(self)
            libray.shutdown()


_started: List[Cluster] = []
_NODE_ARGUMENTS = (
    "num_cpus num_gpus resources object_store_memory labels namespace _system_config runtime_env "
    "_temp_dir include_dashboard"
).split()


class AutoscalingCluster:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("libray has no autoscaler: use Cluster")
