#!/usr/bin/env python3
"""What this machine and Python can do without libray: the yardsticks of Python's rows, beside those of bench/c/limits.cc.
Run by ./dev bench, in a process of its own that never starts a runtime:

    limits.py --modules build/release/bench [--json FILE] [--quick]

limit_ring_python_*: bare rings between two processes; for each record the far one calls a Python function that returns
b"ok", and nothing else. The near one is native: a driver's own Python code comes on top. limit_pool_*: the standard
library's pool, as many processes as processors, a function that does nothing: a map of 1000 in chunks of 1, and one call
at a time."""

import argparse
import json
import mmap
import os
import signal
import statistics
import sys
import traceback

import bench
import peers


def small_value():
    return b"ok"


def ring_rows(bare_ring, quick):
    memory = mmap.mmap(-1, bare_ring.SIZE)  # shared with the child
    child = os.fork()
    if child == 0:
        try:
            bare_ring.serve(memory, small_value)
        except BaseException:  # pylint: disable=broad-except
            traceback.print_exc()
        os._exit(1)  # only a call that fails ends it: the near end says so
    try:
        bare_ring.drive(memory, child, 20, 1000)
        rates = []
        for _ in range(2 if quick else 5):
            took = bare_ring.drive(memory, child, 100 if quick else 500, 1000)
            rates.append(1000 * len(took) * 1e9 / sum(took))
        one = sorted(bare_ring.drive(memory, child, 10_000 if quick else 100_000, 1))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return [("limit_ring_python_batch_1000", statistics.median(rates), "1/s", statistics.pstdev(rates)),
            ("limit_ring_python_latency_p50", one[len(one) // 2] / 1e3, "us", 0.0)]


def _rate(row, quick):
    value, deviation = bench.measure(row, 0.1 if quick else 0.5)
    return value, row.unit, deviation


def pool_rows(quick):
    found, end = peers.multiprocessing()
    rows = {r.name: r for r in found}
    try:
        return [(name, *_rate(rows[of], quick)) for name, of in (
            ("limit_pool_batch_1000", "tasks_batch_1000"), ("limit_pool_one_at_a_time", "tasks_one_at_a_time"))]
    finally:
        end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--modules", required=True, metavar="FOLDER", help="where the module bare_ring was built")
    parser.add_argument("--json", metavar="FILE", help="write the rows there")
    parser.add_argument("--quick", action="store_true", help="a fifth of the time")
    args = parser.parse_args()
    sys.path.insert(0, args.modules)
    import bare_ring

    rows = [{"name": name, "language": "python", "value": value, "unit": unit, "deviation": deviation}
            for name, value, unit, deviation in ring_rows(bare_ring, args.quick) + pool_rows(args.quick)]
    for row in rows:
        print(f"  {row['name']:<34} {row['value']:14.6g} {row['unit']}", file=sys.stderr)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
