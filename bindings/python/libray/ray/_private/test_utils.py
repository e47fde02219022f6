"""`ray._private.test_utils`: helpers of tests, as far as they make sense with one node."""

import contextlib
import fnmatch
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

import ray
from ray._common.test_utils import (  # noqa: F401
    FakeTimer,
    Semaphore,
    SignalActor,
    _driver_env,
    async_wait_for_condition,
    is_named_tuple,
    run_string_as_driver,
    wait_for_condition,
    write_script,
)
from ray.util.queue import Empty, Queue, _QueueActor


def _pid_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_pid_to_exit(pid: int, timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while _pid_alive(pid):
        if time.monotonic() > deadline:
            raise RuntimeError(f"Timed out while waiting for process {pid} to exit.")
        time.sleep(0.05)


def _children(pid: int) -> list:
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as file:
            found += [int(p) for p in file.read().split()]
    return found


def wait_for_children_of_pid(pid: int, num_children: int = 1, timeout: float = 20) -> None:
    wait_for_condition(lambda: len(_children(pid)) >= num_children, timeout)


def wait_for_children_of_pid_to_exit(pid: int, timeout: float = 20) -> None:
    for child in _children(pid):
        wait_for_pid_to_exit(child, timeout)


def run_string_as_driver_stdout_stderr(
    driver_script: str, env: Optional[Dict[str, str]] = None, encode: str = "utf-8"
) -> Tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-"],
        input=driver_script.encode(encode),
        capture_output=True,
        env=_driver_env(env),
    )
    out, err = done.stdout.decode(encode, "replace"), done.stderr.decode(encode, "replace")
    if done.returncode:
        print(out, err, sep="\n")
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
    return out, err


