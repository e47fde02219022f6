"""Several nodes as processes: who sees whom, what a program on one of them sees, what their deaths do."""

import time

import pytest

import libray
from libray.cluster_utils import Cluster


@pytest.fixture
def nodes():
    with Cluster(num_cpus=2) as cluster:
        yield cluster
        libray.shutdown()


def until(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "not within a minute"
        time.sleep(0.02)


def test_programs_run_on_each_node_and_see_all(nodes):
    second = nodes.add_node(num_cpus=3, resources={"x": 2}, labels={"zone": "a"}, host="127.0.0.2")
    nodes.wait_for_nodes()

    @libray.remote
    def double(x):
        return 2 * x

    for node in (nodes.head, second):
        libray.init(node.session)
        assert libray.get([double.remote(i) for i in range(10)]) == [2 * i for i in range(10)]
        rows = {row["index"]: row for row in libray.nodes()}
        assert sorted(rows) == [0, 1]
        assert all(row["Alive"] for row in rows.values())
        assert rows[1]["NodeManagerAddress"] == "127.0.0.2"
        assert rows[1]["Labels"] == {"zone": "a"}
        assert rows[1]["Resources"]["x"] == 2
        total = libray.cluster_resources()
        assert (total["CPU"], total["x"]) == (5, 2)
        until(lambda: libray.available_resources().get("CPU") == 5)
        libray.shutdown()


def test_a_program_finds_its_node_by_the_address_of_the_head(nodes):
    libray.init(nodes.head.head_address)
    assert libray.nodes()[0]["NodeID"] == libray.get_runtime_context().get_node_id()
    libray.shutdown()
    host, port = nodes.head.head_address.split(":")
    with pytest.raises(ConnectionError, match="address of its cluster"):
        libray.init(f"{host}:1")


def test_a_node_that_is_removed_or_killed_is_dead_for_the_others(nodes):
    first, second, third = nodes.add_node(), nodes.add_node(), nodes.add_node()
    nodes.wait_for_nodes()
    nodes.remove_node(first)
    nodes.kill(second)
    until(lambda: third.states() == {0: "ALIVE", 1: "DEAD", 2: "DEAD", 3: "ALIVE"})
    nodes.wait_for_nodes()
    libray.init(third.session)
    rows = {row["index"]: row for row in libray.nodes()}
    assert [rows[i]["Alive"] for i in range(4)] == [True, False, False, True]
    assert "told to end" in rows[1]["DeathReasonMessage"]
    assert "connection ended" in rows[2]["DeathReasonMessage"]
    assert libray.cluster_resources()["CPU"] == 3


def test_a_node_that_was_paused_ends_when_it_goes_on(nodes):
    second = nodes.add_node()
    nodes.wait_for_nodes()
    libray.init(second.session)

    @libray.remote
    def one():
        return 1

    assert libray.get(one.remote()) == 1
    nodes.pause(second)
    until(lambda: nodes.head.states()[1] == "DEAD")
    assert second.is_running()
    nodes.resume(second)
    second.wait()
    assert "was declared dead by the head" in second.ended()
    with pytest.raises(Exception, match="was declared dead by the head"):
        libray.get(one.remote())


def test_nodes_end_without_their_head(nodes):
    second, third = nodes.add_node(), nodes.add_node()
    nodes.wait_for_nodes()
    nodes.kill(nodes.head)
    for node in (second, third):
        node.wait()
        assert "the head of the cluster" in node.ended() and "is gone" in node.ended()


def test_what_cannot_be(nodes):
    with pytest.raises(TypeError, match="num_cpu;|num_cpu"):
        nodes.add_node(num_cpu=1)
    with pytest.raises(RuntimeError, match="resource 'x'"):
        nodes.add_node(resources={"x": -1})
    nodes.wait_for_nodes()
