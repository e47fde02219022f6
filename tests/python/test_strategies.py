"""Node affinity, node labels and the named strategies on one node; groups end with their job."""

import pytest
from conftest import eventually

import libray
from libray.api import placement as pl
from libray import exceptions as exc


@pytest.fixture(scope="module")
def node():
    if libray.is_initialized():
        libray.shutdown()
    yield libray.init(num_cpus=2, labels={"zone": "north", "tier": "fast"})
    libray.shutdown()


pytestmark = pytest.mark.usefixtures("node")


@libray.remote
def where():
    return libray.get_runtime_context().get_node_id()


@libray.remote
class Here:
    def node(self):
        return libray.get_runtime_context().get_node_id()


def me():
    return libray.get_runtime_context().get_node_id()


def other_node():
    mine = bytearray.fromhex(me())
    mine[0] ^= 0xFF
    return mine.hex()


@pytest.mark.parametrize("strategy", ["DEFAULT", "SPREAD"])
def test_named_strategies(strategy):
    assert libray.get(where.options(scheduling_strategy=strategy).remote()) == me()
    actor = Here.options(scheduling_strategy=strategy).remote()
    assert libray.get(actor.node.remote()) == me()


@pytest.mark.parametrize("soft", [False, True])
def test_affinity_to_this_node(soft):
    strategy = pl.NodeAffinitySchedulingStrategy(me(), soft=soft)
    assert libray.get(where.options(scheduling_strategy=strategy).remote()) == me()
    actor = Here.options(scheduling_strategy=strategy).remote()
    assert libray.get(actor.node.remote()) == me()


def test_affinity_to_a_node_that_is_not_there():
    hard = pl.NodeAffinitySchedulingStrategy(other_node(), soft=False)
    for _ in range(2):
        with pytest.raises(exc.TaskUnschedulableError, match="not alive"):
            libray.get(where.options(scheduling_strategy=hard).remote(), timeout=20)
    actor = Here.options(scheduling_strategy=hard).remote()
    with pytest.raises(exc.ActorUnschedulableError, match="not alive"):
        libray.get(actor.node.remote(), timeout=20)
    soft = pl.NodeAffinitySchedulingStrategy(other_node(), soft=True)
    assert libray.get(where.options(scheduling_strategy=soft).remote()) == me()


def test_wrong_strategies():
    with pytest.raises(ValueError):
        pl.NodeAffinitySchedulingStrategy("no hex", soft=False)
    with pytest.raises(ValueError):
        pl.NodeAffinitySchedulingStrategy("00" * 24, soft=False)
    with pytest.raises(ValueError):
        pl.NodeAffinitySchedulingStrategy(me(), soft=False, _spill_on_unavailable=True)
    with pytest.raises(ValueError):
        pl.NodeLabelSchedulingStrategy({})
    with pytest.raises(ValueError):
        pl.NodeLabelSchedulingStrategy({"zone": "north"})
    with pytest.raises(ValueError):
        pl.NodeLabelSchedulingStrategy({1: pl.Exists()})
    with pytest.raises(ValueError):
        pl.In()
    for selector in ({"zone": "in(a"}, {"zone": ""}, {"zone": 1}, {"": "x"}, {"zone": "in(a,!b)"}):
        with pytest.raises(ValueError):
            where.options(label_selector=selector)
    with pytest.raises(TypeError):
        where.options(label_selector="zone")
    with pytest.raises(TypeError):
        where.options(fallback_strategy={"label_selector": {}})


def runs(**options):
    return libray.get(where.options(**options).remote(), timeout=20) == me()


def waits(**options):
    return not libray.wait([where.options(**options).remote()], timeout=0.3)[0]


@pytest.mark.parametrize(
    "wanted", ["north", "in(north, south)", "!south", "!in(south,east)"]
)
def test_labels_that_match(wanted):
    assert runs(label_selector={"zone": wanted})


def test_labels_that_do_not_match():
    assert waits(label_selector={"zone": "south"})
    assert waits(label_selector={"zone": "!north"})
    assert waits(label_selector={"zone": "north", "color": "red"})
    assert waits(
        label_selector={"zone": "south"}, fallback_strategy=[{"label_selector": {"zone": "east"}}]
    )
    assert runs(
        label_selector={"zone": "south"}, fallback_strategy=[{"label_selector": {"zone": "north"}}]
    )
    label = pl.NodeLabelSchedulingStrategy
    assert waits(scheduling_strategy=label({"zone": pl.NotIn("north")}))
    assert waits(scheduling_strategy=label({"zone": pl.DoesNotExist()}))
    assert runs(scheduling_strategy=label({"zone": pl.In("north"), "tier": pl.Exists()}))
    assert runs(scheduling_strategy=label({}, soft={"zone": pl.In("south")}))
    actor = Here.options(label_selector={"zone": "south"}).remote()
    assert libray.wait([actor.node.remote()], timeout=0.3)[0] == []


def test_labels_are_told():
    labels = libray.get_runtime_context().get_node_labels()
    assert labels["zone"] == "north" and labels["ray.io/node-id"] == me()
    assert libray.nodes()[0]["Labels"]["tier"] == "fast"
    assert runs(label_selector={"ray.io/node-id": me()})

    @libray.remote
    def there():
        return libray.get_runtime_context().get_node_labels()

    assert libray.get(there.remote()) == labels


def test_groups_end_with_their_job(fresh, run_script):
    address = fresh(num_cpus=4, namespace="n").address_info["address"]
    program = """
        import sys, libray
        from libray.api.placement import placement_group
        libray.init(address=sys.argv[1], namespace="n")
        assert placement_group([{"CPU": 1}], name="short").wait(20)
        assert placement_group([{"CPU": 2}], name="long", lifetime="detached").wait(20)
    """
    run_script(program, address)
    eventually(lambda: libray.available_resources()["CPU"] == 2)
    group = pl.get_placement_group("long")
    assert group.bundle_specs == [{"CPU": 2}]
    assert libray.get(where.options(placement_group=group).remote()) == me()
    with pytest.raises(ValueError):
        pl.get_placement_group("short")
    pl.remove_placement_group(group)
    eventually(lambda: libray.available_resources()["CPU"] == 4)
