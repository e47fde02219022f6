"""Rules of Ray that programs lean on without thinking: resources that come back, devices, what runs again, what a
class shows, what an asyncio actor may do."""

import asyncio
import atexit
import inspect
import os
import time
import warnings
import weakref

import pytest

import libray
from libray import exceptions as exc


@pytest.fixture
def four(fresh):
    fresh(num_cpus=4, num_gpus=4)


# ---- resources


def test_a_worker_that_retires_gives_back_what_it_held(fresh, eventually):
    fresh(num_cpus=4)

    @libray.remote(num_cpus=3, max_calls=1)
    def once():
        return os.getpid()

    @libray.remote(num_cpus=3, max_retries=0)
    def crash():
        os._exit(1)

    for k in range(6):
        if k % 2:
            with pytest.raises(exc.WorkerCrashedError):
                libray.get(crash.remote())
        else:
            libray.get(once.remote())
        eventually(lambda: libray.available_resources().get("CPU") == 4, 5)
        time.sleep(0.3)  # a grant on its way takes it once more; a lease that is not used is kept for 0.2 s
        eventually(lambda: libray.available_resources().get("CPU") == 4, 5)


# ---- what runs again


def test_who_runs_again_makes_actors_again(fresh, tmp_path):
    fresh(num_cpus=4)

    @libray.remote
    class Child:
        def ping(self):
            return os.getpid()

    @libray.remote(max_restarts=1, max_task_retries=-1)
    class Parent:
        def __init__(self):
            self.child = Child.remote()

        def child_pid(self):
            return libray.get(self.child.ping.remote())

        def die(self):
            if self.child and not os.path.exists(tmp_path / "died"):
                (tmp_path / "died").touch()
                os._exit(1)

    parent = Parent.remote()
    first = libray.get(parent.child_pid.remote())
    libray.get(parent.die.remote())
    assert libray.get(parent.child_pid.remote(), timeout=30) != first

    @libray.remote(max_retries=2)
    def task():
        child = Child.remote()
        pid = libray.get(child.ping.remote())
        if not os.path.exists(tmp_path / "task"):
            (tmp_path / "task").touch()
            os._exit(1)
        return pid

    assert libray.get(task.remote(), timeout=30) > 0


@pytest.mark.parametrize("returns", ["streaming", "dynamic", 3])
def test_generators_are_retried_whatever_they_return(four, tmp_path, returns):
    @libray.remote(max_retries=1, retry_exceptions=[KeyError])
    def items():
        for k in range(3):
            yield k
            if not os.path.exists(tmp_path / "tried"):
                (tmp_path / "tried").touch()
                raise KeyError("once")

    made = items.options(num_returns=returns).remote()
    refs = libray.get(made) if returns == "dynamic" else made
    assert [libray.get(ref) for ref in refs] == [0, 1, 2]


# ---- classes and their methods


@pytest.mark.parametrize("local", [False, True])
def test_methods_of_handles_travel(fresh, local):
    fresh(num_cpus=2, local_mode=local)

    @libray.remote
    class Pair:
        def both(self, a, b=2, **more):
            return a, b

    @libray.remote
    def call(method):
        return libray.get(method.remote(1, c=3))

    pair = Pair.remote()
    assert libray.get(call.remote(pair.both)) == (1, 2)
    assert libray.get(call.remote(pair.both.options(num_returns=2))) == [1, 2]


def test_the_actor_class_shows_what_the_class_has(four):
    class Base:
        LIMIT = 3

        @staticmethod
        def double(x):
            return 2 * x

    @libray.remote
    class Shown(Base):
        @classmethod
        def limit(cls):
            return cls.LIMIT

        def inside(self):
            return Shown.LIMIT, Shown.double(4), Shown.limit(), isinstance(self, Shown)

    assert (Shown.LIMIT, Shown.double(2), Shown.limit()) == (3, 4, 3)
    assert {"inside", "limit", "options", "remote"} <= set(dir(Shown))
    with pytest.raises(AttributeError, match="nothing"):
        Shown.nothing
    assert libray.get(Shown.remote().inside.remote()) == (3, 8, 3, True)


