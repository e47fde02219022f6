"""`ray.util` and `ray.experimental`: pools, queues, helpers, metrics, serializers, progress bars, key-value."""

import pytest
from ray_fixtures import run


def test_actor_pool():
    run(
        """
        from ray.util import ActorPool
        ray.init(num_cpus=2)

        @ray.remote
        class A:
            def __init__(self): self.k = 0
            def double(self, x): return 2 * x
            def slow(self, x):
                import time
                time.sleep(x)
                return x
            @ray.method(num_returns=2)
            def two(self, x): return x, -x

        pool = ActorPool([A.remote(), A.remote()])
        assert not pool.has_next() and pool.has_free()
        assert list(pool.map(lambda a, v: a.double.remote(v), range(7))) == [2 * k for k in range(7)]
        assert sorted(pool.map_unordered(lambda a, v: a.double.remote(v), range(7))) == [2 * k for k in range(7)]
        for x in (0.3, 0.0, 0.0):
            pool.submit(lambda a, v: a.slow.remote(v), x)
        assert len(pool._pending_submits) == 1 and pool._next_task_index == 16 and not pool.has_free()
        assert pool.pop_idle() is None
        try:
            pool.get_next(timeout=0.01)
        except TimeoutError as e:
            assert "Timed out" in str(e)
        else:
            raise AssertionError
        assert pool.get_next_unordered() == 0.0
        assert sorted([pool.get_next_unordered(), pool.get_next_unordered()]) == [0.0, 0.3]
        for call in (pool.get_next, pool.get_next_unordered):
            try:
                call()
            except StopIteration as e:
                assert "No more results" in str(e)
        pool.submit(lambda a, v: a.two.remote(v), 3)
        assert pool.get_next() == [3, -3]
        pool.submit(lambda a, v: a.slow.remote(v), 0.4)
        try:
            pool.get_next(timeout=0.01, ignore_if_timedout=True)
        except TimeoutError as e:
            assert "has been ignored" in str(e) and pool.has_free() and not pool.has_next()
        else:
            raise AssertionError
        actor = pool.pop_idle()
        assert actor is not None and len(pool._idle_actors) == 1
        pool.push(actor)
        try:
            pool.push(actor)
        except ValueError as e:
            assert "already belongs" in str(e)
        else:
            raise AssertionError

        late = ActorPool([A.remote(), A.remote()])
        late.submit(lambda a, v: a.slow.remote(v), 0.5)
        assert list(late.map(lambda a, v: a.double.remote(v), [1, 2])) == [2, 4]  # what it held is dropped

        """
    )


def test_actor_pool_and_its_actors():
    run(
        """
        from ray.util import ActorPool
        ray.init(num_cpus=2)

        @ray.remote
        class A:
            def double(self, x): return 2 * x

        mortal = ActorPool([A.remote(), A.remote()])
        mortal.submit(lambda a, v: (ray.kill(a), a.double.remote(v))[1], 1)  # an actor that died stays out
        try:
            mortal.get_next()
        except ray.exceptions.ActorDiedError:
            pass
        assert len(mortal._idle_actors) == 1
        assert list(mortal.map(lambda a, v: a.double.remote(v), [1, 2, 3])) == [2, 4, 6]

        class Counting(ActorPool):
            returned = 0
            def _return_actor(self, actor):
                self.returned += 1
                super()._return_actor(actor)
        counting = Counting([A.remote()])
        assert list(counting.map(lambda a, v: a.double.remote(v), range(3))) == [0, 2, 4] and counting.returned == 3
        """
    )


