"""What third-party packages for Ray rely on besides the calls themselves: how `ray` is imported, what classes and
handles tell of themselves, resources that every node has, the loop of asyncio constructors, dask."""

import os

import pytest

import libray
from conftest import eventually
from libray.core import import_ray


@pytest.fixture(scope="module")
def ray():
    libray.init(num_cpus=2)
    yield libray
    libray.shutdown()


@pytest.fixture
def program(run_script):
    """Runs a program that only says `import ray`, found by PYTHONPATH as third-party programs find it."""
    root = os.path.dirname(os.path.dirname(libray.__file__))
    path = os.pathsep.join([import_ray.SHIM, root, os.environ.get("PYTHONPATH", "")])

    def run(source, **options):
        done = run_script(source, env={"PYTHONPATH": path, "RAY_DEDUP_LOGS": "0"}, **options)
        return done.stdout.splitlines()

    return run


def test_import_by_a_lazy_loader(program):
    out = program(
        """
        import importlib.util, sys
        spec = importlib.util.find_spec("ray")
        spec.loader = importlib.util.LazyLoader(spec.loader)
        ray = importlib.util.module_from_spec(spec)
        sys.modules["ray"] = ray
        spec.loader.exec_module(ray)
        print(ray.is_initialized(), sys.modules["ray"] is ray)
        import ray.util.queue
        @ray.remote
        def where():
            import ray as there
            return there.__file__ == ray.__file__
        print(ray.get(where.remote()))
        """
    )
    assert out == ["False True", "True"]


class Plain:
    LIMIT = 3

    @staticmethod
    def twice(x):
        return 2 * x

    def method(self):
        return self.LIMIT


def test_classes_and_functions_lead_to_the_plain_ones(ray):
    actor_class = ray.remote(Plain)
    assert actor_class.LIMIT == 3 and actor_class.twice(4) == 8
    assert actor_class.__ray_metadata__.modified_class is Plain
    assert actor_class.__ray_metadata__.class_name == "Plain"
    with pytest.raises(AttributeError, match="nothing"):
        actor_class.nothing
    assert ray.remote(Plain.twice)._function is Plain.twice


def test_dir_of_a_handle_is_what_can_be_called(ray):
    handle = ray.remote(Plain).remote()
    assert [n for n in dir(handle) if not n.startswith("__")] == ["method", "twice"]
    assert "__ray_ready__" in dir(handle)
    for name in dir(handle):  # proxies read every name
        if name != "__init__":
            getattr(handle, name)


def test_constructor_of_an_asyncio_actor_runs_on_its_loop(ray):
    @ray.remote
    class Ticker:
        def __init__(self):
            import asyncio

            self.loop = asyncio.get_running_loop()
            self.ticks = 0
            self.task = self.loop.create_task(self.tick())

        async def tick(self):
            import asyncio

            while True:
                self.ticks += 1
                await asyncio.sleep(0.001)

        async def state(self):
            import asyncio

            return self.loop is asyncio.get_running_loop(), self.ticks

    ticker = Ticker.remote()
    eventually(lambda: ray.get(ticker.state.remote())[1] > 2)
    assert ray.get(ticker.state.remote())[0]