def test_an_attribute_hides_no_method(four):
    @libray.remote
    class Switch:
        def __init__(self):
            self.on = True

        def on(self):
            return self.on

        @classmethod
        def kind(cls):
            return cls.__name__

        @staticmethod
        def twice(x):
            return 2 * x

    switch = Switch.remote()
    assert libray.get([switch.on.remote(), switch.kind.remote(), switch.twice.remote(4)]) == [
        True,
        "Switch",
        8,
    ]


def test_options_that_libraries_add():
    @libray.remote(_metadata={"mine": {"a": 1, "b": 2}, "yours": {"c": 3}})
    def f():
        return 1

    changed = f.options(_metadata={"mine": {"b": 4}, "theirs": {"d": 5}})
    assert changed._default_options["_metadata"] == {
        "mine": {"a": 1, "b": 4},
        "yours": {"c": 3},
        "theirs": {"d": 5},
    }
    with pytest.raises(TypeError, match="_metadata"):
        f.options(_metadata=3)
    with pytest.raises(TypeError, match="lifetime"):
        libray.remote(lifetime=3)(type("A", (), {}))


def test_too_large_actor_classes_are_named(fresh):
    fresh(num_cpus=1, local_mode=True)
    blob = bytearray(100 << 20)

    @libray.remote
    class Heavy:
        def size(self):
            return len(blob)

    with pytest.raises(ValueError, match="The actor Heavy is too large"):
        Heavy.remote()
    with pytest.raises(ValueError, match="The remote function .*light is too large"):

        @libray.remote
        def light():
            return len(blob)

        light.remote()


# ---- asyncio actors


def test_an_asyncio_actor_has_generators_of_both_kinds(four):
    @libray.remote
    class Source:
        def plain(self, n):
            yield from range(n)

        def maker(self, n):  # no generator function: the generator is its result
            return list(self.plain(n))

        async def slow(self, n):
            for k in range(n):
                await asyncio.sleep(0)
                yield k

        def broken(self):
            raise KeyError("early")
            yield

    source = Source.remote()
    assert [libray.get(ref) for ref in source.plain.remote(3)] == [0, 1, 2]
    assert [libray.get(ref) for ref in source.slow.remote(3)] == [0, 1, 2]
    assert libray.get(source.maker.remote(2)) == [0, 1]
    items = source.broken.remote()
    with pytest.raises(KeyError):
        libray.get(next(items))
    with pytest.raises(StopIteration):
        next(items)


@pytest.mark.parametrize("where", ["constructor", "method"])
def test_any_task_of_an_asyncio_actor_may_end_it(four, tmp_path, eventually, where):
    @libray.remote
    class Leaves:
        def __init__(self):
            atexit.register((tmp_path / "left").touch)
            if where == "constructor":
                asyncio.create_task(self.leave())  # the loop runs while the actor is made

        async def leave(self):
            await asyncio.sleep(0.01)
            libray.exit_actor()
            (tmp_path / "after").touch()

        async def begin(self):
            asyncio.create_task(self.leave())

    actor = Leaves.remote()
    if where == "method":
        libray.get(actor.begin.remote())
    eventually((tmp_path / "left").exists)
    assert not (tmp_path / "after").exists()
    with pytest.raises(exc.RayActorError):
        libray.get(actor.begin.remote(), timeout=20)


# ---- errors and context


def test_the_error_of_an_argument_is_a_task_error_too(four):
    @libray.remote
    class Dies:
        def now(self):
            os._exit(1)

    @libray.remote
    def needs(x):
        return x

    with pytest.raises(exc.RayTaskError, match="needs") as caught:
        libray.get(needs.remote(Dies.remote().now.remote()), timeout=20)
    assert isinstance(caught.value, exc.ActorDiedError)
    assert isinstance(caught.value.cause, exc.ActorDiedError)


