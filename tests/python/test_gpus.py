"""GPUs as tasks and actors see them: which are theirs, CUDA_VISIBLE_DEVICES, shares of one, death,
placement groups. The node is told how many it has: none of this needs a real one."""

import os
import time

import pytest

import libray
from libray import testing
from libray.core import accelerators


@pytest.fixture(scope="module")
def node():
    saved = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    yield libray.init(num_cpus=4, num_gpus=4)
    libray.shutdown()
    if saved is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = saved


@pytest.fixture
def four(node):
    """Four GPUs that nobody holds: a lease of the test before may last a moment."""
    testing.wait_until(lambda: libray.available_resources().get("GPU") == 4)


def seen():
    context = libray.get_runtime_context()
    ids = accelerators.get_gpu_ids()
    assert context.get_accelerator_ids()["GPU"] == [str(i) for i in ids]
    return ids, os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()


look = libray.remote(seen)


@libray.remote(num_gpus=1, max_calls=0)
def meet(folder, number):
    """Comes back once `number` tasks are here at the same time."""
    ids = seen()[0]
    open(os.path.join(folder, "-".join(map(str, ids)) + f"-{os.getpid()}"), "w").close()
    deadline = time.monotonic() + 30
    while len(os.listdir(folder)) < number:
        assert time.monotonic() < deadline, os.listdir(folder)
        time.sleep(0.01)
    return ids


def test_tasks_have_their_own(four, tmp_path):
    ids = libray.get([meet.remote(str(tmp_path), 4) for _ in range(4)])
    assert sorted(i for (i,) in ids) == [0, 1, 2, 3]
    both, visible, _ = libray.get(look.options(num_gpus=2).remote())
    assert len(set(both)) == 2 and visible == ",".join(map(str, both))


def test_tasks_without_see_what_the_driver_sees(four):
    ids, visible, _ = libray.get(look.options(num_gpus=1).remote())
    assert len(ids) == 1 and visible == str(ids[0])
    assert libray.get(look.remote())[:2] == ([], None)


def test_workers_for_gpus_are_others(four):
    """CUDA keeps what it saw at its first use, so no process runs tasks of both kinds, in whatever order."""
    kept = libray.remote(num_gpus=1, max_calls=0)(seen)

    @libray.remote
    class Holder:
        def seen(self):
            return seen()

    with_gpus, without = set(), set()
    for _ in range(10):
        without |= {pid for _, _, pid in libray.get([look.remote() for _ in range(8)])}
        with_gpus |= {pid for _, _, pid in libray.get([kept.remote() for _ in range(8)])}
    actor = Holder.options(num_gpus=1).remote()
    with_gpus.add(libray.get(actor.seen.remote())[2])
    assert not with_gpus & without
    assert len(with_gpus) <= 5  # and they are used again