def test_synchronous_generators_of_an_asyncio_actor(ray):
    @ray.remote
    class Numbers:
        def some(self, n):
            yield from range(n)

        async def none(self):
            return None

        def who(self):
            raise ValueError(libray.get_runtime_context().get_actor_id())

    numbers = Numbers.remote()
    assert [ray.get(r) for r in numbers.some.remote(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match=numbers._actor_id.hex()) as caught:
        ray.get(numbers.who.remote())
    assert f"actor_id={numbers._actor_id.hex()}" in str(caught.value)


def test_init_checks_its_numbers(fresh):
    for wrong, error in (
        ({"num_cpus": "2"}, TypeError),
        ({"num_gpus": -1}, ValueError),
        ({"resources": "box"}, TypeError),
        ({"resources": {"box": -1}}, ValueError),
        ({"object_store_memory": -1}, ValueError),
        ({"object_store_memory": 100}, ValueError),
        ({"runtime_env": "x"}, TypeError),
        ({"address": 3}, TypeError),
        ({"address": "127.0.0.1:6379"}, ConnectionError),
    ):
        with pytest.raises(error):
            fresh(**wrong)
        assert not libray.is_initialized()


def test_state_of_a_cluster_that_does_not_run():
    libray.shutdown()
    for ask in (libray.nodes, libray.cluster_resources, libray.available_resources):
        with pytest.raises(libray.exceptions.RaySystemError, match="not been started"):
            ask()
        assert not libray.is_initialized()


def test_temp_dir_that_others_may_write_to(fresh, tmp_path):
    shared = tmp_path.parent.parent / "s"  # short: sockets lie in it
    shared.mkdir(exist_ok=True)
    shared.chmod(0o1777)
    session = fresh(num_cpus=1, _temp_dir=str(shared))["session_dir"]
    assert session.startswith(f"{shared}/libray-{os.getuid()}/")
    assert os.stat(os.path.dirname(session)).st_mode & 0o077 == 0


def test_large_definitions_are_warned_of(ray, caplog):
    import numpy

    big = numpy.zeros(2 << 20)

    @ray.remote
    def captures():
        return big.nbytes

    assert ray.get(captures.remote()) == 16 << 20
    assert "captures is very large (16 MiB)" in caplog.text


def test_autoscaler_requests_mean_nothing(program):
    out = program(
        """
        import ray
        from ray.autoscaler import sdk
        ray.init(num_cpus=1)
        print(sdk.request_resources(num_cpus=4), sdk.request_resources(bundles=[{"CPU": 1}]))
        try:
            sdk.request_resources(bundles={"CPU": 1})
        except TypeError:
            print("TypeError")
        """
    )
    assert out == ["None None", "TypeError"]


DASK = """
import dask, ray
from ray.util.dask import RayDaskCallback, disable_dask_on_ray, enable_dask_on_ray, ray_dask_get
ray.init(num_cpus=2)

@dask.delayed
def inc(x):
    return x + 1

@dask.delayed
def add(*values):
    return sum(values)

print(add(inc(1), inc(2)).compute(scheduler=ray_dask_get))
enable_dask_on_ray()
"""


def test_dask_callbacks(program):
    pytest.importorskip("dask")
    out = program(
        DASK
        + """
log = []

class Log(RayDaskCallback):
    def _ray_presubmit(self, task, key, deps):
        log.append("before")
        return 100 if key == "given" else None
    def _ray_postsubmit(self, task, key, deps, object_ref):
        log.append(type(object_ref).__name__)
    def _ray_pretask(self, key, object_refs):
        return key
    def _ray_posttask(self, key, result, state):
        assert state == key
        ray.get(ray.get_actor("seen").add.remote(result))
    def _ray_finish(self, result):
        log.append(result)

@ray.remote
class Seen:
    def __init__(self):
        self.values = []
    def add(self, value):
        self.values.append(value)
    def get(self):
        return self.values

seen = Seen.options(name="seen").remote()
with Log():
    print(inc(10).compute(), inc(1, dask_key_name="given").compute(), log)
print(inc(20).compute(), len(log), ray.get(seen.get.remote()))
disable_dask_on_ray()
print(inc(3).compute(scheduler="synchronous"))
"""
    )
    assert out[0] == "5"
    assert out[1] == "11 100 ['before', 'ObjectRef', [11], 'before', [100]]"
    assert out[2:] == ["21 5 [11]", "4"]


def test_dask_persists_and_passes_options(program):
    pytest.importorskip("dask")
    out = program(
        DASK
        + """
kept = inc(1).persist()
print({type(getattr(v, "value", v)).__name__ for v in dict(kept.dask).values()}, add(kept, kept).compute())

@dask.delayed
def cpus():
    return ray.get_runtime_context().get_assigned_resources()["CPU"]

with dask.annotate(ray_remote_args={"num_cpus": 2}):
    wide = cpus()
print(wide.compute(optimize_graph=False), cpus().compute())
try:
    with dask.annotate(resources={"GPU": 1}):
        inc(1).compute(optimize_graph=False)
except ValueError as e:
    print("ray_remote_args" in str(e))

@dask.delayed
def bad():
    raise KeyError("lost")

try:
    add(inc(1), bad()).compute()
except KeyError as e:
    print(isinstance(e, ray.exceptions.RayTaskError))
"""
    )
    assert out == ["5", "{'ObjectRef'} 4", "2.0 1.0", "True", "True"]


def test_types_have_the_names_of_ray(program):
    out = program(
        """
        import ray
        context = ray.init(num_cpus=1)
        @ray.remote
        class A:
            def m(self):
                return 1
        @ray.remote
        def f():
            raise ValueError("no")
        a, ref = A.remote(), f.remote()
        for thing in (context, a, f, ray.get_runtime_context(), ref.task_id()):
            print(f"{type(thing).__module__}.{type(thing).__qualname__}")
        try:
            ray.get(ref)
        except ValueError as e:
            print(f"{type(e).__module__}.{type(e).__qualname__}")
        again = ray.cloudpickle.loads(ray.cloudpickle.dumps((ray.ObjectRef, type(a), ray.exceptions.RayError)))
        print(again == (ray.ObjectRef, ray.actor.ActorHandle, ray.exceptions.RayError))
        """
    )
    assert out == [
        "ray._private.worker.RayContext",
        "ray.actor.ActorHandle",
        "ray.remote_function.RemoteFunction",
        "ray.runtime_context.RuntimeContext",
        "ray._raylet.TaskID",
        "ray.exceptions.RayTaskError(ValueError)",
        "True",
    ]


def test_failed_constructor_names_its_actor(ray):
    @ray.remote
    class Broken:
        def __init__(self):
            raise OSError("no disk")

    broken = Broken.remote()
    with pytest.raises(libray.exceptions.ActorDiedError, match="no disk") as caught:
        ray.get(broken.__ray_ready__.remote())
    assert f"actor_id={broken._actor_id.hex()}" in str(caught.value)


def test_every_node_has_memory_and_names_itself(ray):
    total = ray.cluster_resources()
    assert {"CPU", "memory", "object_store_memory", "node:127.0.0.1"} <= set(total)
    assert total["memory"] > 100 << 20 and ray.nodes()[0]["Resources"]["memory"] == total["memory"]

    @ray.remote(memory=64 << 20, resources={"node:127.0.0.1": 0.01})
    def held():
        return libray.get_runtime_context().get_assigned_resources()

    assert ray.get(held.remote())["memory"] == 64 << 20
    eventually(lambda: ray.available_resources()["memory"] == total["memory"])


@pytest.mark.parametrize("amount", [float("inf"), float("nan"), 2e13])
def test_amounts_that_make_no_sense_are_errors_of_the_caller(ray, amount):
    with pytest.raises(ValueError):
        ray.remote(lambda: 1).options(resources={"box": amount}).remote()
    with pytest.raises(ValueError):
        ray.remote(lambda: 1).options(memory=amount).remote()
    assert ray.get(ray.remote(lambda: 1).remote()) == 1  # this driver lives


def test_objects_that_were_put_are_listed(program):
    out = program(
        """
        import ray
        from ray.util.client.common import ClientObjectRef
        from ray.util.state import list_objects
        ray.init(num_cpus=1)
        ref = ray.put([0.5] * 100_000)
        print(isinstance(ref, ClientObjectRef))
        print([o.object_size > 100_000 for o in list_objects() if o.object_id == ref.hex()])
        """
    )
    assert out == ["False", "[True]"]


def test_thousands_of_different_demands(ray):
    small = ray.remote(lambda: 1)
    refs = [small.options(num_cpus=0, memory=1000 + n).remote() for n in range(6000)]
    assert sum(ray.get(refs)) == 6000


def test_no_cpus_at_all(fresh):
    fresh(num_cpus=0)
    assert "CPU" not in libray.cluster_resources()
    assert libray.get(libray.remote(lambda: 5).options(num_cpus=0).remote()) == 5
    assert libray.wait([libray.remote(lambda: 5).remote()], timeout=0.3)[0] == []
    actor = libray.remote(Plain).remote()
    assert libray.get(actor.method.remote()) == 3
