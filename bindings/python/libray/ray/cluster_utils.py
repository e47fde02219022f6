"""`ray.cluster_utils.Cluster`: several nodes as processes on this machine, spelled as in Ray. The nodes are those of
`libray.cluster_utils`, and end with the process that made the cluster."""

from typing import Any, Dict, List, Optional, Set

from libray import cluster_utils as _nodes
from libray.driver import start as _start

_DEFAULTS = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 150 << 20}


def _arguments(given: Dict[str, Any], head: bool) -> Dict[str, Any]:
    """What the node is started with; RuntimeError that says what is wrong with it."""
    node = {**_DEFAULTS, **{k: v for k, v in given.items() if k in _NODE_ARGUMENTS and v is not None}}
    resources = node.get("resources") or {}
    try:
        for name, amount in {"CPU": node["num_cpus"], "GPU": node["num_gpus"], **resources}.items():
            _start._check_quantity(name, amount)
        usual = _start._usual_resources(given.get("_memory", given.get("memory")), int(node["object_store_memory"]))
    except (TypeError, ValueError) as error:
        raise RuntimeError(f"the node did not start: {type(error).__name__}: {error}") from error
    if not head:
        del usual["node:__internal_head__"]
    return {**node, "resources": {**usual, **resources}}


class ClusterNode:
    """What `add_node` gives."""

    def __init__(self, node: _nodes.Node) -> None:
        self._node = node
        self.address = self.gcs_address = node.session
        self.head = node.head
        self.node_ip_address = "127.0.0.1"
        self.node_id = next(row["node"] for row in node.table()["nodes"] if row["index"] == node.index)

    @property
    def alive(self) -> bool:
        return self._node.is_running()

    @property
    def unique_id(self) -> str:
        return str(self.node_id)

    def get_session_dir_path(self) -> str:
        return self.address

    def any_processes_alive(self) -> bool:
        return self._node.is_running()

    remaining_processes_alive = any_processes_alive


class Cluster:
    """`Cluster(initialize_head=True, head_node_args={"num_cpus": 2})`, `cluster.add_node(num_cpus=1, resources={"x": 2})`,
    then `ray.init(cluster.address)`: a driver on the head. `ray.init(node.address)` is one on another node.

    The nodes live until `shutdown`, or until the process that made the cluster ends; drivers come and go. The first node
    is the head; the others end with it."""

    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: Optional[Dict[str, Any]] = None,
        shutdown_at_exit: bool = True,
    ) -> None:
        self._cluster: Optional[_nodes.Cluster] = None
        self.head_node: Optional[ClusterNode] = None
        self.worker_nodes: Set[ClusterNode] = set()
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
        """The first one is the head. With `wait` all nodes know of it when this returns."""
        arguments = _arguments(node_args, self._cluster is None)
        if self._cluster is None:
            self._cluster = _nodes.Cluster(**arguments)
            self.head_node = ClusterNode(self._cluster.head)
            return self.head_node
        node = ClusterNode(self._cluster.add_node(**arguments))
        self.worker_nodes.add(node)
        if wait:
            self.wait_for_nodes()
        return node

    def remove_node(self, node: ClusterNode, allow_graceful: bool = True) -> None:
        """Ends it in order, or kills it; with the head the others end."""
        if self._cluster is None or node not in self.list_all_nodes():
            raise ValueError("this node is not part of the cluster")
        self._cluster.remove_node(node._node, allow_graceful)
        if node is self.head_node:
            self.shutdown()
        else:
            self.worker_nodes.discard(node)

    def list_all_nodes(self) -> List[ClusterNode]:
        return ([self.head_node] if self.head_node else []) + sorted(self.worker_nodes, key=lambda n: n._node.index)

    def wait_for_nodes(self, timeout: float = 30) -> None:
        """Until all nodes that run know each other."""
        if self._cluster is not None:
            self._cluster.wait_for_nodes(timeout)

    def remaining_processes_alive(self) -> bool:
        return any(node.any_processes_alive() for node in self.list_all_nodes())

    def shutdown(self) -> None:
        """Ends all nodes; a driver that is connected to one loses it."""
        cluster, self._cluster, self.head_node, self.connected = self._cluster, None, None, False
        self.worker_nodes.clear()
        if cluster is not None:
            cluster.shutdown()


_NODE_ARGUMENTS = "num_cpus num_gpus resources object_store_memory labels".split()


class AutoscalingCluster:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("libray has no autoscaler: use Cluster")
