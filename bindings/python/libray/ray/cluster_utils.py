"""`ray.cluster_utils.Cluster`: a cluster of one node for tests that are written for several."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, Optional

import libray

# The node belongs to a process of its own, so that the test connects to it, leaves, and connects again. It ends when
# its standard input does: with the process that made the cluster.
_HOLDER = """
import json, sys
path, arguments, answer = json.loads(sys.argv[1])
sys.path[:0] = path
import libray
try:
    said = {"address": libray.init(log_to_driver=False, **arguments).address_info["address"]}
except BaseException as error:
    said = {"error": f"{type(error).__name__}: {error}"}
with open(answer, "w") as file:
    json.dump(said, file)
sys.stdin.read()
"""


def _start_holder(arguments: Dict[str, Any]) -> Any:
    """(process, address) of a new node; RuntimeError that says why there is none."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as answer:
        root = os.path.dirname(os.path.dirname(os.path.abspath(libray.__file__)))
        command = [sys.executable, "-c", _HOLDER, json.dumps([[root], arguments, answer.name])]
        environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "LIBRAY_ADDRESS")}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            text = open(answer.name).read()
            if text.endswith("}"):
                said = json.loads(text)
                if "error" in said:
                    process.kill()
                    raise RuntimeError(f"the node did not start: {said['error']}")
                return process, said["address"]
            time.sleep(0.01)
    process.kill()
    raise RuntimeError(f"the node did not start (the process that was to hold it: {process.poll()})")


class ClusterNode:
    """What `add_node` gives."""

    def __init__(self, address: str, head: bool, process: Any) -> None:
        self._process = process
        self._node_id = ""
        self.address = self.gcs_address = address
        self.head = head
        self.node_ip_address = "127.0.0.1"
        self.alive = True

    @property
    def node_id(self) -> str:
        if not self._node_id and libray.is_initialized():
            self._node_id = str(libray.get_runtime_context().get_node_id())
        return self._node_id

    @property
    def unique_id(self) -> str:
        return self.node_id

    def get_session_dir_path(self) -> str:
        return self.address

    def any_processes_alive(self) -> bool:
        return self._process.poll() is None

    remaining_processes_alive = any_processes_alive

    def _end(self, graceful: bool) -> None:
        self.alive = False
        if self._process.poll() is None:
            if not graceful:
                self._process.send_signal(signal.SIGKILL)
            self._process.stdin.close()
            self._process.wait(30)


class Cluster:
    """One node: `Cluster(initialize_head=True, head_node_args={"num_cpus": 2})`, then `ray.init(cluster.address)`.

    The node lives until `shutdown`, or until the process that made the cluster ends; drivers come and go. A second
    node is NotImplementedError: give the first one the resources of both.
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
        process, address = _start_holder({k: v for k, v in node_args.items() if k in _NODE_ARGUMENTS})
        self.head_node = ClusterNode(address, True, process)
        return self.head_node

    def remove_node(self, node: ClusterNode, allow_graceful: bool = True) -> None:
        if node is not self.head_node:
            raise ValueError("this node is not part of the cluster")
        self._end(allow_graceful)

    def list_all_nodes(self) -> List[ClusterNode]:
        return [self.head_node] if self.head_node else []

    def wait_for_nodes(self, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while libray.is_initialized() and sum(node["Alive"] for node in libray.nodes()) < len(self.list_all_nodes()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"Timed out after {timeout}s waiting for the node")
            time.sleep(0.05)

    def remaining_processes_alive(self) -> bool:
        return self.head_node is not None and self.head_node.any_processes_alive()

    def _end(self, graceful: bool) -> None:
        head, self.head_node, self.connected = self.head_node, None, False
        if head is not None:
            head._end(graceful)

    def shutdown(self) -> None:
        """Ends the node; a driver that is connected to it loses it."""
        self._end(True)


_NODE_ARGUMENTS = (
    "num_cpus num_gpus resources object_store_memory labels namespace _system_config runtime_env "
    "_temp_dir include_dashboard _memory"
).split()


class AutoscalingCluster:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("libray has no autoscaler: use Cluster")
