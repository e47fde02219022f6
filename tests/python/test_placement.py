"""Placement groups, node affinity and node labels on one node."""

import os
import pickle
import signal
import time

import pytest
from conftest import Counter, eventually

import libray
from libray.api import placement as pl
from libray import exceptions as exc

IN = pl.PlacementGroupSchedulingStrategy


@pytest.fixture(scope="module")
def node():
    if libray.is_initialized():
        libray.shutdown()
    context = libray.init(
        num_cpus=4, num_gpus=1, resources={"disk": 2}, labels={"zone": "north", "tier": "fast"}
    )
    yield context
    libray.shutdown()


@pytest.fixture(autouse=True)
def clean(node):
    yield
    for key, row in pl.placement_group_table().items():
        if row["state"] != "REMOVED":
            pl.remove_placement_group(pl.PlacementGroup(pl.PlacementGroupID.from_hex(key)))
    eventually(lambda: libray.available_resources().get("CPU") == 4)


@libray.remote
def one():
    return 1


# ---- groups --------------------------------------------------------------------------------------------


def test_a_group_reserves_and_gives_back():
    group = pl.placement_group([{"CPU": 2}, {"CPU": 1, "GPU": 1, "disk": 0}])
    assert libray.get(group.ready()) == group
    assert group.wait(10) and group.wait(0)
    free = libray.available_resources()
    assert free["CPU"] == 1 and "GPU" not in free and free["disk"] == 2
    assert libray.cluster_resources()["CPU"] == 4
    assert group.bundle_count == 2 and group.bundle_specs[0] == {"CPU": 2}
    pl.remove_placement_group(group)
    pl.remove_placement_group(group)
    eventually(lambda: libray.available_resources()["CPU"] == 4)


def test_tasks_and_actors_run_in_their_bundle():
    group = pl.placement_group([{"CPU": 1}, {"CPU": 2}])
    assert libray.get(one.options(scheduling_strategy=IN(group)).remote()) == 1
    assert libray.get(one.options(placement_group=group, placement_group_bundle_index=1).remote()) == 1
    actors = [
        Counter.options(num_cpus=1, scheduling_strategy=IN(group)).remote() for _ in range(4)
    ]
    assert libray.get([a.add.remote() for a in actors[:3]]) == [1, 1, 1]
    ready, waiting = libray.wait([actors[3].add.remote()], timeout=0.3)
    assert not ready  # the fourth has no room, although a processor outside is free
    assert libray.available_resources()["CPU"] == 1
    libray.kill(actors[0])
    assert libray.get(waiting) == [1]


def test_groups_that_do_not_fit_wait_their_turn():
    first = pl.placement_group([{"CPU": 3}])
    assert first.wait(10)
    second = pl.placement_group([{"CPU": 2}])
    assert not second.wait(0.1)
    assert pl.placement_group_table(second)["state"] == "PENDING"
    done = one.options(scheduling_strategy=IN(second)).remote()
    assert libray.wait([done], timeout=0.2)[0] == []
    pl.remove_placement_group(first)
    assert second.wait(10) and libray.get(done) == 1


def test_busy_tasks_make_room_for_a_group():
    @libray.remote
    def nap():
        time.sleep(0.02)

    refs = [nap.remote() for _ in range(200)]
    group = pl.placement_group([{"CPU": 4}])
    assert group.wait(20)
    pl.remove_placement_group(group)
    libray.get(refs)


def test_removal_kills_and_fails(tmp_path):
    @libray.remote
    def hang(path):
        open(path, "w").close()
        time.sleep(1000)

    group = pl.placement_group([{"CPU": 2}])
    inside = {"scheduling_strategy": IN(group)}
    running = hang.options(max_retries=0, **inside).remote(str(tmp_path / "a"))
    again = hang.options(max_retries=3, **inside).remote(str(tmp_path / "b"))
    eventually(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())
    waiting = hang.options(**inside).remote(str(tmp_path / "c"))
    unborn = Counter.options(num_cpus=1, **inside).remote()
    call = unborn.add.remote()
    pl.remove_placement_group(group)
    with pytest.raises(exc.WorkerCrashedError):
        libray.get(running)
    for ref in (again, waiting, one.options(**inside).remote()):
        with pytest.raises(exc.TaskPlacementGroupRemoved):
            libray.get(ref, timeout=20)
    for ref in (call, unborn.add.remote()):
        with pytest.raises(exc.ActorPlacementGroupRemoved):
            libray.get(ref, timeout=20)
    assert pl.placement_group_table(group)["state"] == "REMOVED"
    assert not (tmp_path / "c").exists()


def test_removal_ends_actors_for_good():
    group = pl.placement_group([{"CPU": 1}])
    actor = Counter.options(
        num_cpus=1, max_restarts=-1, max_task_retries=-1, scheduling_strategy=IN(group)
    ).remote()
    pid = libray.get(actor.pid.remote())
    pl.remove_placement_group(group)
    with pytest.raises(exc.ActorDiedError, match="placement group"):
        libray.get(actor.add.remote(), timeout=20)
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))


def test_a_restarted_actor_stays_in_its_group():
    group = pl.placement_group([{"CPU": 1}])
    actor = Counter.options(
        num_cpus=1, max_restarts=1, max_task_retries=-1, scheduling_strategy=IN(group)
    ).remote()
    pid = libray.get(actor.pid.remote())
    os.kill(pid, signal.SIGKILL)
    assert libray.get(actor.pid.remote(), timeout=30) != pid
    assert libray.available_resources()["CPU"] == 3