def test_queue():
    run(
        """
        import asyncio, time, pickle
        from ray.util.queue import Empty, Full, Queue
        ray.init(num_cpus=2)
        q = Queue(maxsize=2, actor_options={"num_cpus": 0, "name": "the queue"})
        assert ray.get_actor("the queue") == q.actor
        q.put(1); q.put(None)
        assert q.qsize() == len(q) == q.size() == 2 and q.full() and not q.empty()
        for call in (lambda: q.put_nowait(3), lambda: q.put(3, timeout=0.05), lambda: q.put(3, block=False),
                     lambda: q.put_nowait_batch([1])):
            try:
                call()
            except Full:
                continue
            raise AssertionError
        assert q.get() == 1 and q.get(block=False) is None
        for call in (q.get_nowait, lambda: q.get(timeout=0.05), lambda: q.get_nowait_batch(1)):
            try:
                call()
            except Empty:
                continue
            raise AssertionError
        for wrong in (lambda: q.put(1, timeout=-1), lambda: q.get(timeout=-1), lambda: q.get_nowait_batch(-1)):
            try:
                wrong()
            except ValueError:
                continue
            raise AssertionError
        import queue
        assert issubclass(Empty, queue.Empty) and issubclass(Full, queue.Full)

        @ray.remote
        def late(q):
            time.sleep(0.3)
            q.put("late")
        late.remote(q)
        assert q.get(timeout=30) == "late"

        async def both():
            await q.put_async(5)
            getter = asyncio.ensure_future(q.get_async())
            assert await getter == 5
            try:
                await q.get_async(timeout=0.05)
            except Empty:
                return True
        assert asyncio.run(both())
        actor = q.actor
        q.shutdown()
        assert q.actor is None
        for call in (lambda: ray.get(actor.qsize.remote()), q.qsize, lambda: q.put(1)):
            try:
                call()
            except ray.exceptions.RayActorError:
                continue
            raise AssertionError
        """
    )


def test_pool_is_a_drop_in():
    run(
        """
        import os, time, multiprocessing
        from ray.util.multiprocessing import Pool, TimeoutError
        assert TimeoutError is multiprocessing.TimeoutError

        def square(x): return x * x
        def add(a, b=0): return a + b
        def fail(x):
            if x == 3: raise KeyError(x)
            return x
        def nap(x): time.sleep(x); return x

        with Pool(processes=2) as pool:
            assert ray.cluster_resources()["CPU"] == 2
            assert pool.apply(add, (1,), {"b": 2}) == 3
            for chunksize in (None, 1, 4, 100):
                assert pool.map(square, range(10), chunksize) == [k * k for k in range(10)]
            assert pool.map(square, []) == []
            assert pool.starmap(add, [(1, 2), (3, 4)]) == [3, 7]
            seen = []
            result = pool.map_async(square, range(4), callback=seen.append)
            assert result.get(timeout=30) == [0, 1, 4, 9] and result.ready() and result.successful()
            assert seen == [[0, 1, 4, 9]]
            errors = []
            result = pool.map_async(fail, range(6), chunksize=2, error_callback=errors.append)
            try:
                result.get(timeout=30)
            except KeyError as e:
                assert e.args == (3,) and not result.successful() and errors[0] is e
            else:
                raise AssertionError
            slow = pool.apply_async(nap, (2,))
            try:
                slow.successful()
            except ValueError:
                pass
            try:
                slow.get(timeout=0.01)
            except TimeoutError:
                print("late")
            slow.wait(timeout=0.01)
        for call in (lambda: pool.apply(square, (1,)), lambda: pool.map(square, [1])):
            try:
                call()
            except ValueError as e:
                assert "not running" in str(e)
            else:
                raise AssertionError
        try:
            Pool(processes=50)
        except ValueError as e:
            assert "only 2 CPUs" in str(e)
        """
    )


