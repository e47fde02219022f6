"""What other task systems can express of rows.py. Each entry starts its system and returns its rows and
how to end it. Values of the same name mean the same thing as there."""

from rows import Row


def _ok(*_):
    return b"ok"


def multiprocessing():
    """The standard library's pool of processes. One message per task (chunks of 1), as everywhere else: a
    map in chunks runs dozens of calls as one task."""
    import multiprocessing as mp

    pool = mp.get_context("fork").Pool(mp.cpu_count())

    def batch():
        return [r.get() for r in [pool.apply_async(_ok) for _ in range(1000)]]

    rows = [
        Row("tasks_one_at_a_time", "1/s", 1, lambda: lambda: pool.apply(_ok)),
        Row("tasks_batch_1000", "1/s", 1000, lambda: lambda: pool.map(_ok, range(1000), 1)),
        Row("tasks_batch_1000_with_argument", "1/s", 1000,
            lambda: lambda: pool.map(_ok, range(1000), 1)),
        Row("tasks_and_get_batch", "1/s", 1, lambda: batch),
        Row("queued_100k", "s", 1, lambda: lambda: pool.map(_ok, range(100_000), 1), once=True),
    ]
    return rows, pool.terminate


def dask():
    """dask.distributed's local cluster of processes."""
    from distributed import Client, LocalCluster

    cluster = LocalCluster(processes=True, dashboard_address=None, silence_logs=50)
    client = Client(cluster)

    class Actor:
        def small_value(self):
            return b"ok"

    def one():
        return client.submit(_ok, pure=False).result()

    def batch():
        return client.gather([client.submit(_ok, i, pure=False) for i in range(1000)])

    def actor_one():
        actor = client.submit(Actor, actor=True).result()
        return lambda: actor.small_value().result()

    def actor_batch():
        actor = client.submit(Actor, actor=True).result()
        return lambda: [f.result() for f in [actor.small_value() for _ in range(1000)]]

    def end():
        client.close()
        cluster.close()

    rows = [
        Row("tasks_one_at_a_time", "1/s", 1, lambda: one),
        Row("tasks_batch_1000", "1/s", 1000, lambda: batch),
        Row("tasks_and_get_batch", "1/s", 1, lambda: batch),
        Row("actor_calls_one_at_a_time", "1/s", 1, actor_one),
        Row("actor_calls_batch_1000", "1/s", 1000, actor_batch),
    ]
    return rows, end


def xoscar():
    """xoscar's actor pool with one sub-process."""
    import asyncio

    import xoscar as xo

    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(xo.create_actor_pool("127.0.0.1:0", n_process=1))
    address = list(pool.sub_processes)[0]

    class Idle(xo.Actor):
        def small_value(self):
            return b"ok"

    actor = loop.run_until_complete(xo.create_actor(Idle, address=address, uid="idle"))

    async def one():
        return await actor.small_value()

    async def batch():
        return await asyncio.gather(*[actor.small_value() for _ in range(1000)])

    rows = [
        Row("actor_calls_one_at_a_time", "1/s", 1, lambda: lambda: loop.run_until_complete(one())),
        Row("actor_calls_batch_1000", "1/s", 1000, lambda: lambda: loop.run_until_complete(batch())),
    ]
    return rows, lambda: loop.run_until_complete(pool.stop())


PEERS = {"multiprocessing": multiprocessing, "dask": dask, "xoscar": xoscar}
