"""`ray.util.state`, `ray.timeline`, `ray._private.worker`, `ray.cluster_utils`, the test helpers."""

from ray_fixtures import run

START = """
import time
from ray._private.test_utils import wait_for_condition
ray.init(num_cpus=2, namespace="space")
@ray.remote
def good(x): return x
@ray.remote
def bad(): raise ValueError("no")
@ray.remote
class A:
    def m(self): return 1
"""


def test_lists():
    run(
        START
        + """
from ray.util import state
a = A.options(name="alice").remote()
b = A.remote()
ray.get([good.remote(k) for k in range(5)] + [a.m.remote(), b.m.remote()])
failed = bad.remote()
ray.wait([failed])
ray.kill(b)
def settled():
    tasks = state.list_tasks(filters=[("state", "=", "FINISHED")])
    actors = sorted(a.state for a in state.list_actors())
    return len([t for t in tasks if t.name == "good"]) == 5 and actors == ["ALIVE", "DEAD"]
wait_for_condition(settled, timeout=60)
alice, = state.list_actors(filters=[("name", "=", "alice")])
assert alice.state == alice["state"] == "ALIVE" and alice.class_name == "A" and alice.ray_namespace == "space"
assert alice.actor_id == a._actor_id.hex() and alice.pid > 0 and not alice.is_detached
assert state.get_actor(alice.actor_id) == alice and state.get_actor("ff" * 24) is None
assert len(state.list_actors(filters=[("class_name", "!=", "A")])) == 0
wait_for_condition(lambda: state.list_tasks(filters=[("name", "=", "bad")])[0].state == "FAILED", timeout=60)
task, = state.list_tasks(filters=[("name", "=", "bad")], detail=True)
assert task.type == "NORMAL_TASK" and "ValueError: no" in task.error_message and state.get_task(task.task_id) == task
assert {t.name for t in state.list_tasks(filters=[("type", "=", "ACTOR_TASK")])} == {"A.m"}
assert {t.name for t in state.list_tasks(filters=[("type", "=", "ACTOR_CREATION_TASK")])} == {"A.__init__"}
assert len(state.list_tasks(limit=3)) == 3
assert [n.state for n in state.list_nodes()] == ["ALIVE"]
assert {w.worker_type for w in state.list_workers()} == {"DRIVER", "WORKER"}
assert [j.status for j in state.list_jobs()] == ["RUNNING"]
assert len(state.list_objects()) >= 5
ref = good.remote("seen")
ray.get(ref)
wait_for_condition(lambda: state.get_objects(ref.hex()), timeout=60)
from ray.experimental import get_object_locations
assert get_object_locations([ref])[ref]["node_ids"] == [ray.get_runtime_context().get_node_id()]
assert state.get_task(ref).name == "good"
tasks = state.summarize_tasks()["cluster"]
assert tasks["summary"]["good"]["state_counts"] == {"FINISHED": 6} and tasks["total_actor_scheduled"] == 2
assert state.summarize_actors()["cluster"]["summary"]["A"]["state_counts"] == {"ALIVE": 1, "DEAD": 1}
assert state.summarize_objects()["cluster"]["total_objects"] >= 5
assert state.list_logs()
for wrong in (dict(limit=10**6), dict(filters=[("state", "<", 1)]), dict(filters=[("nonsense", "=", 1)])):
    try:
        state.list_tasks(**wrong)
    except ValueError:
        continue
    raise AssertionError(wrong)
"""
    )


def test_timeline(tmp_path):
    run(
        START
        + f"""
import json
ray.get([good.remote(k) for k in range(3)])
wait_for_condition(lambda: len(ray.timeline()) >= 3, timeout=60)
ray.timeline(filename={str(tmp_path / "trace.json")!r})
events = json.load(open({str(tmp_path / "trace.json")!r}))
event = events[0]
assert event["ph"] == "X" and event["dur"] > 0 and event["name"].endswith("good")
assert abs(event["ts"] / 1e6 - time.time()) < 120
"""
    )


def test_global_worker():
    run(
        START
        + """
from ray._private.worker import global_worker
assert global_worker.connected and global_worker.mode == ray.SCRIPT_MODE
assert global_worker.current_job_id.hex() == ray.get_runtime_context().get_job_id()
assert ray._private.worker.global_worker.node.get_session_dir_path().startswith("/")
@ray.remote
def where():
    import ray
    w = ray._private.worker.global_worker
    return w.mode, w.current_task_id.hex() == ray.get_runtime_context().get_task_id()
assert ray.get(where.remote()) == (ray.WORKER_MODE, True)
assert ray.get_gpu_ids() == []
ray.shutdown()
assert not global_worker.connected and global_worker.mode is None
ray.init(num_cpus=1, num_gpus=2)
assert ray.get_gpu_ids() == []  # a driver is given none
"""
    )