def test_pool_imap():
    run(
        """
        import itertools, time
        from ray.util.multiprocessing import Pool, TimeoutError
        def square(x): return x * x
        def fail(x):
            if x == 3: raise KeyError(x)
            return x
        def nap(x): time.sleep(x); return x
        with Pool(2) as pool:
            assert list(pool.imap(square, range(20), chunksize=3)) == [k * k for k in range(20)]
            assert sorted(pool.imap_unordered(square, range(20))) == [k * k for k in range(20)]
            endless = pool.imap(square, itertools.count())
            assert [next(endless) for _ in range(5)] == [0, 1, 4, 9, 16]
            got = list(pool.imap(fail, range(5)))
            assert isinstance(got[3].underlying, KeyError) and got[:3] + got[4:] == [0, 1, 2, 4]
            for imap in (pool.imap, pool.imap_unordered):
                try:
                    imap(square, 3)
                except TypeError as e:
                    assert "not iterable" in str(e)
                else:
                    raise AssertionError("3 was iterated over")
            stuck = pool.map_async(nap, [3600] * 6)
        pool.join()
        try:
            stuck.get(timeout=30)
        except ray.exceptions.RayError:
            print("terminated")
        else:
            raise AssertionError
        with Pool(2) as pool:
            waiting = pool.imap(nap, [0.8])
            try:
                waiting.next(timeout=0.01)
            except TimeoutError:
                assert waiting.next(timeout=30) == 0.8
        """
    )


def test_pool_initializer_and_replaced_actors():
    run(
        """
        import os
        from ray.util.multiprocessing import Pool
        ray.init(num_cpus=2)
        def setup(name): os.environ["SETUP"] = name
        with Pool(2, initializer=setup, initargs=("done",)) as pool:
            assert pool.map(lambda _: os.environ["SETUP"], range(4)) == ["done"] * 4
        pool = Pool(2, maxtasksperchild=1)
        pids = [r.get(timeout=60) for r in [pool.apply_async(os.getpid) for _ in range(6)]]
        assert len(set(pids)) == 6, pids
        @ray.remote
        def remote_square(x): return x * x
        assert pool.map(remote_square, [2, 3]) == [4, 9]
        pool.close()
        pool.join()
        try:
            pool.apply_async(os.getpid)
        except ValueError:
            print("closed")
        """
    )


def test_pool_replaces_workers_that_died():
    run(
        """
        import os, time
        from ray.util.multiprocessing import Pool
        ray.init(num_cpus=2)
        def crash(x): os._exit(1)
        def ident(x):
            time.sleep(0.05)
            return x
        with Pool(2) as pool:
            pids = set(pool.map(lambda _: os.getpid(), range(8), chunksize=1))
            for _ in range(3):  # more often than there are workers
                crashed = pool.apply_async(crash, (0,))
                others = [pool.apply_async(ident, (k,)) for k in range(12)]
                try:
                    crashed.get(timeout=30)
                except ray.exceptions.RayActorError:
                    pass
                assert [r.get(timeout=30) for r in others] == list(range(12))
            assert len(set(pool.map(lambda _: (time.sleep(0.05), os.getpid())[1], range(8), chunksize=1))) == 2
            bad = pool.apply_async(ident, (open("/dev/null"),))
            try:
                bad.get(timeout=30)
            except TypeError:
                print("told")
            assert pool.apply(ident, (1,)) == 1
            for _ in range(3):  # some die while they have nothing to do, and nobody has noticed
                for pid in set(pool.map(lambda _: (time.sleep(0.05), os.getpid())[1], range(4), chunksize=1)):
                    os.kill(pid, 9)
                assert pool.map(ident, range(6), chunksize=1) == list(range(6))
        class Never:
            def __init__(self): os._exit(1)
        try:
            with Pool(1, initializer=Never) as pool:
                pool.map(ident, range(3))
        except ray.exceptions.RayActorError:
            print("gave up")
        """
    )