def test_ids_names_and_pickles():
    group = pl.placement_group([{"CPU": 1}], name="mine", strategy="STRICT_PACK")
    assert pl.get_placement_group("mine") == group
    copy = pickle.loads(pickle.dumps(group))
    assert copy == group and hash(copy) == hash(group) and {copy: 1}[group] == 1
    assert copy != pl.placement_group([{"CPU": 1}])
    assert pl.PlacementGroup.empty().is_empty and not group.is_empty
    with pytest.raises(exc.RaySystemError, match="'mine' already exists"):
        pl.placement_group([{"CPU": 1}], name="mine")
    row = pl.placement_group_table(group)
    assert row["name"] == "mine" and row["strategy"] == "STRICT_PACK"
    assert row["bundles"] == {0: {"CPU": 1.0}} and row["placement_group_id"] == group.id.hex()
    pl.remove_placement_group(group)
    with pytest.raises(ValueError, match="Failed to look up placement group"):
        pl.get_placement_group("mine")
    with pytest.raises(ValueError):
        pl.get_placement_group("")
    pl.remove_placement_group(pl.PlacementGroup(pl.PlacementGroupID.from_random()))


@pytest.mark.parametrize(
    "bundles, options, error",
    [
        ([], {}, ValueError),
        ({"CPU": 1}, {}, ValueError),
        ([{}], {}, ValueError),
        ([{"CPU": 0}], {}, ValueError),
        ([{"CPU": -1}], {}, ValueError),
        ([{"CPU": "1"}], {}, ValueError),
        ([{"bundle": 1}], {}, ValueError),
        ([{"CPU": 1}], {"strategy": "SCATTER"}, ValueError),
        ([{"CPU": 1}], {"lifetime": "long"}, ValueError),
        ([{"CPU": 1}], {"bundle_label_selector": [{}, {}]}, ValueError),
    ],
)
def test_wrong_groups(bundles, options, error):
    with pytest.raises(error):
        pl.placement_group(bundles, **options)


def test_wrong_options():
    group = pl.placement_group([{"CPU": 1}, {"CPU": 1}, {"GPU": 1}])
    for index in (3, -2):
        with pytest.raises(ValueError, match=f"bundle index {index} is invalid"):
            one.options(scheduling_strategy=IN(group, index)).remote()
        with pytest.raises(ValueError, match=f"bundle index {index} is invalid"):
            Counter.options(placement_group=group, placement_group_bundle_index=index).remote()
    with pytest.raises(ValueError, match="must be -1"):
        one.options(placement_group_bundle_index=1).remote()
    with pytest.raises(ValueError, match="cannot fit into any bundles"):
        one.options(num_cpus=2, placement_group=group).remote()
    with pytest.raises(ValueError, match="deprecated"):
        one.options(scheduling_strategy="SPREAD", placement_group=group)
    with pytest.raises(TypeError):
        one.options(placement_group="somewhere")
    with pytest.raises(ValueError, match="Invalid scheduling_strategy value ELSEWHERE"):
        one.options(scheduling_strategy="ELSEWHERE")
    with pytest.raises(TypeError):
        one.options(scheduling_strategy=1)
    with pytest.raises(ValueError):
        IN("group")
    only_gpu = pl.placement_group([{"GPU": 1}])
    with pytest.raises(ValueError, match="Consider creating a placement group with CPU"):
        Counter.options(placement_group=only_gpu).remote()


def test_hopeless_groups_wait():
    apart = pl.placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
    large = pl.placement_group([{"CPU": 50}])
    single = pl.placement_group([{"CPU": 1}], strategy="STRICT_SPREAD")
    assert single.wait(10)
    assert not apart.wait(0.2) and not large.wait(0.2)
    assert libray.available_resources()["CPU"] == 3


# ---- children ------------------------------------------------------------------------------------------


@libray.remote(num_cpus=0)
def where():
    group = pl.get_current_placement_group()
    return None if group is None else group.id.hex()


@libray.remote(num_cpus=0)
class Where:
    def here(self):
        group = pl.get_current_placement_group()
        return None if group is None else group.id.hex()

    def child(self):
        return libray.get(where.remote())


@libray.remote(num_cpus=1)
def family():
    plain = where.remote()
    outside = where.options(placement_group=None).remote()
    actor = Where.remote()
    grandchild = libray.remote(num_cpus=0)(lambda: libray.get(where.remote())).remote()
    context = libray.get_runtime_context()
    return [context.get_placement_group_id()] + libray.get(
        [plain, outside, actor.here.remote(), actor.child.remote(), grandchild]
    )


def test_children_are_captured_when_asked():
    group = pl.placement_group([{"CPU": 1}])
    assert pl.get_current_placement_group() is None
    me = group.id.hex()
    captures = family.options(
        scheduling_strategy=IN(group, placement_group_capture_child_tasks=True)
    )
    assert libray.get(captures.remote()) == [me, me, None, me, me, me]
    assert libray.get(family.options(scheduling_strategy=IN(group)).remote()) == [me] + 5 * [None]
    assert libray.get([where.remote() for _ in range(8)]) == 8 * [None]  # in the same workers
