"""Errors that nobody looks at are shown once; those that a get, a wait, an await or another task had are not. And what
a process knows of its references."""

import asyncio
import logging
import os
import re
import time

import pytest

import libray
from libray.core import unread
from libray import testing


@libray.remote
def boom(tag):
    raise ValueError(f"<{tag}>")


@libray.remote
def take(value):
    return value


@libray.remote(max_retries=0)
def crash():
    os._exit(3)


@pytest.fixture
def shown():
    """The tags in the messages of the package's logger."""

    class Handler(logging.Handler):
        def __init__(self):
            super().__init__()
            self.tags = []

        def emit(self, record):
            if "Unhandled error" in record.getMessage():
                self.tags += sorted(set(re.findall(r"<([\w ]+)>", record.getMessage()))) or [record.getMessage()]

    handler, loggers = Handler(), [logging.getLogger(name) for name in ("libray", "ray")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler.tags
    for logger in loggers:
        logger.removeHandler(handler)


def test_errors_that_nobody_looked_at(fresh, shown):
    fresh(num_cpus=2)

    @libray.remote
    class Actor:
        def boom(self):
            raise KeyError("<method>")

    @libray.remote
    def items():
        yield 1
        raise ValueError("<generator>")

    @libray.remote(num_returns=2)
    def two():
        raise ValueError("<two>")

    boom.remote("early")
    late = boom.remote("late")
    actor = Actor.remote()
    actor.boom.remote()
    stream = items.remote()
    assert libray.get(next(stream)) == 1
    next(stream)  # the error, not read
    crash.remote()
    two.remote()
    testing.wait_until(lambda: len(shown) == 5)
    del late
    testing.wait_until(lambda: len(shown) == 6)
    crashed = [text for text in shown if "crash" in text]
    assert sorted(set(shown) - set(crashed)) == ["early", "generator", "late", "method", "two"]
    assert len(crashed) == 1 and "exited with status 3" in crashed[0]


def test_errors_that_somebody_looked_at(fresh, shown):
    fresh(num_cpus=2)

    @libray.remote
    def sleep():
        time.sleep(60)

    got, waited, taken, awaited, listed = [boom.remote(f"seen {k}") for k in range(5)]
    other = boom.remote("seen 5")
    with pytest.raises(ValueError):
        libray.get(got)
    libray.wait([waited], timeout=30)
    with pytest.raises(ValueError):
        libray.get(take.remote(taken))

    async def look():
        with pytest.raises(ValueError):
            await awaited

    asyncio.run(look())
    with pytest.raises(ValueError):
        libray.get([listed, other])
    assert isinstance(boom.remote("seen 6").future().exception(timeout=30), ValueError)
    cancelled = sleep.remote()
    libray.cancel(cancelled)
    del got, waited, taken, awaited, listed, other, cancelled
    take.remote(boom.remote("taken"))  # the second task's error, which names the first
    boom.remote("last")
    testing.wait_until(lambda: {"taken", "last"} <= set(shown))
    assert sorted(shown) == ["last", "taken"]


def test_the_variable_turns_it_off(fresh, shown, monkeypatch):
    fresh(num_cpus=1)
    names, looked = unread._OFF, []

    class Names:
        def __iter__(self):
            try:
                yield from names
            finally:
                looked.append(True)

    monkeypatch.setattr(unread, "_OFF", Names())
    monkeypatch.setenv("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    boom.remote("silent")
    testing.wait_until(lambda: looked)
    monkeypatch.delenv("RAY_IGNORE_UNHANDLED_ERRORS")
    boom.remote("loud")
    testing.wait_until(lambda: shown)
    assert shown == ["loud"]


def test_on_standard_error_also_of_workers_and_at_the_end(run_script):
    done = run_script(
        """
        import libray, time
        libray.init(num_cpus=2)

        @libray.remote
        def boom(tag):
            raise ValueError(f"<{tag}>")

        @libray.remote
        def parent():
            boom.remote("child")
            time.sleep(1)

        libray.get(parent.remote())
        ref = boom.remote("kept")
        libray.get(parent.remote())
        del ref
        """,
        env={"LIBRAY_DEDUP_LOGS": "0"},
    )
    lines = [line for line in done.stderr.splitlines() if "Unhandled error (suppress with" in line]
    assert len(lines) == 3 and sum("(parent pid=" in line for line in lines) == 2, done.stderr
    assert done.stderr.count("ValueError: <child>") == 2 and done.stderr.count("ValueError: <kept>") == 1


def test_a_constructor_that_fails_is_told_although_nobody_calls(run_script):
    done = run_script(
        """
        import libray, time
        libray.init(num_cpus=2)

        class Bad:
            def __init__(self):
                raise RuntimeError("no way to start")

        class BadLoop(Bad):
            async def m(self):
                pass

        actors = [libray.remote(c).remote() for c in (Bad, BadLoop)]
        for actor in actors:
            try:
                libray.get(actor.__ray_ready__.remote())
            except libray.exceptions.ActorDiedError:
                pass
        """,
        env={"LIBRAY_DEDUP_LOGS": "0"},
    )
    told = [line for line in done.stderr.splitlines() if "Exception raised in creation task: The actor died" in line]
    assert sorted(line.split(" pid=")[0] for line in told) == ["(Bad", "(BadLoop"], done.stderr
    assert all("ray::" in line and ".__init__() (pid=" in line for line in told)
    assert done.stderr.count("RuntimeError: no way to start") == 2


def test_a_shell_tells_also_of_results_that_are_kept(run_script):
    done = run_script(
        """
        import sys, time
        sys.ps1 = ">>> "  # as in an interactive shell
        import libray
        from libray import testing
        from libray.core import unread
        libray.init(num_cpus=1)
        seen = []
        unread.log = seen.append

        @libray.remote
        def boom(tag):
            raise ValueError(tag)

        kept, got = boom.remote("kept"), boom.remote("got")
        try:
            libray.get(got)
        except ValueError:
            pass
        start = time.monotonic()
        testing.wait_until(lambda: seen)
        assert time.monotonic() - start > 4
        time.sleep(2)
        assert ["kept" in str(e) for e in seen] == [True], seen
        """
    )
    assert "Unhandled" not in done.stderr


def test_a_program_may_put_its_own_handler_in_place(run_script):
    done = run_script(
        """
        import libray
        ray = libray.install_as_ray()
        from libray import testing
        import ray._private.worker as worker
        seen = []
        worker._unhandled_error_handler = seen.append
        ray.init(num_cpus=1)

        @ray.remote
        def boom():
            raise ValueError("<own>")

        boom.remote()
        testing.wait_until(lambda: seen)
        assert isinstance(seen[0], ValueError) and isinstance(seen[0], ray.exceptions.RayTaskError)
        """
    )
    assert "Unhandled" not in done.stderr


def test_where_objects_are_and_who_refers_to_them(run_script):
    run_script(
        """
        import libray, numpy as np, time
        ray = libray.install_as_ray()
        from libray import testing
        from ray.experimental import get_object_locations
        ray.init(num_cpus=1)

        @ray.remote
        def nap(x):
            time.sleep(0.5)

        counts = ray._private.worker.global_worker.core_worker.get_all_reference_counts
        assert counts() == {}
        large = ray.put(np.zeros(100_000))
        inside = ray.put([large])
        assert counts()[large.hex().encode()] == {"local": 1, "submitted": 0}
        result = nap.remote(large)
        place = get_object_locations([large, inside, result])
        assert counts()[large.hex().encode()] == {"local": 1, "submitted": 1}
        assert counts()[result.hex().encode()] == {"local": 1, "submitted": 0}
        assert 800_000 <= place[large]["object_size"] < 801_000 and not place[large]["did_spill"]
        assert place[large]["node_ids"] == [ray.get_runtime_context().get_node_id()]
        assert place[result] == {"node_ids": [], "object_size": None, "did_spill": False}
        ray.get(result)
        assert 0 < get_object_locations([result])[result]["object_size"] < 100
        testing.wait_until(lambda: counts()[large.hex().encode()] == {"local": 1, "submitted": 0})
        del large, inside, result, place
        testing.wait_until(lambda: counts() == {})
        """
    )