def test_pool_initializer_sets_globals_of_the_script(run_script):
    done = run_script("""
        import functools
        import libray
        libray.install_as_ray()
        import ray
        from ray.util.multiprocessing import Pool

        TABLE = None

        def set_up(n):
            global TABLE, LATE
            TABLE, LATE = list(range(n)), "late"

        def helper():
            return TABLE

        def use(k):
            return helper()[k], LATE

        def add(n, k):
            return TABLE[n + k]

        if __name__ == "__main__":
            ray.init(num_cpus=2)
            with Pool(2, initializer=set_up, initargs=(10,)) as pool:
                print(pool.map(use, range(4)))
                print(pool.map(functools.partial(add, 1), range(3)))
    """)
    assert done.stdout.splitlines()[-2:] == [
        "[(0, 'late'), (1, 'late'), (2, 'late'), (3, 'late')]", "[1, 2, 3]"
    ]


def test_as_completed_and_map_unordered():
    run(
        """
        import time
        from ray.util import as_completed, map_unordered
        ray.init(num_cpus=3)
        @ray.remote
        def nap(x):
            time.sleep(x)
            return x
        refs = [nap.remote(x) for x in (1.0, 0.0, 0.3)]
        order = list(as_completed(refs))
        assert sorted(order) == [0.0, 0.3, 1.0] and order[-1] == 1.0
        assert set(as_completed(refs, yield_obj_refs=True)) == set(refs)
        assert list(as_completed([])) == []
        assert sorted(as_completed([nap.remote(0.2)], timeout=0.05, fetch_local=False)) == [0.2]
        assert sorted(map_unordered(nap, [0, 0.1], backpressure_size=1)) == [0, 0.1]
        assert sorted(map_unordered(nap, [0.01 * k for k in range(5)])) == [0.01 * k for k in range(5)]
        started = []
        def source():
            for k in range(40):
                started.append(k)
                yield 0
        results = map_unordered(nap, source(), backpressure_size=4, chunk_size=2)
        next(results)
        assert len(started) <= 8, len(started)
        assert len(list(results)) == 39
        for wrong in (lambda: list(as_completed(refs, chunk_size=0)),
                      lambda: list(as_completed(refs, num_returns=2)),
                      lambda: list(map_unordered(nap, [0], backpressure_size=0))):
            try:
                wrong()
            except ValueError:
                continue
            raise AssertionError
        """
    )


def test_metrics_are_recorded_across_processes():
    out = run(
        """
        import time
        from ray.util.metrics import Counter, Gauge, Histogram, collect, prometheus_text
        ray.init(num_cpus=2)
        counter = Counter("requests", "how many", tag_keys=("route",)).set_default_tags({"route": "/"})
        @ray.remote
        class A:
            def __init__(self, counter):
                self.counter = counter
                self.size = Histogram("size", "bytes", boundaries=[10, 100], tag_keys=())
                self.load = Gauge("load", "now")
            def work(self, n):
                self.counter.inc(n)
                self.size.observe(n)
                self.load.set(n)
        actors = [A.remote(counter) for _ in range(2)]
        ray.get([a.work.remote(n) for a in actors for n in (5, 50, 500)])
        counter.inc(1)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = {m["name"]: m for m in collect()}
            if found.get("requests", {}).get("value") == 1111 and sum(found.get("size", {}).get("buckets", [])) == 6:
                break
            time.sleep(0.05)
        assert found["requests"]["value"] == 1111 and found["requests"]["tags"] == {"route": "/"}
        assert found["size"]["buckets"] == [2, 2, 2] and found["size"]["value"] == 1110
        assert found["load"]["value"] == 500
        print(prometheus_text())
        import warnings
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            Counter("not-a-name").inc()
        assert "Invalid metric name" in str(noted[0].message)
        assert all(m["name"] != "not-a-name" for m in collect())
        for wrong, error in ((lambda: Counter(""), ValueError), (lambda: Counter(3), TypeError),
                (lambda: counter.inc(0), ValueError), (lambda: counter.inc(1, {"x": "y"}), ValueError),
                (lambda: Counter("a", tag_keys="b"), TypeError), (lambda: Histogram("h", boundaries=[-1]), ValueError),
                (lambda: Counter("c", tag_keys=("a",)).inc(), ValueError)):
            try:
                wrong()
            except error:
                continue
            raise AssertionError(error)
        """
    )
    assert 'ray_requests_total{route="/"} 1111.0' in out
    assert 'ray_size_bucket{le="100.0"} 4' in out and "ray_size_count 6" in out
    assert "# TYPE ray_size histogram" in out


