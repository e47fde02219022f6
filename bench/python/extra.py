"""Rows that only libray has, beside rows.py: streams, await, latency percentiles with spinning and with
sleeping peers, processor time of every process, memory of a queued task, a large put against memcpy
in the same run. A row with per_call 0 measures by itself and gives several results."""

import asyncio
import glob
import mmap
import os
import statistics
import time

import numpy as np
from rows import Row


def family():
    """Pids of this process and all below it, with what they are."""
    parents = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            text = open(path).read()
        except OSError:
            continue
        pid = int(text.split(" ", 1)[0])
        parents[pid] = int(text.rsplit(")", 1)[1].split()[1])
    mine, kinds = {os.getpid()}, {os.getpid(): "driver"}
    for _ in range(4):
        mine |= {pid for pid, parent in parents.items() if parent in mine}
    for pid in mine - {os.getpid()}:
        try:
            command = open(f"/proc/{pid}/cmdline").read().split("\0")
        except OSError:
            continue
        role = command[1] if len(command) > 1 and command[0].endswith("rayd") else "worker"
        kinds[pid] = {"node": "daemon", "gcs": "shards"}.get(role, role)
    return kinds


def cpu_ns():
    """Processor time by kind of process."""
    total = {}
    for pid, kind in family().items():
        for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            try:
                total[kind] = total.get(kind, 0) + int(open(path).read().split()[0])
            except OSError:
                pass
    return total


def rss_kb(pid="self", field="VmRSS"):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def private_mb(pid):
    kb = 0
    for line in open(f"/proc/{pid}/smaps_rollup"):
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            kb += int(line.split()[1])
    return kb / 1024


def percentiles(name, function, n, pause=0.0):
    times = []
    for _ in range(n):
        if pause:
            time.sleep(pause)
        began = time.perf_counter()
        function()
        times.append((time.perf_counter() - began) * 1e6)
    times.sort()
    return [(f"{name}_{label}", times[min(n - 1, int(n * share))], "us", 0.0)
            for label, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))]


def _settled(look):
    """What `look` says once it has said so twice, a quarter of a second apart."""
    value = look()
    while True:
        time.sleep(0.25)
        last, value = value, look()
        if value == last:
            return value


def _latency_rows(api):
    """Percentiles, and what a submission takes its caller."""

    @api.remote
    def small_value():
        return b"ok"

    @api.remote
    class Actor:
        def small_value(self):
            return b"ok"

    def task_latency():
        def run(quick):
            call = lambda: api.get(small_value.remote())  # noqa: E731
            percentiles("", call, 200)
            return (percentiles("task_latency", call, 2000 if quick else 20000)
                    + percentiles("task_latency_sleeping", call, 20 if quick else 200, 0.02))

        return run

    def actor_latency():
        def run(quick):
            a = Actor.remote()
            call = lambda: api.get(a.small_value.remote())  # noqa: E731
            percentiles("", call, 200)
            return (percentiles("actor_latency", call, 2000 if quick else 20000)
                    + percentiles("actor_latency_sleeping", call, 20 if quick else 200, 0.02))

        return run

    def submit_cost():
        def run(quick):
            costs = []
            for _ in range(50 if quick else 300):
                began = time.perf_counter()
                refs = [small_value.remote() for _ in range(1000)]
                costs.append((time.perf_counter() - began) * 1e6)
                api.get(refs)
            return [("submit_cost", statistics.median(costs), "ns", statistics.pstdev(costs))]

        return run

    return [Row(f.__name__, "", 0, f) for f in (task_latency, actor_latency, submit_cost,)]


def _cost_rows(api):
    """Processor time and memory."""

    @api.remote
    def small_value():
        return b"ok"

    def cpu_per_task():
        def run(quick):
            n = 50 if quick else 500
            for _ in range(20):
                api.get([small_value.remote() for _ in range(1000)])
            before = cpu_ns()
            for _ in range(n):
                api.get([small_value.remote() for _ in range(1000)])
            after = cpu_ns()
            return [(f"cpu_per_task_{kind}", (after[kind] - before.get(kind, 0)) / n / 1e6, "us", 0.0)
                    for kind in sorted(after)]

        return run

    def memory_per_queued_task():
        def run(quick):
            n = 20_000 if quick else 200_000
            api.get([small_value.remote() for _ in range(1000)])
            before = rss_kb()
            refs = [small_value.remote() for _ in range(n)]
            grown = rss_kb() - before
            api.get(refs)
            return [("memory_per_queued_task", grown * 1024 / n, "B", 0.0)]

        return run

    def idle_worker():
        def run(_quick):
            api.get([small_value.remote() for _ in range(100)])
            time.sleep(1)
            mine = [private_mb(pid) for pid, kind in family().items()
                    if kind == "worker" and pid != os.getpid()]
            return [("idle_worker_private", min(mine), "MB", statistics.pstdev(mine))] if mine else []

        return run

    return [Row(f.__name__, "", 0, f) for f in (cpu_per_task, memory_per_queued_task, idle_worker)]