def test_an_argument_of_a_constructor_that_cannot_be_pickled_is_named(four):
    import threading

    @libray.remote
    class Takes:
        def __init__(self, a, b=None):
            pass

    with pytest.raises(TypeError, match=r"argument <unlocked _thread.lock .*Takes.__init__"):
        Takes.remote(1, b=threading.Lock())


def test_callbacks_and_values_are_not_kept(four, eventually):
    class Value:
        pass

    @libray.remote
    def make():
        return Value()

    seen = []

    def callback(value):
        seen.append(weakref.ref(value))

    kept = weakref.ref(callback)
    make.remote()._on_completed(callback)
    eventually(lambda: seen)
    del callback
    eventually(lambda: kept() is None and seen[0]() is None, 5)


def test_the_context_starts_nothing(run_script):
    run_script(
        """
        import libray
        context = libray.get_runtime_context()
        assert not libray.is_initialized()
        for ask in (context.get_job_id, context.get_node_id):
            try:
                ask()
            except AssertionError as e:
                assert "not been initialized" in str(e)
            else:
                raise SystemExit("no error")
        """
    )


def test_old_properties_of_the_context_warn(four):
    context = libray.get_runtime_context()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert context.node_id.hex() == context.get_node_id()
        assert context.job_id.hex() == context.get_job_id()
        assert [str(w.message) for w in caught] == ["Use get_node_id() instead", "Use get_job_id() instead"]
        assert {"job_id", "node_id", "namespace"} == set(context.get())
        assert len(caught) == 2


def test_names_that_are_none(four):
    for nothing in (None, "", "  "):
        with pytest.raises(ValueError, match="non-empty"):
            libray.get_actor(nothing)
    assert inspect.isclass(exc.ActorClassInheritanceException)


def test_threads_of_a_task_know_its_id(four):
    import threading

    @libray.remote
    class Asks:
        def ids(self):
            seen = [libray.get_runtime_context().get_task_id()]
            thread = threading.Thread(
                target=lambda: seen.append(libray.get_runtime_context().get_task_id())
            )
            thread.start()
            thread.join()
            return seen

    for limit in (1, 3):
        ref = Asks.options(max_concurrency=limit).remote().ids.remote()
        own = ref.task_id().hex()
        assert libray.get(ref) == [own, own if limit == 1 else None]  # several run: whose would it be?


# ---- amounts


def test_an_actor_that_names_a_resource_holds_a_cpu_too(fresh, eventually):
    fresh(num_cpus=2, num_gpus=2, resources={"disk": 2})

    @libray.remote
    class Holder:
        def held(self):
            return libray.get_runtime_context().get_assigned_resources()

    def held(**options):
        return libray.get(Holder.options(**options).remote().held.remote())

    def all_back():
        return libray.available_resources().get("CPU") == 2

    assert held() == {} and held(num_cpus=0) == {}
    assert held(resources={"disk": 1}) == {"CPU": 1.0, "disk": 1.0}
    eventually(all_back, 5)
    assert held(num_gpus=1) == {"CPU": 1.0, "GPU": 1.0}
    eventually(all_back, 5)
    assert held(num_gpus=1, num_cpus=0) == {"GPU": 1.0}
    assert held(memory=4096) == {"memory": 4096.0}  # memory alone is no resource in this sense

    keep = [Holder.options(resources={"disk": 0.5}).remote() for _ in range(2)]
    libray.get([h.held.remote() for h in keep])
    assert "CPU" not in libray.available_resources() or libray.available_resources()["CPU"] == 0
    third = Holder.options(resources={"disk": 0.5}).remote().held.remote()
    assert libray.wait([third], timeout=0.5)[0] == []
    keep.pop()
    assert libray.get(third, timeout=30)["CPU"] == 1.0