def test_serializers():
    run(
        """
        import threading
        from ray.util import register_serializer, deregister_serializer
        ray.init(num_cpus=1)
        class Locked:
            def __init__(self, x):
                self.x, self.lock = x, threading.Lock()
        try:
            ray.put(Locked(1))
        except TypeError as e:
            print(e)
        register_serializer(Locked, serializer=lambda a: a.x, deserializer=lambda x: Locked(x + 1))
        assert ray.get(ray.put(Locked(1))).x == 2
        @ray.remote
        def f(a): return a.x
        assert ray.get(f.remote(Locked(3))) == 4
        assert ray.get(f.remote([Locked(3)][0])) == 4 and ray.get(ray.put({"a": [Locked(1)]}))["a"][0].x == 2
        deregister_serializer(Locked)
        try:
            ray.put(Locked(1))
        except TypeError:
            print("refused")
        """
    )


def test_inspect_serializability():
    run(
        """
        import io, threading
        from ray.util import inspect_serializability
        lock = threading.Lock()
        text = io.StringIO()
        def outer():
            inner = lock
            def f(): return inner, lock
            return f
        ok, found = inspect_serializability(outer(), name="f", print_file=text)
        assert not ok and {x.name for x in found} <= {"inner", "lock"} and found
        assert all(x.obj is lock for x in found) and "FAIL" in text.getvalue()
        class C:
            def __init__(self): self.good, self.bad = 1, lock
        ok, found = inspect_serializability(C(), print_file=text)
        assert not ok and [x.name for x in found] == ["bad"]
        ok, found = inspect_serializability({"rows": [1, lock]}, print_file=text)
        assert not ok and [x.path for x in found] == ["rows -> [1]"]
        assert inspect_serializability(3, print_file=text) == (True, set())
        """
    )


def test_internal_kv():
    run(
        """
        from ray.experimental import internal_kv as kv
        ray.init(num_cpus=1)
        assert kv._internal_kv_initialized()
        assert kv._internal_kv_put("a1", b"x") is False and kv._internal_kv_put(b"a1", "y", overwrite=False) is True
        assert kv._internal_kv_get("a1") == b"x" and kv._internal_kv_put("a1", "y") is True
        assert kv._internal_kv_get("a1") == b"y" and kv._internal_kv_get("a1", namespace="n") is None
        kv._internal_kv_put("a2", "z"); kv._internal_kv_put("b", "z", namespace=b"n")
        assert sorted(kv._internal_kv_list("a")) == [b"a1", b"a2"] and kv._internal_kv_exists("b", namespace="n")
        assert kv._internal_kv_del("a", del_by_prefix=True) == 2 and kv._internal_kv_del("a1") == 0
        assert kv._internal_kv_list("a") == []
        for refuses in (kv._internal_kv_get, kv._internal_kv_list, kv._internal_kv_del):
            try:
                refuses("@namespace_n:a")
            except RuntimeError:
                continue
            raise AssertionError(refuses)
        """
    )


