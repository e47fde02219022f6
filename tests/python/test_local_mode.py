"""`init(local_mode=True)`: everything runs in the driver, with the same values and errors."""

from ray_fixtures import run


def test_tasks():
    run(
        """
        import os, threading
        ray.init(num_cpus=1, local_mode=True)
        assert ray._private.worker.global_worker.mode == 2
        log = []
        @ray.remote
        def where(x, *, y=0):
            log.append(x)
            return os.getpid(), x + y
        ref = where.remote(1, y=2)
        assert log == [1]  # it ran where it was called
        assert ray.get(ref) == (os.getpid(), 3) and isinstance(ref, ray.ObjectRef)
        assert ray.get(where.remote(ray.put(4)))[1] == 4
        @ray.remote(num_returns=2)
        def two(): return 1, 2
        assert ray.get(two.remote()) == [1, 2] and ray.wait(two.remote(), num_returns=2)[1] == []
        @ray.remote
        def nested(n): return 0 if n == 0 else 1 + ray.get(nested.remote(n - 1))
        assert ray.get(nested.remote(5)) == 5
        @ray.remote
        def change(items):
            items.append(1)
            return items
        mine = []
        assert ray.get(change.remote(mine)) == [1] and mine == []
        @ray.remote
        def numbers():
            yield 1
            yield 2
            raise KeyError("end")
        stream = numbers.remote()
        assert [ray.get(next(stream)), ray.get(next(stream))] == [1, 2]
        try:
            ray.get(next(stream))
        except KeyError:
            pass
        @ray.remote
        def gives_ref(): return ray.put(5)
        assert ray.get(ray.get(gives_ref.remote())) == 5
        assert ray.get(where.options(num_cpus=2).remote(9))[1] == 9
        ray.shutdown()
        ray.init(num_cpus=1)
        assert ray.get(where.remote(1))[0] != os.getpid()
        """
    )


def test_generators():
    run(
        """
        import itertools, pytest
        ray.init(num_cpus=1, local_mode=True)
        def items(n, end=None):
            yield from range(n) if n >= 0 else itertools.count()
            if end is not None: raise end
        items = ray.remote(items)
        ref = items.options(num_returns="dynamic").remote(3)
        assert isinstance(ref, ray.ObjectRef) and ray.get(list(ray.get(ref))) == [0, 1, 2] == ray.get(list(ray.get(ref)))
        first, last = ray.get(items.options(num_returns="dynamic").remote(1, KeyError("after")))
        assert ray.get(first) == 0
        with pytest.raises(KeyError): ray.get(last)
        assert isinstance(items.options(num_returns="dynamic").remote(0, KeyError()), ray.ObjectRef)
        assert ray.get(items.options(num_returns=2).remote(-1)) == [0, 1]  # endless
        assert ray.get(items.options(num_returns=1).remote(-1)) == 0
        a, b, c = items.options(num_returns=3).remote(1, KeyError("after"))
        assert ray.get(a) == 0 and len({a, b, c}) == 3
        for late in (b, c):
            with pytest.raises(KeyError): ray.get(late)
        a, b = items.options(num_returns=2).remote(1)
        assert ray.get(a) == 0
        with pytest.raises(ValueError, match="ended early"): ray.get(b)
        a, b = items.options(num_returns=2).remote(0)
        with pytest.raises(ValueError, match="ended early"): ray.get(a)
        @ray.remote(num_returns=2)
        def bad(): raise ValueError("as a whole")
        assert len(ray.wait(bad.remote(), num_returns=2)[0]) == 2
        @ray.remote(_num_objects_per_yield=2)
        def pairs(n):
            yield 1, 2
            yield range(n)
        assert [ray.get(r) for r in pairs.remote(2)] == [1, 2, 0, 1]
        *good, last = pairs.remote(3)
        assert ray.get(good) == [1, 2]
        with pytest.raises(ValueError, match="gave 3 objects"): ray.get(last)
        tries = []
        @ray.remote(num_returns=2, retry_exceptions=True)
        def flaky():
            tries.append(1)
            yield 1
            if len(tries) == 1: raise KeyError("once")
            yield 2
        assert ray.get(flaky.remote()) == [1, 2] and len(tries) == 2
        """
    )


def test_errors():
    run(
        """
        import asyncio
        ray.init(local_mode=True)
        tries = []
        @ray.remote
        def bad(x=None):
            tries.append(1)
            raise ValueError("oh no")
        ref = bad.remote()  # the error waits in the reference
        for _ in range(2):
            try:
                ray.get(ref)
            except ValueError as e:
                assert isinstance(e, ray.exceptions.RayTaskError) and "oh no" in str(e) and "in bad" in str(e)
                assert isinstance(e.cause, ValueError)
            else:
                raise AssertionError
        async def waits():
            try:
                await ref
            except ValueError:
                return True
        assert asyncio.run(waits())
        @ray.remote
        def depends(x): return x
        try:
            ray.get(depends.remote(ref))
        except ValueError:
            pass
        del tries[:]
        try:
            ray.get(bad.options(retry_exceptions=[ValueError], max_retries=2).remote())
        except ValueError:
            assert len(tries) == 3
        try:
            bad.remote(1, 2)
        except TypeError:
            print("checked")
        @ray.remote(num_returns=3)
        def few(): return 1, 2
        try:
            ray.get(few.remote())
        except ValueError:
            print("too few")
        """
    )


def test_actors():
    run(
        """
        import asyncio, os
        ray.init(local_mode=True, namespace="space")
        @ray.remote
        class A:
            def __init__(self, n): self.n = n
            def add(self, k=1):
                self.n += k
                return self.n
            @ray.method(num_returns=2)
            def two(self): return 1, 2
            async def later(self):
                await asyncio.sleep(0)
                return os.getpid()
            def leave(self): ray.actor.exit_actor()
            def call(self, other): return ray.get(other.add.remote())
        a = A.options(name="a").remote(ray.put(10))
        assert ray.get([a.add.remote(), a.add.remote(5)]) == [11, 16] and ray.get(a.two.remote()) == [1, 2]
        assert ray.get(a.later.remote()) == os.getpid() and ray.get(a.__ray_ready__.remote())
        assert ray.get_actor("a") == a and A.options(name="a", get_if_exists=True).remote(0) == a
        b = A.remote(0)
        assert ray.get(b.call.remote(a)) == 17 and "add" in dir(b) and b != a
        try:
            A.options(name="a").remote(1)
        except ValueError as e:
            assert "taken" in str(e)
        for end in (lambda: ray.kill(a), lambda: b.leave.remote()):
            end()
        for dead in (a, b):
            try:
                ray.get(dead.add.remote())
            except ray.exceptions.RayActorError:
                continue
            raise AssertionError
        try:
            ray.get_actor("a")
        except ValueError:
            pass
        @ray.remote
        class Broken:
            def __init__(self): raise OSError("no disk")
            def m(self): pass
        try:
            ray.get(Broken.remote().m.remote())
        except ray.exceptions.RayActorError as e:
            assert "no disk" in str(e)
        for wrong in (lambda: A(1), lambda: b.add(), lambda: A.remote()):
            try:
                wrong()
            except TypeError:
                continue
            raise AssertionError
        """
    )