def test_cluster():
    run(
        """
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 3, "resources": {"box": 2}})
assert ray.cluster_resources()["CPU"] == 3 and ray.cluster_resources()["box"] == 2
cluster.wait_for_nodes()
assert ray.init(address=cluster.address, ignore_reinit_error=True)["address"] == cluster.address
assert cluster.head_node.node_id == ray.nodes()[0]["NodeID"]
@ray.remote
class Kept:
    def value(self): return 5
kept = Kept.options(name="kept", lifetime="detached", namespace="n").remote()
assert ray.get(kept.value.remote()) == 5
ray.shutdown()
assert cluster.head_node.any_processes_alive()
ray.init(address=cluster.address, namespace="n")  # drivers come and go
assert ray.get(ray.get_actor("kept").value.remote()) == 5
second = cluster.add_node(num_cpus=1, resources={"other": 1})
assert cluster.worker_nodes == {second} and cluster.list_all_nodes() == [cluster.head_node, second]
assert {n["NodeID"] for n in ray.nodes() if n["Alive"]} == {second.node_id, cluster.head_node.node_id}
assert ray.cluster_resources()["CPU"] == 4 and ray.cluster_resources()["other"] == 1
cluster.remove_node(second, allow_graceful=False)
assert not second.alive and cluster.worker_nodes == set()
try:
    cluster.remove_node(second)
except ValueError as e:
    assert "not part of the cluster" in str(e)
third = cluster.add_node()
ray.shutdown()
node = cluster.head_node
cluster.remove_node(node)
assert not node.any_processes_alive() and not third.any_processes_alive() and cluster.list_all_nodes() == []
cluster.add_node(num_cpus=1)
ray.init("auto")
assert ray.cluster_resources()["CPU"] == 1
ray.shutdown()
cluster.shutdown()
try:
    cluster.add_node(num_cpus=-1)
except RuntimeError as e:
    assert "must be nonnegative. Violated by 'CPU'" in str(e)
"""
    )


def test_helpers_of_tests():
    run(
        """
import asyncio, subprocess
from ray._common.test_utils import SignalActor, Semaphore, async_wait_for_condition, wait_for_condition
from ray._common.test_utils import run_string_as_driver
from ray._private.test_utils import run_string_as_driver_nonblocking, wait_for_pid_to_exit
ray.init(num_cpus=2)
signal = SignalActor.remote()
@ray.remote
def waits(signal): return ray.get(signal.wait.remote())
ref = waits.remote(signal)
wait_for_condition(lambda: ray.get(signal.cur_num_waiters.remote()) == 1)
assert ray.wait([ref], timeout=0)[0] == []
ray.get(signal.send.remote())
ray.get(ref)
semaphore = Semaphore.remote(value=1)
ray.get(semaphore.acquire.remote())
assert ray.get(semaphore.locked.remote())
second = semaphore.acquire.remote()
assert ray.wait([second], timeout=0.05)[0] == []
ray.get(semaphore.release.remote())
ray.get(second)
async def later():
    tries = []
    await async_wait_for_condition(lambda: tries.append(1) or len(tries) > 2, retry_interval_ms=1)
asyncio.run(later())
try:
    wait_for_condition(lambda: 1 / 0, timeout=0.2)
except RuntimeError as e:
    assert "wasn't met" in str(e) and "ZeroDivisionError" in str(e)
assert "hello" in run_string_as_driver("import ray; print('hello', ray.__version__)")
try:
    run_string_as_driver("raise SystemExit(3)")
except subprocess.CalledProcessError as e:
    assert e.returncode == 3
process = run_string_as_driver_nonblocking("print(5)")
assert process.stdout.read() == b"5\\n"
process.wait()
wait_for_pid_to_exit(process.pid)
"""
    )


