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
