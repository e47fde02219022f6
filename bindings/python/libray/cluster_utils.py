"""`Cluster`: several nodes as processes on this machine, for tests of what happens when nodes join, leave, die and are
stopped. They are started by the `libray` tool and end with this process at the latest.

`libray.init(node.session)` says on which node a program is. What waits there may run on another one (docs/cluster.md)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import Any, Dict, List, Mapping, Optional

from . import _cli

_POLL = 0.02


class Node:
    """A node of a `Cluster`. `session` is the address for `libray.init`."""

    def __init__(self, started: Mapping[str, Any]) -> None:
        self.session: str = started["session"]
        self.pid: int = started["pid"]
        self.index: int = started["index"]
        self.head: bool = started["role"] == "head"
        self.head_address: str = started["head"]
        self._pidfd: Optional[int] = os.pidfd_open(self.pid)

    def __repr__(self) -> str:
        return f"Node(index={self.index}, pid={self.pid}, session={self.session!r})"

    def signal(self, number: int) -> None:
        """To the daemon; nothing when it has ended."""
        try:
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            pass

    def is_running(self) -> bool:
        import select

        return self._pidfd is not None and not select.select([self._pidfd], [], [], 0)[0]

    def wait(self, timeout: float = 60) -> None:
        """Until the daemon has ended; TimeoutError."""
        _until(lambda: not self.is_running(), timeout, f"{self} has not ended")

    def table(self) -> Dict[str, Any]:
        """What the node knows of its cluster: also of one that is stopped or dead."""
        with open(os.path.join(self.session, "cluster.json"), encoding="utf-8") as file:
            return dict(json.load(file))

    def states(self) -> Dict[int, str]:
        """index -> "ALIVE", "DRAINING" or "DEAD"."""
        return {row["index"]: row["state"] for row in self.table()["nodes"]}

    def ended(self) -> str:
        """Why it no longer belongs to the cluster; empty while it does."""
        return str(self.table()["ended"])

    def _close(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


class Cluster:
    """`with Cluster() as cluster: cluster.add_node(num_cpus=2)`. The head is there from the beginning."""

    def __init__(self, **head_node_args: Any) -> None:
        self._nodes: List[Node] = []
        self._token_file = ""
        self.head: Node = self._start(["--head"], head_node_args)

    @property
    def address(self) -> str:
        """Of the head's node, for `libray.init`."""
        return self.head.session

    def _start(
        self,
        where: List[str],
        given: Mapping[str, Any],
    ) -> Node:
        unknown = sorted(set(given) - set(_OPTIONS))
        if unknown:
            raise TypeError(f"Unknown argument(s): {', '.join(unknown)}; a node takes {', '.join(_OPTIONS)}")
        command = [_cli.tool() or "libray", "start", "--json", "--with-pid", str(os.getpid()), *where]
        for name, value in {"num_cpus": 1, "object_store_memory": 200 << 20, **given}.items():
            if value is not None:
                command += [_OPTIONS[name], json.dumps(value) if isinstance(value, dict) else str(value)]
        environment = {k: v for k, v in os.environ.items() if k not in ("LIBRAY_ADDRESS", "LIBRAY_TOKEN", "RAY_ADDRESS")}
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip() or f"the node did not start ({done.returncode})")
        started = json.loads(done.stdout)
        self._token_file = self._token_file or started["token_file"]
        node = Node(started)
        self._nodes.append(node)
        return node

    def add_node(self, **node_args: Any) -> Node:
        """num_cpus (1), num_gpus, resources, labels, object_store_memory (200 MiB), host. It has joined when this returns;
        the others hear of it a moment later: wait_for_nodes."""
        where = ["--address", self.head.head_address, "--token-file", self._token_file]
        return self._start(where, node_args)

    def list_all_nodes(self) -> List[Node]:
        """Those that were not removed."""
        return list(self._nodes)

    def remove_node(self, node: Node, allow_graceful: bool = True, timeout: float = 60) -> None:
        """Ends it in order, or kills it."""
        self.resume(node)
        node.signal(signal.SIGTERM if allow_graceful else signal.SIGKILL)
        node.wait(timeout)
        self._nodes.remove(node)
        node._close()

    def kill(self, node: Node) -> None:
        """SIGKILL; it stays in the list, so that the others can be asked what they make of it."""
        node.signal(signal.SIGKILL)

    def pause(self, node: Node) -> None:
        """Stops its daemon: it says and hears nothing until resume()."""
        node.signal(signal.SIGSTOP)

    def resume(self, node: Node) -> None:
        node.signal(signal.SIGCONT)

    def wait_for_nodes(self, timeout: float = 60) -> None:
        """Until every node that runs knows the same living nodes: those that run. TimeoutError."""

        def agreed() -> bool:
            running = [node for node in self._nodes if node.is_running()]
            want = {node.index for node in running}
            return all({i for i, state in n.states().items() if state != "DEAD"} == want for n in running)

        _until(agreed, timeout, f"the nodes do not agree: {[(n, n.states()) for n in self._nodes]}")

    def shutdown(self) -> None:
        """Ends all nodes."""
        for node in sorted(self._nodes, key=lambda n: n.head):
            try:
                self.remove_node(node)
            except TimeoutError:
                self.kill(node)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *exc: Any) -> None:
        self.shutdown()


def _until(done: Any, timeout: float, what: str) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"within {timeout} s: {what}")
        time.sleep(_POLL)


_OPTIONS = {
    "num_cpus": "--num-cpus",
    "num_gpus": "--num-gpus",
    "resources": "--resources",
    "labels": "--labels",
    "object_store_memory": "--store-bytes",
    "host": "--host",
}