def test_options_and_descriptors():
    run(
        """
from ray._private import ray_constants, ray_option_utils as options
assert ray_constants.DEFAULT_TASK_MAX_RETRIES == 3
for table in (options.task_options, options.actor_options):
    for name, option in table.items():
        option.validate(name, option.default_value)
        try:
            option.validate(name, object())
        except TypeError:
            continue
        raise AssertionError(name)
assert options.update_options({"a": 1, "_metadata": {"x": {"y": 1}}}, {"_metadata": {"x": {"z": 2}}}) == {
    "a": 1, "_metadata": {"x": {"y": 1, "z": 2}}}
import pickle
from ray._raylet import JavaFunctionDescriptor, PythonFunctionDescriptor
one = PythonFunctionDescriptor("m", "f", "C", "h")
same = pickle.loads(pickle.dumps(one))
assert one == same and hash(one) == hash(same) and one.function_id == same.function_id
assert one != PythonFunctionDescriptor("m", "g") and one != JavaFunctionDescriptor("m", "f", "C") and one != 3
import ray._private.workers.default_worker
from ray.tests.client_test_utils import create_remote_signal_actor
"""
    )


def test_times_and_names_of_actors():
    run(
        START
        + """
a = A.options(name="alice").remote()
ray.get(a.m.remote())
row = ray._private.state.actors(a._actor_id.hex())
began = row["StartTime"]
assert abs(began - time.time() * 1000) < 60000 and row["EndTime"] == 0 and row["NumRestarts"] == 0
ray.kill(a)
wait_for_condition(lambda: ray._private.state.actors(a._actor_id.hex())["State"] == "DEAD", timeout=60)
row = ray._private.state.actors(a._actor_id.hex())
assert row["StartTime"] == began < row["EndTime"]
ray.shutdown()
ray.init(local_mode=True, namespace="local")
A.options(name="bob").remote()
assert ray.util.list_named_actors() == ["bob"]
assert ray.util.list_named_actors(all_namespaces=True) == [{"name": "bob", "namespace": "local"}]
ray.kill(ray.get_actor("bob"))
assert ray.util.list_named_actors() == []
"""
    )


def test_waiting_in_a_loop_and_deferred_interrupts():
    run(
        START
        + """
import asyncio, _thread, signal
from ray._common.test_utils import SignalActor
from ray._private.utils import DeferSigint
from ray._private.worker import _wait_async
gate = SignalActor.remote()
late = gate.wait.remote()
async def main():
    ready = good.remote(1)
    assert await _wait_async([ready, late], num_returns=1) == ([ready], [late])
    assert await _wait_async([late], timeout=0.05) == ([], [late])
    waiting = asyncio.create_task(_wait_async([late]))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    gate.send.remote()
    assert await waiting == ([late], [])
asyncio.run(main())
before, held = signal.getsignal(signal.SIGINT), False
try:
    with DeferSigint():
        _thread.interrupt_main()
        time.sleep(0.01)
        held = True
except KeyboardInterrupt:
    assert held and signal.getsignal(signal.SIGINT) is before
else:
    raise AssertionError("no interrupt")
"""
    )


def test_running_tasks_and_waiting_ones():
    run(
        START
        + """
import json, os, subprocess, sys, tempfile, time
from ray.util import state

@ray.remote
def hold(path):
    while not os.path.exists(path):
        time.sleep(0.01)

@ray.remote(max_concurrency=2)
class Two:
    def hold(self, path):
        while not os.path.exists(path):
            time.sleep(0.01)

path = os.path.join(tempfile.mkdtemp(), "go")
refs = [hold.remote(path) for _ in range(4)]
two = Two.options(num_cpus=0).remote()
calls = [two.hold.remote(path) for _ in range(3)]

def states(name):
    return sorted(t.state for t in state.list_tasks() if t.name == name)

wait_for_condition(lambda: states("hold").count("RUNNING") == 2, timeout=60)
wait_for_condition(lambda: states("Two.hold").count("RUNNING") == 2, timeout=60)
assert states("hold").count("PENDING_NODE_ASSIGNMENT") == 2
task = state.list_tasks(filters=[("state", "=", "RUNNING"), ("name", "=", "hold")])[0]
assert task.worker_pid > 0 and task.start_time_ms > 0 and task.end_time_ms is None

session = ray._private.worker._global_node.get_session_dir_path()
def tool(*args):
    command = [sys.executable, "-m", "libray._cli", *args, "--session", session]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
def shown(wanted):
    rows = json.loads(tool("tasks", "--json", "--state", wanted, "--function", "*hold"))
    return [row["state"] for row in rows]
assert shown("running") == ["RUNNING"] * 4 and shown("submitted") == ["SUBMITTED"] * 3
assert "4 running, 3 waiting" in tool("status")
open(path, "w").close()
ray.get(refs + calls)
wait_for_condition(lambda: states("hold") == ["FINISHED"] * 4, timeout=60)
assert "no tasks" in tool("tasks", "--state", "running")
"""
    )