def test_memory_is_counted_in_whole_bytes(fresh):
    fresh(num_cpus=1, _memory=2.2)

    @libray.remote
    def held():
        return libray.get_runtime_context().get_assigned_resources()

    assert libray.cluster_resources()["memory"] == 2.0
    assert libray.get(held.options(memory=2.9).remote(), timeout=30) == {"CPU": 1.0, "memory": 2.0}
    assert libray.get(held.options(memory=0.5).remote(), timeout=30) == {"CPU": 1.0}
    assert libray.wait([held.options(memory=3.1).remote()], timeout=0.5)[0] == []


def test_an_impossible_amount_is_refused_by_the_call_not_by_the_decorator(four):
    @libray.remote(num_gpus=1.5)
    def one_and_a_half():
        pass

    for _ in range(2):
        with pytest.raises(ValueError, match="GPU resource quantities >1 must be whole numbers"):
            one_and_a_half.remote()
    assert libray.get(one_and_a_half.options(num_gpus=1).remote()) is None
    with pytest.raises(ValueError, match="TPU resource quantities >1"):
        one_and_a_half.options(num_gpus=0, resources={"TPU": 2.5}).remote()


# ---- what people see


def title(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().rstrip(b"\0").decode()


def short_name(pid):
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


def test_the_title_of_a_worker_tells_what_it_runs(fresh, eventually):
    fresh(num_cpus=2)

    @libray.remote
    def look():
        return os.getpid(), title(os.getpid())

    @libray.remote
    class Painter:
        def __init__(self):
            self.first = title(os.getpid())

        def paint(self):
            return title(os.getpid())

        def first_title(self):
            return self.first

        def pid(self):
            return os.getpid()

    pid, shown = libray.get(look.remote())
    assert shown == "ray::look"
    assert libray.get(look.options(name="a longer name").remote())[1] == "ray::a longer name"
    assert libray.get(look.remote())[1] == "ray::look"
    eventually(lambda: title(pid) == "ray::IDLE", 5)
    assert short_name(pid) == "ray::IDLE"

    painter = Painter.remote()
    assert libray.get(painter.paint.remote()) == "ray::Painter.paint"
    assert libray.get(painter.first_title.remote()) == "ray::Painter.__init__"
    assert libray.get(painter.paint.options(name="sketch").remote()) == "ray::sketch"
    pid = libray.get(painter.pid.remote())
    eventually(lambda: title(pid) == "ray::Painter", 5)
    assert short_name(pid) == "ray::Painter"


def test_a_title_longer_than_its_room_is_cut(fresh):
    fresh(num_cpus=1)

    @libray.remote
    def look():
        with open("/proc/self/environ", "rb") as file:
            return title(os.getpid()), b"LIBRAY" in file.read() or bool(os.environ["PATH"])

    shown, sane = libray.get(look.options(name="n" * 4000).remote())
    assert sane and 16 <= len(shown) < 4000 and shown == "ray::" + "n" * (len(shown) - 5)
    assert libray.get(look.remote())[0] == "ray::look"


PACKAGE = """
def setproctitle(title):
    raise RuntimeError("it finds no room")
getproctitle = setproctitle
def other():
    return "its own"
"""


def test_the_package_setproctitle_works_in_workers(fresh, eventually, tmp_path, monkeypatch):
    (tmp_path / "setproctitle.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    fresh(num_cpus=1)

    @libray.remote
    def rename(text):
        import setproctitle

        before = setproctitle.getproctitle()
        setproctitle.setproctitle(text)
        assert setproctitle.other() == "its own"
        return os.getpid(), (before, setproctitle.getproctitle(), title(os.getpid()), short_name(os.getpid()))

    pid, seen = libray.get(rename.remote("mine: 1"))
    assert seen == ("ray::rename", "mine: 1", "mine: 1", "mine: 1")
    eventually(lambda: title(pid) == "ray::IDLE" and short_name(pid) == "ray::IDLE", 5)
    for _, seen in libray.get([rename.remote(f"the title {k}") for k in range(3)]):  # one right after the other
        assert seen[0] == "ray::rename" and seen[1] == seen[2] and seen[1].startswith("the title ")


def test_the_kernel_ends_workers_first_when_memory_is_out(fresh):
    fresh(num_cpus=1)

    @libray.remote
    def offered():
        with open("/proc/self/oom_score_adj") as file:
            return int(file.read())

    with open("/proc/self/oom_score_adj") as file:
        assert int(file.read()) < 1000
    assert libray.get(offered.remote()) == 1000


def test_options_that_one_node_hardly_needs(fresh):
    fresh(num_cpus=1, resources={"accelerator_type:A100": 1})

    @libray.remote(accelerator_type="A100", enable_task_events=False, _labels={"a": "b"}, scheduling_strategy="SPREAD")
    def f():
        return 1

    @libray.remote(enable_tensor_transport=False)
    class A:
        @libray.method(tensor_transport="object_store", enable_task_events=False)
        def m(self):
            return 2

    assert libray.get([f.remote(), f.options(scheduling_strategy="DEFAULT").remote(), A.remote().m.remote()]) == [1, 1, 2]
    assert not libray.wait([f.options(accelerator_type="H100").remote()], timeout=0.2)[0]
    with pytest.raises(NotImplementedError, match="no tensor transports"):
        libray.remote(enable_tensor_transport=True)(type("B", (), {}))
    with pytest.raises(NotImplementedError, match="shared through the object store"):
        libray.method(tensor_transport="nccl")
    with pytest.raises(ValueError, match="scheduling_strategy"):
        f.options(scheduling_strategy="EVERYWHERE")


def test_what_cannot_be_remote():
    async def later():
        return 1

    with pytest.raises(ValueError, match="'async def' should not be used for remote tasks"):
        libray.remote(later)
    for wrong in (abs, 3, None, "f", libray, [].append):
        with pytest.raises(TypeError, match="must be applied to either a function or a class"):
            libray.remote(wrong)
    for kind in (ValueError, AssertionError):
        with pytest.raises(kind, match="no arguments and no parentheses"):
            libray.remote()
    for target in (lambda: 1, type("A", (), {})):
        with pytest.raises(NotImplementedError, match="no ray.dag"):
            libray.remote(target).bind()


def test_names_of_arguments_as_in_ray(cluster):
    refs = [libray.put(1), libray.put(2)]
    assert libray.get(object_refs=refs, timeout=5) == [1, 2] == libray.get(refs, _use_object_store=True)
    assert libray.wait(ray_waitables=refs, num_returns=2) == (refs, [])
    assert libray.wait(refs, num_returns=len(refs) / 2) == (refs[:1], refs[1:])
    for wrong in (float("nan"), float("inf"), 0.5):
        with pytest.raises(ValueError):
            libray.wait(refs, num_returns=wrong)
    assert list(inspect.signature(libray.wait).parameters) == ["ray_waitables", "num_returns", "timeout", "fetch_local"]
    for wrong in (lambda: libray.get(), lambda: libray.get(refs, 5), lambda: libray.get(refs, object_refs=refs),
                  lambda: libray.get(refs, limit=1), lambda: libray.wait()):
        with pytest.raises(TypeError):
            wrong()


def test_what_cannot_be_put_is_named(cluster):
    import threading

    lock = threading.Lock()
    with pytest.raises(TypeError, match="Could not serialize the put value") as info:
        libray.put({"fine": 1, "guard": lock})
    text = str(info.value)
    assert "cannot pickle" in text and "FailTuple(guard" in text
    with pytest.raises(TypeError) as info:
        libray.put([lock] + ["filler"] * 10000)
    assert "characters)" in str(info.value) and len(str(info.value)) < 5000


def test_references_have_no_order(cluster):
    refs = [libray.put(1), libray.put(2)]
    with pytest.raises(TypeError, match="'<' not supported"):
        sorted(refs)
    assert refs[0] == refs[0] and refs[0] != refs[1] and len(set(refs)) == 2