def test_the_variable_is_set_before_the_function_is_loaded(four, tmp_path, monkeypatch):
    (tmp_path / "reads_at_import.py").write_text(
        "import os\nvisible = os.environ.get('CUDA_VISIBLE_DEVICES')\n"
        "def tell():\n    return visible\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import reads_at_import

    task = libray.remote(reads_at_import.tell).options(
        num_gpus=1, runtime_env={"env_vars": {"PYTHONPATH": str(tmp_path)}}
    )
    assert libray.get(task.remote()) in ("0", "1", "2", "3")


def test_one_runs_after_the_other_on_one(four, tmp_path):
    """More tasks than GPUs: never two of them with the same one at once."""

    @libray.remote(num_gpus=1, num_cpus=0, max_calls=0)
    def use(folder):
        (i,) = accelerators.get_gpu_ids()
        fd = os.open(os.path.join(folder, str(i)), os.O_CREAT | os.O_EXCL)
        time.sleep(0.005)
        os.unlink(os.path.join(folder, str(i)))
        os.close(fd)
        return i

    used = libray.get([use.remote(str(tmp_path)) for _ in range(100)])
    assert set(used) == {0, 1, 2, 3}


def test_shares(four, tmp_path):
    """Halves fill one before the next: four of them leave two GPUs whole."""

    @libray.remote(num_cpus=0)
    class Holder:
        def look(self):
            return seen()

    halves = [Holder.options(num_gpus=0.5).remote() for _ in range(4)]
    ids = sorted(i for (i,), _, _ in libray.get([h.look.remote() for h in halves]))
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert libray.available_resources()["GPU"] == 2
    assert len(libray.get(look.options(num_gpus=2).remote())[0]) == 2
    large = [Holder.options(num_gpus=0.6).remote() for _ in range(2)]
    libray.get([h.look.remote() for h in large])
    late = Holder.options(num_gpus=0.5).remote()  # twice 0.4 are free, and that is too little
    waits = late.look.remote()
    assert libray.wait([waits], timeout=1)[0] == []
    libray.kill(halves[0])
    assert libray.get(waits, timeout=30)[0] == [ids[0]] or libray.get(waits)[0] == [ids[2]]
    for actor in [*halves, *large, late]:
        libray.kill(actor)
    testing.wait_until(lambda: libray.available_resources().get("GPU") == 4)


def test_actors_keep_theirs(four):
    @libray.remote(num_gpus=2, max_restarts=1, max_task_retries=1)
    class Trainer:
        def __init__(self):
            self.at_start = seen()[:2]

        def look(self):
            return self.at_start, seen()[:2]

        async def later(self):
            return seen()[:2]

        def die(self):
            os._exit(1)

    trainer = Trainer.remote()
    at_start, now = libray.get(trainer.look.remote())
    assert at_start == now == libray.get(trainer.later.remote()) and len(now[0]) == 2
    assert now[1] == ",".join(map(str, now[0]))
    trainer.die.options(max_task_retries=0).remote()
    again, now = libray.get(trainer.look.remote())
    assert again == now and len(now[0]) == 2
    other = Trainer.remote()
    theirs = libray.get(other.look.remote())[1][0]
    assert sorted(now[0] + theirs) == [0, 1, 2, 3]
    libray.kill(other)
    libray.kill(trainer)
    testing.wait_until(lambda: libray.available_resources().get("GPU") == 4)


def test_death_gives_back(four):
    @libray.remote(num_gpus=4, max_retries=0)
    def crash():
        os._exit(1)

    for _ in range(3):
        with pytest.raises(libray.exceptions.WorkerCrashedError):
            libray.get(crash.remote())
    assert libray.get(look.options(num_gpus=4).remote())[0] == [0, 1, 2, 3]


def test_generators_and_nested_tasks(four):
    @libray.remote(num_gpus=1, num_returns="streaming")
    def stream():
        for _ in range(3):
            yield accelerators.get_gpu_ids()

    items = libray.get(list(stream.remote()))
    assert len({tuple(i) for i in items}) == 1 and len(items[0]) == 1

    @libray.remote(num_gpus=1)
    def parent():
        return accelerators.get_gpu_ids(), libray.get(look.options(num_gpus=1).remote())[0]

    mine, childs = libray.get(parent.remote())
    assert mine != childs and len(mine) == len(childs) == 1


def test_placement_groups(four):
    from libray.api import placement

    group = placement.placement_group([{"GPU": 2, "CPU": 1}, {"GPU": 0.5}])
    assert group.wait(30)
    inside = look.options(num_gpus=1, num_cpus=0, placement_group=group, placement_group_bundle_index=0)
    outside = look.options(num_gpus=1)
    theirs = {libray.get(inside.remote())[0][0] for _ in range(10)}
    assert len(theirs) <= 2
    assert libray.get(outside.remote())[0][0] not in theirs
    share = look.options(num_gpus=0.25, num_cpus=0, placement_group=group, placement_group_bundle_index=1)
    (shared,) = libray.get(share.remote())[0]
    assert shared not in theirs
    placement.remove_placement_group(group)
    testing.wait_until(lambda: libray.available_resources().get("GPU") == 4)


def test_one_and_a_half(four):
    with pytest.raises(ValueError, match="must be whole numbers. The specified quantity 1.5"):
        look.options(num_gpus=1.5).remote()


def test_in_the_driver(four):
    assert accelerators.get_gpu_ids() == []
    ids = libray.get_runtime_context().get_accelerator_ids()
    assert ids["GPU"] == [] and "TPU" in ids


PROGRAM = """
    import os, sys
    import libray
    libray.install_as_ray()
    import ray
    ray.init(num_cpus=2{more})

    @ray.remote
    def look():
        return ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")

    print(ray.get([look.options(num_gpus=1).remote(), look.remote()]), ray.cluster_resources().get("GPU"))
"""


@pytest.mark.parametrize(
    "env, expected",
    [
        ({}, "[([0], '0'), ([], None)] 2.0"),
        ({"CUDA_VISIBLE_DEVICES": "5,3"}, "[(['5'], '5'), ([], '5,3')] 2.0"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-ab,GPU-cd"}, "[(['GPU-ab'], 'GPU-ab'), ([], 'GPU-ab,GPU-cd')] 2.0"),
        ({"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}, "[([0], '0'), ([], '')] 2.0"),
        ({"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}, "[([0], None), ([], None)] 2.0"),
    ],
)
def test_variables(run_script, env, expected):
    cleared = {"CUDA_VISIBLE_DEVICES": None, **env}
    program = "    import os\n" + "".join(
        f"    os.environ.pop({k!r}, None)\n" if v is None else f"    os.environ[{k!r}] = {v!r}\n"
        for k, v in cleared.items()
    )
    done = run_script(program + PROGRAM.format(more=", num_gpus=2"))
    assert done.stdout.strip() == expected


def test_more_than_are_visible(run_script):
    done = run_script(
        PROGRAM.format(more=", num_gpus=3"), env={"CUDA_VISIBLE_DEVICES": "0,1"}, check=False
    )
    assert "ValueError: Attempting to start raylet with 3 GPU, but CUDA_VISIBLE_DEVICES contains" in done.stderr


def test_detection(monkeypatch):
    folders = {"/proc/driver/nvidia/gpus": ["0000:01:00.0", "0000:02:00.0", "0000:03:00.0"], "/dev": []}
    monkeypatch.setattr(accelerators, "_listed", lambda folder: folders.get(folder, []))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert accelerators.of_this_machine() == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
    assert accelerators.of_this_machine() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert accelerators.of_this_machine() == 0
    folders.update({"/proc/driver/nvidia/gpus": [], "/dev": ["nvidia0", "nvidia1", "nvidiactl", "null"]})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert accelerators.of_this_machine() == 2


def test_other_accelerators_are_told_apart_too(fresh, tmp_path, monkeypatch):
    monkeypatch.setenv("NEURON_RT_VISIBLE_CORES", "4,5,6,7")
    fresh(num_cpus=4, num_gpus=1, resources={"TPU": 4, "neuron_cores": 4, "plain": 4})

    @libray.remote(num_cpus=0)
    def look(folder, number):
        ids = libray.get_runtime_context().get_accelerator_ids()
        open(os.path.join(folder, str(os.getpid())), "w").close()
        testing.wait_until(lambda: len(os.listdir(folder)) >= number)
        names = ("CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS", "TPU_CHIPS_PER_HOST_BOUNDS", "NEURON_RT_VISIBLE_CORES")
        return ids, [os.environ.get(name) for name in names]

    def run(name, number, **resources):
        folder = tmp_path / name
        folder.mkdir()
        return libray.get([look.options(resources=resources).remote(str(folder), number) for _ in range(number)])

    rows = run("tpu", 2, TPU=2)
    assert sorted(i for ids, _ in rows for i in ids["TPU"]) == ["0", "1", "2", "3"]
    for ids, seen in rows:
        assert seen == [None, ",".join(ids["TPU"]), "1,2,1", "4,5,6,7"] and ids["GPU"] == []
    rows = run("neuron", 4, neuron_cores=1)
    assert sorted(i for ids, _ in rows for i in ids["neuron_cores"]) == ["4", "5", "6", "7"]
    assert all(seen == [None, None, None, ids["neuron_cores"][0]] for ids, seen in rows)
    (ids, seen), = run("plain", 1, plain=1)
    assert seen == [None, None, None, "4,5,6,7"] and not ids["TPU"]

    @libray.remote(num_gpus=1, resources={"TPU": 1})
    class Both:
        def ids(self):
            return libray.get_runtime_context().get_accelerator_ids(), os.environ["TPU_VISIBLE_CHIPS"]

    ids, seen = libray.get(Both.remote().ids.remote())
    assert ids["GPU"] == ["0"] and ids["TPU"] == [seen]
