"""The rows of the usual microbenchmark of task systems, written against any module that has the
interface of libray (`remote`, `get`, `put`, `wait`): the same definitions run on libray and on the real
Ray. `rows(api)` returns them; each row's `prepare()` makes what is timed.

The number is that of the definition in Ray's own `ray_perf.py` (1 to 24), or of its single-node
benchmarks ("s1" ...). Left out: 8 and 9, callbacks on an interface that is private to Ray.
"""

import os
from typing import Any, Callable, List, NamedTuple

import numpy as np

HALF = max(1, (os.cpu_count() or 1) // 2)  # actors in the 1:n and n:n rows


class Row(NamedTuple):
    name: str
    unit: str  # "1/s": a rate; "s": the time of one call
    per_call: float  # operations of one call
    prepare: Callable[[], Callable[[], Any]]
    number: str = ""
    once: bool = False  # too long to repeat until time is up: three calls


def _batch(api, actor):
    return lambda: api.get([actor.small_value.remote() for _ in range(1000)])


def _actor_class(api):
    @api.remote(num_cpus=0)
    class Actor:
        def small_value(self):
            return b"ok"

        def small_value_arg(self, x):
            return b"ok"

    return Actor


def _async_actor_class(api):
    @api.remote
    class AsyncActor:
        async def small_value(self):
            return b"ok"

        async def small_value_with_arg(self, x):
            return b"ok"

    return AsyncActor


def _client_class(api):
    @api.remote(num_cpus=0)
    class Client:
        def __init__(self, servers):
            self.servers = servers if isinstance(servers, list) else [servers]

        def small_value_batch(self, n):
            refs = []
            for server in self.servers:
                refs.extend(server.small_value.remote() for _ in range(n))
            api.get(refs)

        def small_value_batch_arg(self, n):
            x = api.put(0)
            refs = []
            for server in self.servers:
                refs.extend(server.small_value_arg.remote(x) for _ in range(n))
            api.get(refs)

    return Client


def _work(api):
    @api.remote
    def work(actors, n):
        api.get([actors[i % len(actors)].small_value.remote() for i in range(n)])

    return work


def _object_rows(api, row):
    """Objects: small and large, from one process and from several."""
    @api.remote
    def make_refs(n):
        return [api.put(1) for _ in range(n)]

    @api.remote
    def put_many(n):
        for _ in range(n):
            api.put(0)

    @api.remote
    def put_large(n):
        for _ in range(n):
            api.put(np.zeros(10 * 1024 * 1024, dtype=np.int64))

    @row("get_small", number="1")
    def _():
        ref = api.put(0)
        return lambda: api.get(ref)

    @row("put_small", number="2")
    def _():
        return lambda: api.put(0)

    @row("put_small_multi_client", 1000, number="3")
    def _():
        return lambda: api.get([put_many.remote(100) for _ in range(10)])

    @row("put_800MB", 8 * 0.1, "GB/s", number="4")
    def _():
        array = np.zeros(100 * 1024 * 1024, dtype=np.int64)
        return lambda: api.put(array)

    @row("put_80MB_multi_client", 10 * 8 * 0.1, "GB/s", number="6")
    def _():
        return lambda: api.get([put_large.remote(10) for _ in range(10)])

    @row("get_object_with_10k_refs", number="7")
    def _():
        ref = make_refs.remote(10_000)
        api.wait([ref])
        return lambda: api.get(ref)


def _task_rows(api, row):
    """Tasks."""
    @api.remote
    def small_value():
        return b"ok"

    @api.remote
    def with_argument(x):
        return x

    @api.remote(num_cpus=0)
    class Actor:
        def small_value_batch(self, n):
            api.get([small_value.remote() for _ in range(n)])

    @row("tasks_and_get_batch", number="5")
    def _():
        return lambda: api.get([small_value.remote() for _ in range(1000)])

    @row("wait_1k_refs", number="10")
    def _():
        def wait():
            left = [small_value.remote() for _ in range(1000)]
            while left:
                _, left = api.wait(left)

        return wait

    @row("tasks_one_at_a_time", number="11")
    def _():
        return lambda: api.get(small_value.remote())

    @row("tasks_batch_1000", 1000, number="12")
    def _():
        return lambda: api.get([small_value.remote() for _ in range(1000)])

    @row("tasks_batch_1000_with_argument", 1000)
    def _():
        return lambda: api.get([with_argument.remote(i) for i in range(1000)])

    @row("tasks_multi_client", 40000, number="13")
    def _():
        clients = [Actor.remote() for _ in range(4)]
        return lambda: api.get([c.small_value_batch.remote(10000) for c in clients])


def _actor_rows(api, row):
    """Calls of one actor."""
    Actor = _actor_class(api)

    @row("actor_calls_one_at_a_time", number="14")
    def _():
        a = Actor.remote()
        return lambda: api.get(a.small_value.remote())

    @row("actor_calls_batch_1000", 1000, number="15")
    def _():
        return _batch(api, Actor.remote())

    @row("actor_calls_concurrent", 1000, number="16")
    def _():
        return _batch(api, Actor.options(max_concurrency=16).remote())


def _actor_fan_rows(api, row):
    """Calls of several actors, by clients that are actors or tasks."""
    Actor, Client, work = _actor_class(api), _client_class(api), _work(api)

    @row("actor_calls_1_to_n", 5000 * HALF, number="17")
    def _():
        client = Client.remote([Actor.remote() for _ in range(HALF)])
        return lambda: api.get(client.small_value_batch.remote(5000))

    @row("actor_calls_n_to_n", 20000, number="18")
    def _():
        actors = [Actor.remote() for _ in range(HALF)]
        return lambda: api.get([work.remote(actors, 5000) for _ in range(4)])

    @row("actor_calls_n_to_n_with_arg", 1000 * HALF, number="19")
    def _():
        clients = [Client.remote(Actor.remote()) for _ in range(HALF)]
        return lambda: api.get([c.small_value_batch_arg.remote(1000) for c in clients])


def _async_actor_rows(api, row):
    """Calls of actors with coroutine methods."""
    AsyncActor, Client, work = _async_actor_class(api), _client_class(api), _work(api)

    @row("async_actor_calls_one_at_a_time", number="20")
    def _():
        a = AsyncActor.remote()
        return lambda: api.get(a.small_value.remote())

    @row("async_actor_calls_batch_1000", 1000, number="21")
    def _():
        return _batch(api, AsyncActor.remote())

    @row("async_actor_calls_with_args", 1000, number="22")
    def _():
        a = AsyncActor.remote()
        return lambda: api.get([a.small_value_with_arg.remote(i) for i in range(1000)])

    @row("async_actor_calls_1_to_n", 5000 * HALF, number="23")
    def _():
        client = Client.remote([AsyncActor.remote() for _ in range(HALF)])
        return lambda: api.get(client.small_value_batch.remote(5000))

    @row("async_actor_calls_n_to_n", 20000, number="24")
    def _():
        actors = [AsyncActor.options(num_cpus=0).remote() for _ in range(HALF)]
        return lambda: api.get([work.remote(actors, 5000) for _ in range(4)])


def _single_node_rows(api, row):
    """Large numbers, as in the scalability benchmarks of one node."""
    @api.remote
    def small_value():
        return b"ok"

    @api.remote
    def count(*args):
        return len(args)

    @row("object_args_10k", unit="s", number="s1", once=True)
    def _():
        refs = [api.put(i) for i in range(10_000)]
        return lambda: api.get(count.remote(*refs))

    @row("returns_3k", unit="s", number="s2", once=True)
    def _():
        @api.remote(num_returns=3000)
        def many():
            return tuple(range(3000))

        return lambda: api.get(many.remote())

    @row("get_10k_objects", unit="s", number="s3", once=True)
    def _():
        refs = [api.put(list(range(10))) for _ in range(10_000)]
        return lambda: api.get(refs)

    @row("queued_100k", unit="s", number="s4", once=True)
    def _():
        return lambda: api.get([small_value.remote() for _ in range(100_000)])

    @row("queued_1M", unit="s", number="s4", once=True)
    def _():
        return lambda: api.get([small_value.remote() for _ in range(1_000_000)])

    @row("largest_get_1GiB", unit="s", number="s5", once=True)
    def _():
        array = np.zeros(1 << 30, dtype=np.int8)
        return lambda: api.get(api.put(array))


def rows(api: Any) -> List[Row]:
    """The rows on this module, which is initialised already."""
    found: List[Row] = []

    def row(name, per_call=1.0, unit="1/s", number="", once=False):
        def add(prepare):
            found.append(Row(name, unit, per_call, prepare, number, once))
            return prepare

        return add

    for group in (_object_rows, _task_rows, _actor_rows, _actor_fan_rows, _async_actor_rows,
                  _single_node_rows):
        group(api, row)
    return found