def test_tqdm_ray():
    out = run(
        """
        import libray.testing
        from ray.experimental import tqdm_ray
        ray.init(num_cpus=2)
        @ray.remote
        def work(n):
            bar = tqdm_ray.tqdm(total=n, desc="work")
            for _ in range(n):
                bar.update(1)
            bar.close()
            return list(tqdm_ray.tqdm(range(3), desc="loop"))
        manager, states = tqdm_ray.instance(), []
        draw = manager.process_state_update
        manager.process_state_update = lambda state: (states.append(state), draw(state))
        assert ray.get(work.remote(10)) == [0, 1, 2]
        def closed():
            return {s["desc"]: (s["x"], s["total"]) for s in states if s["closed"]}
        libray.testing.wait_until(lambda: len(closed()) == 2)
        assert closed() == {"work": (10, 10), "loop": (3, 3)}, closed()

        @ray.remote
        class Actor:
            def __init__(self, at):
                self.bars = [tqdm_ray.tqdm(desc=f"bar {k}", total=100, position=k, flush_interval_s=0) for k in range(2)]
                for bar in self.bars:
                    bar.update(at)
            def say(self):
                print("hello")
            def more(self):
                self.bars[1].set_description("changed")
                self.bars[1].update(5)
            def close(self):
                self.bars[0].close()
        actors = [Actor.remote(10), Actor.remote(20)]
        groups = lambda: [g for g in manager.bar_groups.values() if len(g.bars_by_uuid) == 2]
        libray.testing.wait_until(lambda: len(groups()) == 2)
        assert sorted(b.bar.n for g in groups() for b in g.bars_by_uuid.values()) == [10, 10, 20, 20]
        places = [g.pos_offset + b.state["pos"] for g in groups() for b in g.bars_by_uuid.values()]
        assert sorted(places) == [0, 1, 2, 3], places
        hides = manager.num_hides
        ray.get(actors[0].say.remote())
        libray.testing.wait_until(lambda: manager.num_hides > hides)   # printed lines do not cut through bars
        libray.testing.wait_until(lambda: not manager.in_hidden_state)  # which come back
        ray.get(actors[0].more.remote())
        shown = lambda: {(b.bar.n, b.bar.desc.rstrip(": ")[-7:]) for g in groups() for b in g.bars_by_uuid.values()}
        libray.testing.wait_until(lambda: (15, "changed") in shown())
        ray.get([a.close.remote() for a in actors])
        libray.testing.wait_until(lambda: not groups())
        hides = manager.num_hides
        print("line of the program")
        assert manager.num_hides == hides + 1 and not manager.in_hidden_state
        """
    )
    assert "line of the program" in out and sum("hello" in line for line in out) == 1
    assert not any("magic" in line for line in out)


def test_free_and_log_once():
    run(
        """
        from ray.util import log_once
        ray.init(num_cpus=1)
        ref = ray.put(1)
        ray.internal.free([ref]); ray.internal.free(ref)
        try:
            ray.internal.free("x")
        except TypeError:
            print("checked")
        assert log_once("a") and not log_once("a") and log_once("b")
        """
    )


def test_joblib_backend():
    pytest.importorskip("joblib")
    run(
        """
        import os, joblib
        from ray.util.joblib import register_ray
        ray.init(num_cpus=2)
        register_ray()
        def f(x): return x * x, os.getpid()
        with joblib.parallel_backend("ray"):
            results = joblib.Parallel(n_jobs=2)(joblib.delayed(f)(k) for k in range(50))
        assert [x for x, _ in results] == [k * k for k in range(50)]
        assert os.getpid() not in {pid for _, pid in results}
        def bad(x): raise ZeroDivisionError(x)
        with joblib.parallel_backend("ray", n_jobs=-1):
            try:
                joblib.Parallel()(joblib.delayed(bad)(k) for k in range(3))
            except ZeroDivisionError:
                print("raised")
        """
    )


def test_the_joblib_backend_starts_the_runtime():
    pytest.importorskip("joblib")
    run(
        """
        import joblib
        from ray.util.joblib import register_ray
        register_ray()
        with joblib.parallel_backend("ray", n_jobs=2):
            assert joblib.Parallel()(joblib.delayed(abs)(-k) for k in range(9)) == list(range(9))
        assert ray.is_initialized()
        """
    )


