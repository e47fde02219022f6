"""Tasks on other nodes: what the death of a node, of a relay, of the program does to them."""

import os
import subprocess
import time

import pytest

import libray
from libray.cluster_utils import Cluster


@pytest.fixture
def nodes():
    with Cluster(num_cpus=1) as cluster:
        yield cluster
        libray.shutdown()


def until(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "not within a minute"
        time.sleep(0.02)


def runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@libray.remote
def where():
    return libray.get_runtime_context().get_node_id()


@libray.remote
def worker():
    return os.getpid()


@libray.remote
def run(name, value):
    """Says where it runs, then waits for the file `name`.go."""
    with open(f"{name}.{libray.get_runtime_context().get_node_id()}", "w") as file:
        file.write(str(os.getpid()))
    while not os.path.exists(f"{name}.go"):
        time.sleep(0.01)
    return value


def test_a_dead_nodes_tasks_run_again_elsewhere(nodes, tmp_path):
    second = nodes.add_node(resources={"gold": 1})
    nodes.wait_for_nodes()
    libray.init(nodes.head.session)
    name = str(tmp_path / "t")
    ref = run.options(resources={"gold": 1}, max_retries=3).remote(name, 4242)
    until(lambda: [f for f in tmp_path.glob("t.*") if f.read_text()])
    pid = int(next(tmp_path.glob("t.*")).read_text())
    third = nodes.add_node(resources={"gold": 1})
    nodes.kill(second)
    until(lambda: not runs(pid))  # else it might still be the one to answer
    open(f"{name}.go", "w").close()
    assert libray.get(ref, timeout=120) == 4242
    assert len(list(tmp_path.glob("t.*"))) == 3  # two nodes, and the word to go
    assert third.is_running()


def test_without_retries_the_error_names_the_node(nodes, tmp_path):
    second = nodes.add_node(resources={"gold": 1})
    nodes.wait_for_nodes()
    libray.init(nodes.head.session)
    name = str(tmp_path / "t")
    ref = run.options(resources={"gold": 1}, max_retries=0).remote(name, 1)
    until(lambda: list(tmp_path.glob("t.*")))
    nodes.kill(second)
    with pytest.raises(libray.exceptions.WorkerCrashedError, match=r"node 1 \(.*\) (died|could not be reached)"):
        libray.get(ref, timeout=120)


def relay_of(node):
    found = subprocess.run(["pgrep", "-P", str(node.pid), "-f", "libray-relay"], stdout=subprocess.PIPE, text=True)
    pids = found.stdout.split()
    return int(pids[0]) if pids else None


@pytest.mark.parametrize("which", [0, 1])
def test_the_death_of_a_relay_costs_its_tasks_an_attempt(nodes, tmp_path, which):
    nodes.add_node(resources={"gold": 2})
    nodes.wait_for_nodes()
    libray.init(nodes.head.session)
    name = str(tmp_path / "t")
    ref = run.options(resources={"gold": 1}, max_retries=3).remote(name, 5)
    until(lambda: list(tmp_path.glob("t.*")))
    relay = relay_of(nodes.list_all_nodes()[which])
    os.kill(relay, 9)
    open(f"{name}.go", "w").close()
    assert libray.get(ref, timeout=120) == 5
    there = where.options(resources={"gold": 1})
    assert libray.get(there.remote(), timeout=120) == libray.nodes()[1]["NodeID"]
    until(lambda: relay_of(nodes.list_all_nodes()[which]) not in (None, relay))


def test_the_end_of_a_program_ends_what_runs_for_it_elsewhere(nodes, tmp_path):
    nodes.add_node(resources={"gold": 1})
    nodes.wait_for_nodes()
    libray.init(nodes.head.session)
    run.options(resources={"gold": 1}).remote(str(tmp_path / "t"), 1)
    until(lambda: [f for f in tmp_path.glob("t.*") if f.read_text()])
    pid = int(next(tmp_path.glob("t.*")).read_text())
    libray.shutdown()
    until(lambda: not runs(pid))


def test_what_a_relay_left_elsewhere_ends_though_nothing_follows(nodes, tmp_path):
    nodes.add_node(resources={"gold": 1})
    nodes.wait_for_nodes()
    libray.init(nodes.head.session)
    pid = libray.get(worker.options(resources={"gold": 1}).remote(), timeout=120)
    os.kill(relay_of(nodes.head), 9)
    libray.shutdown()  # the relay that knew of the job is gone: the next one says so to the other node
    until(lambda: not runs(pid))
