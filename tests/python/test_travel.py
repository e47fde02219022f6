"""Tasks that run on another node than their program's: because that one is busy, or has not what they ask for."""

import hashlib
import os
import subprocess
import time

import pytest

import libray
from libray import _cli
from libray.cluster_utils import Cluster
from ray_fixtures import run

STORE = 512 << 20  # of each node: for arguments and results of 50 MB at once


@pytest.fixture
def nodes():
    with Cluster(num_cpus=1, object_store_memory=STORE) as cluster:
        cluster.second = cluster.add_node(num_cpus=1, resources={"x": 2}, object_store_memory=STORE)
        cluster.wait_for_nodes()
        libray.init(cluster.head.session)
        yield cluster
        libray.shutdown()


def id_of(node):
    return next(row["node"] for row in node.table()["nodes"] if row["index"] == node.index)


@libray.remote
def where():
    return libray.get_runtime_context().get_node_id()


@libray.remote
def meet(folder, number, all_of_them):
    """Ends when all run at once."""
    open(os.path.join(folder, str(number)), "w").close()
    deadline = time.monotonic() + 60
    while len(os.listdir(folder)) < all_of_them:
        assert time.monotonic() < deadline, "the others do not run"
        time.sleep(0.01)
    return libray.get_runtime_context().get_node_id()


def test_two_tasks_run_at_once_on_two_nodes_of_one_processor(nodes, tmp_path):
    met = libray.get([meet.remote(str(tmp_path), i, 2) for i in range(2)], timeout=120)
    assert set(met) == {id_of(nodes.head), id_of(nodes.second)}


def test_a_program_on_another_node_uses_the_head_too(nodes, tmp_path):
    libray.shutdown()
    libray.init(nodes.second.session)
    met = libray.get([meet.remote(str(tmp_path), i, 2) for i in range(2)], timeout=120)
    assert set(met) == {id_of(nodes.head), id_of(nodes.second)}


def test_what_only_the_second_node_has(nodes):
    wants_x = where.options(resources={"x": 1})
    assert libray.get([wants_x.remote() for _ in range(5)], timeout=120) == [id_of(nodes.second)] * 5
    assert libray.get(where.options(resources={"x": 2}, num_cpus=0).remote(), timeout=120) == id_of(nodes.second)
    assert libray.get(where.remote(), timeout=120) == id_of(nodes.head)  # what fits here stays here


def test_a_node_that_joins_later_takes_what_waited(nodes):
    waits = where.options(resources={"y": 1}).remote()
    assert libray.wait([waits], timeout=1)[0] == []
    third = nodes.add_node(num_cpus=1, resources={"y": 1})
    assert libray.get(waits, timeout=120) == id_of(third)


@libray.remote(resources={"x": 0.1})
def turned(value, *more, **named):
    return value[::-1], hashlib.sha256(value).hexdigest(), more, named


@pytest.mark.parametrize("size", [0, 1, 1000, 8 << 10, 100_000, 1 << 20, 50 << 20])
def test_values_of_any_size_both_ways(nodes, size):
    value = os.urandom(size)
    back, digest, more, named = libray.get(turned.remote(value, 1, ["two"], three={"n": 3.5}), timeout=300)
    assert digest == hashlib.sha256(value).hexdigest()
    assert back == value[::-1]
    assert (more, named) == ((1, ["two"]), {"three": {"n": 3.5}})


def test_many_small_ones_keep_their_results_apart(nodes):
    @libray.remote(resources={"x": 0.1})
    def square(i):
        return i * i

    assert libray.get([square.remote(i) for i in range(2000)], timeout=300) == [i * i for i in range(2000)]


class Refused(ValueError):
    def __init__(self, text, code):
        super().__init__(text, code)
        self.code = code


def test_exceptions_keep_their_class(nodes):
    @libray.remote(resources={"x": 1}, max_retries=0)
    def fails(text):
        raise Refused(text, 7)

    with pytest.raises(Refused, match="not like this") as info:
        libray.get(fails.remote("not like this"), timeout=120)
    assert info.value.code == 7
    assert "fails" in str(info.value)


def test_several_results_and_none(nodes):
    @libray.remote(resources={"x": 1}, num_returns=3)
    def three():
        return 1, b"2" * 200_000, None

    assert libray.get(three.remote(), timeout=120) == [1, b"2" * 200_000, None]