def test_metrics_of_local_iterators():
    run(
        """
        from ray.util.iter import from_range, LocalIterator
        ray.init(num_cpus=2)
        def count(x):
            metrics = LocalIterator.get_metrics()
            metrics.counters["seen"] += 1
            metrics.info["actor"] = metrics.current_actor is not None
            with metrics.timers["t"]:
                return x
        it = from_range(6).gather_sync().for_each(count)
        assert sorted(it.take(4)) == [0, 1, 3, 4]
        metrics = it.shared_metrics.get()
        assert metrics.counters["seen"] == 4 and metrics.info == {"actor": True} and metrics.timers["t"].count == 4
        assert metrics.save() == {"counters": {"seen": 4}, "info": {"actor": True}, "timers": None}
        list(it)
        assert metrics.counters["seen"] == 6
        metrics.restore({"counters": {"seen": 1}, "info": {}, "timers": None})
        assert metrics.counters["seen"] == 1 and not metrics.timers
        both = from_range(3, 1).gather_sync().for_each(count).union(from_range(2, 1).gather_sync().for_each(count))
        list(both)
        assert both.shared_metrics.get().counters["seen"] == 5
        try:
            LocalIterator.get_metrics()
        except ValueError as e:
            assert "outside an iterator" in str(e)
        # in a shard too
        assert sorted(from_range(4).for_each(count).gather_sync()) == [0, 1, 2, 3]
        print("fine")
        """
    )


def test_parallel_iterators():
    run(
        """
        import collections
        from ray.util.iter import from_actors, from_items, from_iterators, from_range, ParallelIteratorWorker
        ray.init(num_cpus=4)
        def sync(it): return list(it.gather_sync())

        it = from_items([1, 2, 3, 4])
        assert repr(it) == "ParallelIterator[from_items[int, 4, shards=2]]" and it.num_shards() == 2
        assert sync(it) == [1, 2, 3, 4] == sync(it) and it.take(3) == [1, 2, 3]
        try: iter(it)
        except TypeError as e: assert "gather_sync" in str(e)
        else: raise AssertionError

        assert sync(from_range(5)) == [0, 2, 1, 3, 4]
        assert sync(from_iterators([range(2), lambda: iter("ab")])) == [0, "a", 1, "b"]
        assert from_range(2, num_shards=1, repeat=True).take(5) == [0, 1, 0, 1, 0]
        actors = [ray.remote(ParallelIteratorWorker).remote(range(i), False) for i in (1, 3)]
        assert sync(from_actors(actors)) == [0, 0, 1, 2]

        it = from_range(4)
        assert sync(it.for_each(lambda x: x * 2).filter(lambda x: x < 5)) == [0, 4, 2]
        assert repr(it.batch(2).flatten()).endswith("shards=2].batch(2).flatten()]")
        assert sync(from_range(5, 1).batch(2)) == [[0, 1], [2, 3], [4]]
        assert sync(from_range(3, 1).batch(2).flatten()) == [0, 1, 2]
        assert sync(from_range(2, 1).combine(lambda x: [x] * x)) == [1]
        assert sync(it.transform(lambda items: (x + 10 for x in items))) == [10, 12, 11, 13]
        assert sorted(it.for_each(lambda x: x, max_concurrency=2, resources={"num_cpus": 0.1}).gather_async()) == [0, 1, 2, 3]
        mixed = sync(from_range(50, 1).local_shuffle(10, seed=3))
        assert sorted(mixed) == list(range(50)) != mixed
        assert mixed == sync(from_range(50, 1).local_shuffle(10, seed=3))
        assert sorted(it.gather_async(batch_ms=1, num_async=2)) == [0, 1, 2, 3]
        assert list(it.batch_across_shards()) == [[0, 2], [1, 3]]
        assert list(from_iterators([[1, 2], [3]]).batch_across_shards()) == [[1, 3], [2]]

        parts = from_range(10, 2).repartition(3)
        assert parts.num_shards() == 3 and sorted(sync(parts)) == list(range(10))
        both = from_items(["a", "b"], 1).union(from_items(["x"], 1).for_each(str.upper))
        assert sync(both) == ["a", "X", "b"] and both.num_shards() == 2
        assert [list(s) for s in both.shards()] == [["a", "b"], ["X"]]
        assert sync(both.select_shards([1])) == ["X"]

        @ray.remote
        def shard(it, i): return list(it.get_shard(i))
        assert ray.get([shard.remote(both, i) for i in range(2)]) == [["a", "b"], ["X"]]
        print("fine")
        """
    )