def run_string_as_driver_nonblocking(
    driver_script: str, env: Optional[Dict[str, str]] = None
) -> Any:
    process = subprocess.Popen(
        [sys.executable, "-c", driver_script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_driver_env(env),
    )
    assert process.stdin is not None
    process.stdin.close()
    return process


def convert_actor_state(state: Any) -> str:
    """The name of one of Ray's numbers."""
    from ray._private.gcs_utils import ActorTableData

    return "" if not state and state != 0 else ActorTableData.names[state]


def wait_for_num_actors(num_actors: int, state: Any = None, timeout: float = 10) -> None:
    from ray.util.state import list_actors

    def enough() -> bool:
        rows = list_actors(limit=10000)
        return len([r for r in rows if state is None or r["state"] == str(state)]) >= num_actors

    wait_for_condition(enough, timeout)


def kill_actor_and_wait_for_failure(
    actor: Any, timeout: float = 10, retry_interval_ms: float = 100
) -> None:
    ray.kill(actor)

    def dead() -> bool:
        try:
            ray.get(actor.__ray_ready__.remote(), timeout=1)
        except ray.exceptions.GetTimeoutError:
            return False
        except ray.exceptions.RayActorError:
            return True
        return False

    wait_for_condition(dead, timeout, retry_interval_ms)


def wait_for_assertion(
    assertion_predictor: Callable[..., Any],
    timeout: float = 10,
    retry_interval_ms: float = 100,
    raise_exceptions: bool = False,
    **kwargs: Any,
) -> None:
    """Calls the function until it does not raise; then its last exception."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            assertion_predictor(**kwargs)
            return
        except Exception:
            if raise_exceptions or time.monotonic() > deadline:
                raise
        time.sleep(retry_interval_ms / 1000)


def wait_until_succeeded_without_exception(
    func: Callable[..., Any],
    exceptions: tuple,
    *args: Any,
    timeout_ms: float = 1000,
    retry_interval_ms: float = 100,
    raise_last_ex: bool = False,
) -> bool:
    deadline = time.monotonic() + timeout_ms / 1000
    while True:
        try:
            func(*args)
            return True
        except exceptions:
            if time.monotonic() > deadline:
                if raise_last_ex:
                    raise
                return False
        time.sleep(retry_interval_ms / 1000)


def wait_until_server_available(
    address: str, timeout_ms: float = 5000, retry_interval_ms: float = 100
) -> bool:
    host, port = address.rsplit(":", 1)
    deadline = time.monotonic() + timeout_ms / 1000
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return True
        time.sleep(retry_interval_ms / 1000)
    return False


def recursive_fnmatch(dirpath: str, pattern: str) -> list:
    return [
        os.path.join(root, name)
        for root, _, names in os.walk(dirpath)
        for name in fnmatch.filter(names, pattern)
    ]


def generate_system_config_map(**kwargs: Any) -> dict:
    return {"_system_config": kwargs}


def same_elements(a: Any, b: Any) -> bool:
    left = list(b)
    for item in a:
        if item not in left:
            return False
        left.remove(item)
    return not left


@ray.remote
def _put(obj: Any) -> Any:
    return obj


def put_object(obj: Any, use_ray_put: bool) -> Any:
    return ray.put(obj) if use_ray_put else _put.remote(obj)


def put_unpinned_object(obj: Any) -> Any:
    return ray.put(obj)


def get_other_nodes(cluster: Any, exclude_head: bool = False) -> list:
    return [n for n in cluster.list_all_nodes() if not exclude_head or n is not cluster.head_node]


get_non_head_nodes = get_other_nodes


def client_test_enabled() -> bool:
    return False


def external_redis_test_enabled() -> bool:
    return False


redis_replicas = lambda: 1  # noqa: E731
persistent_gcs_test_enabled = rocksdb_gcs_test_enabled = external_redis_test_enabled


def object_memory_usage() -> float:
    total = ray.cluster_resources().get("object_store_memory", 0)
    return total - ray.available_resources().get("object_store_memory", 0)


def get_current_unused_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def no_resource_leaks_excluding_node_resources() -> bool:
    total, available = ray.cluster_resources(), ray.available_resources()
    return all(available.get(k, 0) == v for k, v in total.items() if not k.startswith("node:"))


def is_placement_group_removed(pg: Any) -> bool:
    return ray.util.placement_group_table(pg).get("state") == "REMOVED"


def placement_group_assert_no_leak(pgs_created: list) -> None:
    for pg in pgs_created:
        ray.util.remove_placement_group(pg)
    wait_for_condition(lambda: all(map(is_placement_group_removed, pgs_created)))
    wait_for_condition(no_resource_leaks_excluding_node_resources)


def get_actor_node_id(actor_handle: Any) -> str:
    return ray.get(
        actor_handle.__ray_call__.remote(lambda self: ray.get_runtime_context().get_node_id())
    )


@contextlib.contextmanager
def chdir(d: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(d)
    try:
        yield
    finally:
        os.chdir(before)


def kill_process_by_name(name: str, SIGKILL: bool = False) -> None:
    """Only among the descendants of this process: others on the machine are none of a test's business."""
    pending = _children(os.getpid())
    while pending:
        pid = pending.pop()
        with contextlib.suppress(OSError):
            pending += _children(pid)
            with open(f"/proc/{pid}/comm") as file:
                if file.read().strip() == name[:15]:
                    os.kill(pid, signal.SIGKILL if SIGKILL else signal.SIGTERM)


def check_call_subprocess(
    argv: list, capture_stdout: bool = False, capture_stderr: bool = False
) -> Optional[str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return (done.stdout if capture_stdout else "") + (done.stderr if capture_stderr else "") or None


def check_call_ray(args: list, **kwargs: Any) -> Any:
    raise NotImplementedError("libray has no `ray` command: see the `libray` command")


def get_gpu_visible_devices_env_var() -> Optional[str]:
    return "CUDA_VISIBLE_DEVICES"


class BatchQueue(Queue):
    """A queue whose `get_batch` waits for the first item and takes up to `batch_size`."""

    def get_batch(
        self,
        batch_size: Optional[int] = None,
        total_timeout: Optional[float] = None,
        first_timeout: Optional[float] = None,
    ) -> list:
        items = [self.get(timeout=first_timeout)]
        deadline = None if total_timeout is None else time.monotonic() + total_timeout
        while batch_size is None or len(items) < batch_size:
            try:
                if deadline is None:
                    items.append(self.get_nowait())
                else:
                    items.append(self.get(timeout=max(deadline - time.monotonic(), 0)))
            except Empty:
                break
        return items


def init_error_pubsub() -> Any:
    raise NotImplementedError("libray publishes no errors: see `libray errors`")


init_log_pubsub = init_error_pubsub


def get_error_message(subscriber: Any, *args: Any, **kwargs: Any) -> Any:
    return init_error_pubsub()


def get_log_message(subscriber: Any, *args: Any, **kwargs: Any) -> Any:
    return init_log_pubsub()