def test_nested_tasks(nodes):
    @libray.remote
    def leaf(i):
        return i + 1

    @libray.remote(resources={"x": 1})
    def tree(n):
        return sum(libray.get([leaf.remote(i) for i in range(n)])), libray.get_runtime_context().get_node_id()

    assert libray.get(tree.remote(10), timeout=120) == (55, id_of(nodes.second))


def test_references_in_values_are_right_or_refused(nodes):
    @libray.remote(resources={"x": 1}, max_retries=0)
    def follow(box):
        return libray.get(box[0])

    for value in (5, b"v" * 300_000):
        try:
            assert libray.get(follow.remote([libray.put(value)]), timeout=120) == value
        except libray.exceptions.GetTimeoutError:
            raise
        except Exception as error:  # never another value, and never without a word of what to do
            assert "reference" in str(error), error


def test_arguments_that_are_results_of_either_node(nodes):
    @libray.remote
    def grow(value):
        return value + b"+" * 100_000

    here = grow.remote(b"here")
    there = grow.options(resources={"x": 1}).remote(here)
    assert libray.get(grow.remote(there), timeout=120) == b"here" + b"+" * 300_000


def test_cancelled_there(nodes, tmp_path):
    @libray.remote(resources={"x": 2}, max_retries=0)
    def sleeps():
        open(tmp_path / "runs", "w").close()
        time.sleep(600)

    ref = sleeps.remote()
    deadline = time.monotonic() + 60
    while not (tmp_path / "runs").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    libray.cancel(ref, force=True)
    with pytest.raises((libray.exceptions.TaskCancelledError, libray.exceptions.WorkerCrashedError)):
        libray.get(ref, timeout=120)
    assert libray.get(where.options(resources={"x": 2}).remote(), timeout=120) == id_of(nodes.second)


def test_a_node_that_is_killed_under_load_costs_nothing_but_time(nodes):
    @libray.remote(max_retries=10)
    def slow(i):
        time.sleep(0.05)
        return i * 3, libray.get_runtime_context().get_node_id()

    refs = [slow.remote(i) for i in range(200)]
    libray.wait(refs, num_returns=40, timeout=120)
    nodes.kill(nodes.second)
    got = libray.get(refs, timeout=300)
    assert [value for value, _ in got] == [3 * i for i in range(200)]
    assert libray.get(slow.remote(1), timeout=120) == (3, id_of(nodes.head))


def test_without_retries_the_error_names_the_node(nodes, tmp_path):
    @libray.remote(resources={"x": 1}, max_retries=0)
    def sleeps():
        open(tmp_path / "runs", "w").close()
        time.sleep(600)

    ref = sleeps.remote()
    deadline = time.monotonic() + 60
    while not (tmp_path / "runs").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    nodes.kill(nodes.second)
    with pytest.raises(Exception, match="node 1|" + id_of(nodes.second)):
        libray.get(ref, timeout=120)


def test_every_node_says_why_a_task_went_there(nodes):
    @libray.remote(resources={"x": 1})
    def own_id():
        return libray.get_runtime_context().get_task_id()

    task = libray.get(own_id.remote(), timeout=120)
    for node in (nodes.head, nodes.second):
        said = subprocess.run([_cli.tool(), "why", "-s", node.session, task], capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        assert said.stdout.startswith(task) and "placed on node 1" in said.stdout
        other = subprocess.run([_cli.tool(), "why", "-s", node.session, "f" * 48], capture_output=True, text=True)
        assert other.returncode == 1 and "was not asked about task" in other.stderr


def test_spelled_like_ray():
    assert run(
        """
        import time
        from ray.cluster_utils import Cluster
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        node = cluster.add_node(num_cpus=1, resources={"special": 1})
        ray.init(address=cluster.address)
        assert len([n for n in ray.nodes() if n["Alive"]]) == 2
        assert ray.cluster_resources()["CPU"] == 2 and ray.cluster_resources()["special"] == 1
        @ray.remote(resources={"special": 1})
        def where(): return ray.get_runtime_context().get_node_id()
        assert ray.get(where.remote(), timeout=120) == node.node_id != cluster.head_node.node_id
        cluster.remove_node(node)
        assert cluster.list_all_nodes() == [cluster.head_node]
        ray.shutdown()
        cluster.shutdown()
        print("done")
        """
    ) == ["done"]
