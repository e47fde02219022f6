#!/usr/bin/env python3
"""Measures task systems from Python: the rows of rows.py on libray or, with `--module ray`, on the real
Ray, and what other libraries can express (peers.py) with `--module multiprocessing` and so on.

Each row: warm up, then four rounds; the value is the median of the rounds, the deviation their
standard deviation. `--json FILE` writes rows of (name, language, value, unit, deviation). `--serve`
measures one row per line of the standard input and answers each with one line of JSON, so that
./dev bench can run two systems in turns.
"""

import argparse
import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

FIRST = """
import time
began = time.perf_counter()
import {module} as api
api.init({arguments})
@api.remote
def f(): return 1
api.get(f.remote())
print(time.perf_counter() - began)
"""
RAY_ARGUMENTS = "log_to_driver=False, include_dashboard=False, logging_level='ERROR'"


def measure(row, seconds, long_calls=3):
    """(median, deviation) over four rounds of operations per second, or of seconds for one call."""
    function = row.prepare()
    began = time.perf_counter()
    calls = 0
    while calls == 0 or (time.perf_counter() - began < seconds / 2 and not row.once):
        function()
        calls += 1
    if row.once:
        return _times(function, long_calls)
    step = calls // 10 + 1
    rounds = []
    for _ in range(4):
        count, began = 0, time.perf_counter()
        while count == 0 or time.perf_counter() - began < seconds:
            for _ in range(step):
                function()
            count += step
        rounds.append(row.per_call * count / (time.perf_counter() - began))
    if row.unit == "s":
        rounds = [1 / r for r in rounds]
    return statistics.median(rounds), statistics.pstdev(rounds)


def _times(function, n):
    times = []
    for _ in range(n):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times), statistics.pstdev(times)


def first_result(module, runs, before=lambda: None):
    """Seconds from the import to the first result, each in a new process. Byte code is there, as in an
    installed package, whether or not this program's environment lets Python write it."""
    code = FIRST.format(module=module, arguments=RAY_ARGUMENTS if module == "ray" else "")
    with tempfile.TemporaryDirectory() as folder:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = folder
        times = []
        for _ in range(runs + 1):
            before()
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                                  env=env)
            times.append(float(done.stdout.split()[-1]))
    return statistics.median(times[1:]), statistics.pstdev(times[1:])


def package_files(module):
    """The files of a package and, in a build folder, of its native half beside it."""
    found = importlib.util.find_spec(module)
    if found is None or not found.origin:
        raise SystemExit(f"{module} is not installed")
    package = os.path.dirname(found.origin)
    build = os.path.dirname(os.path.dirname(package))
    for top in (package, os.path.join(build, "bin"), os.path.join(build, "lib")):
        if top != package and not os.path.exists(os.path.join(build, "CMakeCache.txt")):
            continue
        for folder, _, names in os.walk(top):
            for name in names:
                yield os.path.realpath(os.path.join(folder, name))


def cold_start(module, runs):
    """first_result with the package's files out of the page cache each time. Only in a process that has
    not loaded them: what is mapped stays."""
    def forget():
        for path in package_files(module):
            try:
                fd = os.open(path, os.O_RDONLY)
            except OSError:
                continue
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)

    return first_result(module, runs, forget)


class Session:
    """A module under measurement and its rows."""

    def __init__(self, module, quick, growth):
        self.module, self.quick, self.growth = module, quick, growth
        self.used = False
        self.end = lambda: None
        if module in ("libray", "ray"):
            self.api = importlib.import_module(module)
            self.rows = None
        else:
            import peers

            found, self.end = peers.PEERS[module]()
            self.rows = {r.name: r for r in found}

    def start(self):
        if self.rows is not None:
            return
        if self.module == "ray":
            self.api.init(log_to_driver=False, include_dashboard=False, logging_level="ERROR")
        else:
            self.api.init()
        import extra
        import rows

        found = rows.rows(self.api)
        if self.module == "libray":
            found = extra.rows(self.api) + found  # first: memory is measured on a young heap
            found += extra.growth_rows(self.api, self.quick) if self.growth else []
        self.rows = {r.name: r for r in found}
        self.end = self.api.shutdown

    def names(self):
        if self.module in ("libray", "ray"):
            return ["init_to_first_result"] + list(self._listed())
        return list(self.rows)

    def _listed(self):
        self.start()
        return self.rows

    def run(self, name):
        """One row as a dict, or several of one measurement; None when the module cannot express it."""
        if name == "init_to_first_result" and self.module in ("libray", "ray"):
            value, deviation = first_result(self.module, 3 if self.quick else 7)
            return [self._row(name, value, "s", deviation)]
        # A cluster of its own for each row: what the rows before it left to be done is not measured.
        if self.used and self.module in ("libray", "ray"):
            self.end()
            self.rows = None
        self.start()
        row = self.rows.get(name)
        if row is None:
            return None
        self.used = True
        if row.per_call == 0:  # measures by itself: [(name, value, unit, deviation)]
            return [self._row(*r) for r in row.prepare()(self.quick)]
        value, deviation = measure(row, 0.1 if self.quick else 1.0, 3 if self.module == "libray" else 1)
        return [self._row(name, value, row.unit, deviation, row.number)]

    def _row(self, name, value, unit, deviation, number=""):
        row = {"name": name, "language": "python", "value": value, "unit": unit, "deviation": deviation}
        if self.module != "libray":
            row["system"] = self.module
        if number:
            row["number"] = number
        return row


def serve(session):
    """One name a line in, one line of JSON out; `names` lists them."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the rows print does not get into the answers
    for line in sys.stdin:
        name = line.strip()
        try:
            answer = session.names() if name == "names" else session.run(name)
        except Exception as e:  # pylint: disable=broad-except
            answer = {"error": f"{type(e).__name__}: {e}"}
        out.write(json.dumps(answer) + "\n")
        out.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the rows there")
    parser.add_argument("--filter", default="", help="only rows whose name holds this")
    parser.add_argument("--quick", action="store_true", help="a tenth of the time")
    parser.add_argument("--growth", action="store_true", help="also how cost grows with the queue")
    parser.add_argument("--module", default="libray", help="libray, ray, or one of peers.py")
    parser.add_argument("--serve", action="store_true", help="measure what the standard input names")
    parser.add_argument("--cold", action="store_true", help="only the start with files that nobody has read")
    args = parser.parse_args()
    if args.cold:
        value, deviation = cold_start(args.module, 2 if args.quick else 5)
        print(json.dumps({"value": value, "deviation": deviation}))
        return
    session = Session(args.module, args.quick, args.growth)
    if args.serve:
        serve(session)
        session.end()
        return
    out = []
    for name in session.names():
        if args.filter not in name or (args.quick and name in ("queued_1M", "largest_get_1GiB")):
            continue
        for row in session.run(name) or []:
            out.append(row)
            print(f"{row['name']:<44} {row['value']:>16,.4f} {row['unit']:<5} +- "
                  f"{row['deviation']:,.4f}", flush=True)
    session.end()
    if args.json:
        with open(args.json, "w") as file:
            json.dump(out, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
