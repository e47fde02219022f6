#!/usr/bin/env python3
"""Measures the Python package: the rows of the usual microbenchmark of task systems, with one
definition each (what one call of the function does, how many operations that counts as).

Each row: warm up, then four rounds; the value is the median of the rounds, the deviation their
standard deviation. `--json FILE` writes rows of (name, language, value, unit, deviation).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import libray

ROWS = []


def row(name, unit="1/s", per_call=1):
    """A function that prepares and returns what is to be timed."""

    def add(prepare):
        ROWS.append((name, unit, per_call, prepare))
        return prepare

    return add


@libray.remote
def small_value():
    return b"ok"


@libray.remote
def with_argument(x):
    return x


@libray.remote
def make_refs(n):
    return [libray.put(1) for _ in range(n)]


@libray.remote
def put_many(n):
    for _ in range(n):
        libray.put(0)


@libray.remote
class Actor:
    def small_value(self):
        return b"ok"

    def small_value_arg(self, x):
        return b"ok"

    def small_value_batch(self, n):
        libray.get([small_value.remote() for _ in range(n)])


@libray.remote
class AsyncActor:
    async def small_value(self):
        return b"ok"


@row("tasks_one_at_a_time")
def _():
    return lambda: libray.get(small_value.remote())


@row("tasks_batch_1000", per_call=1000)
def _():
    return lambda: libray.get([small_value.remote() for _ in range(1000)])


@row("tasks_batch_1000_with_argument", per_call=1000)
def _():
    return lambda: libray.get([with_argument.remote(i) for i in range(1000)])


@row("tasks_submit_only", per_call=1000)
def _():
    def submit():
        submit.kept = [small_value.remote() for _ in range(1000)]

    def finish():
        libray.get(submit.kept)

    submit.after = finish
    return submit


@row("tasks_multi_client", per_call=20000)
def _():
    clients = [Actor.remote() for _ in range(2)]
    return lambda: libray.get([c.small_value_batch.remote(10000) for c in clients])


@row("actor_calls_one_at_a_time")
def _():
    a = Actor.remote()
    return lambda: libray.get(a.small_value.remote())


@row("actor_calls_batch_1000", per_call=1000)
def _():
    a = Actor.remote()
    return lambda: libray.get([a.small_value.remote() for _ in range(1000)])


@row("actor_calls_threaded_batch_1000", per_call=1000)
def _():
    a = Actor.options(max_concurrency=16).remote()
    return lambda: libray.get([a.small_value.remote() for _ in range(1000)])


@row("actor_calls_with_ref_argument_batch_1000", per_call=1000)
def _():
    a = Actor.remote()
    x = libray.put(0)
    return lambda: libray.get([a.small_value_arg.remote(x) for _ in range(1000)])


@row("async_actor_calls_one_at_a_time")
def _():
    a = AsyncActor.remote()
    return lambda: libray.get(a.small_value.remote())


@row("async_actor_calls_batch_1000", per_call=1000)
def _():
    a = AsyncActor.remote()
    return lambda: libray.get([a.small_value.remote() for _ in range(1000)])


@row("get_small")
def _():
    ref = libray.put(0)
    return lambda: libray.get(ref)


@row("put_small")
def _():
    return lambda: libray.put(0)


@row("put_small_multi_client", per_call=1000)
def _():
    return lambda: libray.get([put_many.remote(100) for _ in range(10)])


@row("put_100MB", unit="GB/s", per_call=0.1)
def _():
    array = np.zeros(100_000_000 // 8)
    return lambda: libray.put(array)


@row("get_object_with_10k_refs")
def _():
    ref = make_refs.remote(10_000)
    libray.wait([ref])
    return lambda: libray.get(ref)


@row("wait_1k_refs")
def _():
    def wait():
        left = [small_value.remote() for _ in range(1000)]
        while left:
            _, left = libray.wait(left)

    return wait


@row("stream_items_1000", per_call=1000)
def _():
    @libray.remote
    def items():
        for i in range(1000):
            yield i

    def consume():
        for ref in items.remote():
            libray.get(ref)

    return consume


@row("await_gather_1000", per_call=1000)
def _():
    import asyncio

    async def gather():
        await asyncio.gather(*[small_value.remote() for _ in range(1000)])

    loop = asyncio.new_event_loop()
    return lambda: loop.run_until_complete(gather())


def measure(function, per_call, seconds):
    """(median, deviation) of operations per second over four rounds."""
    after = getattr(function, "after", lambda: None)
    began = time.perf_counter()
    calls = 0
    while calls == 0 or time.perf_counter() - began < seconds / 2:
        function()
        after()
        calls += 1
    step = calls // 10 + 1
    rounds = []
    for _ in range(4):
        count, spent, began = 0, 0.0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            for _ in range(step):
                t = time.perf_counter()
                function()
                spent += time.perf_counter() - t
                after()
            count += step
        rounds.append(per_call * count / spent)
    return statistics.median(rounds), statistics.pstdev(rounds)


FIRST = """
import time
began = time.perf_counter()
import libray
libray.init()
@libray.remote
def f(): return 1
libray.get(f.remote())
print(time.perf_counter() - began)
"""


def first_result(runs):
    """Seconds from `import libray` to the first result, each in a new process."""
    times = []
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-c", FIRST], capture_output=True, text=True, check=True
        )
        times.append(float(done.stdout))
    return statistics.median(times), statistics.pstdev(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the rows there")
    parser.add_argument("--filter", default="", help="only rows whose name holds this")
    parser.add_argument("--quick", action="store_true", help="a tenth of the time")
    args = parser.parse_args()
    out = []

    def add(name, value, unit, deviation):
        out.append(
            {
                "name": name,
                "language": "python",
                "value": value,
                "unit": unit,
                "deviation": deviation,
            }
        )
        print(f"{name:<44} {value:>14,.3f} {unit:<5} +- {deviation:,.3f}", flush=True)

    if args.filter in "init_to_first_result":
        add("init_to_first_result", *_with_unit(first_result(3 if args.quick else 7), "s"))
    libray.init()
    for name, unit, per_call, prepare in ROWS:
        if args.filter in name:
            value, deviation = measure(prepare(), per_call, 0.2 if args.quick else 2.0)
            add(name, value, unit, deviation)
    libray.shutdown()
    if args.json:
        with open(args.json, "w") as file:
            json.dump(out, file, indent=1)
            file.write("\n")


def _with_unit(measured, unit):
    return measured[0], unit, measured[1]


if __name__ == "__main__":
    main()