def test_local_iterators():
    run(
        """
        import time
        from ray.util.iter import from_items, from_iterators, from_range
        ray.init(num_cpus=4)
        it = from_items([1, 2, 3, 4]).gather_sync().for_each(lambda x: x).filter(bool).batch(2).flatten()
        assert repr(it).endswith(".gather_sync().for_each().filter().batch(2).flatten()]")
        @ray.remote
        def read(it): return list(it)
        assert ray.get(read.remote(it)) == [1, 2, 3, 4] and next(it) == 1 and it.take(2) == [2, 3]

        pairs = list(from_range(4).gather_sync().zip_with_source_actor())
        assert [x for _, x in pairs] == [0, 2, 1, 3] and pairs[0][0] == pairs[2][0] != pairs[1][0]

        a, b = from_range(6, 1).gather_sync().duplicate(2)
        assert a.take(4) == [0, 1, 2, 3] and b.take(1) == [0] and list(a) == [4, 5] and list(b) == [1, 2, 3, 4, 5]

        one, two = from_range(3, 1).gather_sync(), from_items("abcd", 1).gather_sync()
        assert list(one.union(two, deterministic=True)) == [0, "a", 1, "b", 2, "c", "d"]
        one, two = from_range(4, 1).gather_sync(), from_items("ab", 1).gather_sync()
        assert list(one.union(two, deterministic=True, round_robin_weights=[2, 1])) == [0, 1, "a", 2, 3, "b"]

        def paced(name, pause):
            def make():
                for i in range(5):
                    time.sleep(pause)
                    yield name, i
            return make
        fast, slow = from_iterators([paced("fast", 0.01)]), from_iterators([paced("slow", 0.4)])
        got = list(fast.gather_async().union(slow.gather_async()))
        assert [x for x in got if x[0] == "slow"] == [("slow", i) for i in range(5)]
        assert all(x[0] == "slow" for x in got[-3:]) and len(got) == 10, got
        print("fine")
        """
    )


def test_metrics_that_a_finaliser_records():
    """A collection may come at any moment of recording and writing, also of those that make the writer."""
    run(
        """
        import faulthandler, gc, threading
        from ray.util import metrics
        faulthandler.dump_traceback_later(75)
        ray.init(num_cpus=1)
        freed, made, sizes = metrics.Counter("freed"), metrics.Counter("made", tag_keys=("k",)), metrics.Gauge("size")
        spread = metrics.Histogram("spread", boundaries=[10.0])

        class Cycle:
            def __init__(self): self.me = self
            def __del__(self):
                freed.inc()
                sizes.set(7)
                spread.observe(3)
                if id(self) // 64 % 64 == 0: metrics.flush()

        gc.set_threshold(10)
        done = []
        def work():
            for n in range(1500):
                Cycle()
                made.inc(1, {"k": str(n % 30)})
                if n % 500 == 0: metrics.collect()
            done.append(1)
        threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
        for t in threads: t.start()
        for t in threads: t.join(70)
        gc.set_threshold(700)
        assert done == [1, 1], "it hangs"
        gc.collect()
        found = {}
        for m in metrics.collect(): found[m["name"]] = found.get(m["name"], 0) + m["value"]
        assert found == {"freed": 3000, "made": 3000, "size": 7, "spread": 9000}, found
        """
    )