def _large_rows(api):
    """A large put and memcpy, in turns."""

    def put_large_and_memcpy():
        def run(quick):
            array = np.zeros(100 * 1024 * 1024, dtype=np.int64)
            array[:] = 1
            # As far into its page as the source: otherwise memcpy takes four times as long.
            skip = array.ctypes.data % mmap.PAGESIZE
            shared = mmap.mmap(-1, array.nbytes + mmap.PAGESIZE)  # MAP_SHARED: like the store's memory
            target = np.frombuffer(shared, array.dtype, array.size, skip)
            private = np.zeros_like(array)
            target[:] = 2
            private[:] = 2
            puts, copies, privates = [], [], []
            for _ in range(6):  # the store sees that the memory comes back at once: docs/performance.md
                api.put(array)
            for _ in range(2 if quick else 8):
                began = time.perf_counter()
                ref = api.put(array)
                puts.append(array.nbytes / (time.perf_counter() - began) / 1e9)
                del ref
                began = time.perf_counter()
                np.copyto(target, array)
                copies.append(array.nbytes / (time.perf_counter() - began) / 1e9)
                began = time.perf_counter()
                np.copyto(private, array)
                privates.append(array.nbytes / (time.perf_counter() - began) / 1e9)
            return [("put_large", statistics.median(puts), "GB/s", statistics.pstdev(puts)),
                    ("memcpy_large", statistics.median(copies), "GB/s", statistics.pstdev(copies)),
                    ("memcpy_large_private", statistics.median(privates), "GB/s",
                     statistics.pstdev(privates))]

        return run

    def put_cold_and_memcpy():
        def run(_quick):
            # Memory that nobody has touched: of the young store, which keeps what it gets, and mapped anew for each copy.
            array = np.ones(12 * 1024 * 1024, dtype=np.int64)
            skip = array.ctypes.data % mmap.PAGESIZE
            kept, puts, copies = [], [], []
            for _ in range(6):
                began = time.perf_counter()
                kept.append(api.put(array))
                puts.append(array.nbytes / (time.perf_counter() - began) / 1e9)
                shared = mmap.mmap(-1, array.nbytes + mmap.PAGESIZE)
                target = np.frombuffer(shared, array.dtype, array.size, skip)
                began = time.perf_counter()
                np.copyto(target, array)
                copies.append(array.nbytes / (time.perf_counter() - began) / 1e9)
                kept.append(shared)
            return [("put_cold", statistics.median(puts), "GB/s", statistics.pstdev(puts)),
                    ("memcpy_cold", statistics.median(copies), "GB/s", statistics.pstdev(copies))]

        return run

    return [Row("put_large_and_memcpy", "", 0, put_large_and_memcpy), Row("put_cold_and_memcpy", "", 0, put_cold_and_memcpy)]


def _journal_rows(api):
    """What lineage sends to the control store."""

    @api.remote
    def small_value():
        return b"ok"

    def journal_per_task():
        def run(quick):
            from libray import _libray

            n = 20 if quick else 200
            api.get([small_value.remote() for _ in range(1000)])
            before = _settled(lambda: _libray.query("journal", b""))
            for _ in range(n):
                api.get([small_value.remote() for _ in range(1000)])
            after = _settled(lambda: _libray.query("journal", b""))
            return [(f"journal_{what}_per_task", (after[key] - before[key]) / n / 1000, unit, 0.0)
                    for what, key, unit in (("records", "records", ""), ("bytes", "bytes", "B"),
                                            ("messages", "batches", ""))]

        return run

    return [Row("journal_per_task", "", 0, journal_per_task)]


def _stream_rows(api):
    """Generators and await."""

    @api.remote
    def small_value():
        return b"ok"

    def stream():
        @api.remote
        def items():
            for i in range(1000):
                yield i

        def consume():
            for ref in items.remote():
                api.get(ref)

        return consume

    def gather():
        async def all_of_them():
            await asyncio.gather(*[small_value.remote() for _ in range(1000)])

        loop = asyncio.new_event_loop()
        return lambda: loop.run_until_complete(all_of_them())

    return [Row("stream_items_1000", "1/s", 1000, stream), Row("await_gather_1000", "1/s", 1000, gather)]


def _queue_row(api, queue):
    """The same number of tasks in batches of this size: time and processor time a task."""

    @api.remote
    def small_value():
        return b"ok"

    def growth_queue():
        def run(quick):
            total = 100_000 if quick else 1_000_000

            def all_of_them():
                for _ in range(total // queue):
                    api.get([small_value.remote() for _ in range(queue)])

            all_of_them()  # so much memory has been touched before it counts
            found = {"": [], "driver_": [], "shards_": []}
            for _ in range(2 if quick else 4):
                before, began = cpu_ns(), time.perf_counter()
                all_of_them()
                took, after = time.perf_counter() - began, cpu_ns()
                found[""].append(took * 1e9 / total)
                for kind in ("driver", "shards"):
                    found[kind + "_"].append((after[kind] - before[kind]) / total)
            return [(f"growth_queue_{what}{queue}", statistics.median(values), "ns", statistics.pstdev(values))
                    for what, values in found.items()]

        return run

    return Row(f"growth_queue_{queue}", "", 0, growth_queue)


def growth_rows(api, quick):
    """How cost grows; minutes, so only with --growth."""
    return [_queue_row(api, 10 ** k) for k in range(3, 6 if quick else 7)]


def rows(api):
    return _latency_rows(api) + _cost_rows(api) + _large_rows(api) + _journal_rows(api) + _stream_rows(api)
