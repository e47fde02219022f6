"""./dev bench: runs the measurements of every language and prints one table beside the targets.

Each bench program writes rows {name, language, value, unit, deviation}. What they are compared with, most of it measured in
the same run, is in bench_targets.py. With --peer NAME the very same Python definitions run on another system too, in turns
with libray within one run, and a ratio is printed; peers are installed from PyPI into environments of their own below
build/peers. --report also writes docs/bench.json, a table into docs/performance.md and a chart (bench_report.py).
"""
import json
import os
import platform
import shutil
import signal
import subprocess
import time

import bench_report
import bench_targets
import build
import java
import rust
from shell import BUILD, ROOT, Failure, digest, forget, is_stamped, output, run, say, set_stamp, start, status

shown = bench_targets.shown
PEERS = {"ray": ["ray"], "multiprocessing": [], "dask": ["distributed"], "xoscar": ["xoscar"]}
SLOW = {"queued_1M", "queued_100k", "largest_get_1GiB"}  # not with --quick


def program(args, label, command, env=None):
    """Runs one bench program; returns its rows."""
    out = BUILD / f"bench-{label}.json"
    out.unlink(missing_ok=True)
    status(f"measuring {label} ...")
    process = start([*command, "--json", str(out)] + (["--quick"] if args.quick else []),
                    env=env or build.environment())
    code = process.wait()
    forget(process)
    if code != 0 or not out.exists():
        raise Failure(f"the {label} measurements ended with status {code}")
    return json.loads(out.read_text())


def bench_c(*arguments):
    return [str(build.folder("release") / "bin" / "bench_c"), *arguments]


def c_rows(args):
    filtered = ["--filter", args.filter] if args.filter else []
    yield from program(args, "c", bench_c(*filtered))
    if args.filter in "tasks_batch_1000_unjournaled" or args.filter in "lineage_cost":
        yield from lineage_rows(args)
    if args.growth:
        yield from program(args, "growth", bench_c("--growth", *filtered))
        if args.filter in "growth_rings_bare_" or args.filter.startswith("growth_rings"):
            limits = build.folder("release") / "bin" / "bench_limits"
            yield from program(args, "limits-growth", [str(limits), "--growth"])


def lineage_rows(args):
    """C's batches with lineage and without, in turns: what differs between them is small beside what hours differ by."""
    pairs = []
    for _ in range(1 if args.quick else 3):
        rates = []
        for label, more in (("journaled", {}), ("unjournaled", {"LIBRAY_LINEAGE": "0", "LIBRAY_BENCH_NO_LINEAGE": "1"})):
            (row,) = program(args, f"c-{label}", bench_c("--filter", "tasks_batch_1000"), dict(build.environment(), **more))
            rates.append(row["value"])
        pairs.append(rates)
    return bench_targets.lineage_rows(pairs)


def sustained_rows(args):
    """A driver that never pauses, with the limits of the shards' tables that every program has (do_bench lifts them)."""
    seconds = 15 if args.quick else 300
    name = f"sustained_{seconds}s"
    if args.filter in name or args.filter.startswith(name):
        env = {k: v for k, v in build.environment().items() if k not in ("LIBRAY_TASK_ROWS", "LIBRAY_TABLE_BYTES")}
        command = bench_c("--sustained", str(seconds), "--filter", args.filter)
        yield from program(args, "c-sustained", command, env)


def limit_rows(args):
    """What the machine does without a runtime: when the filter names it, or names what is compared with it."""
    languages = [args.only] if args.only else ["c", "python"]
    wanted = {language for language, name in bench_targets.wanted_yardsticks(languages, args.filter)
              if name.startswith("limit_")}
    if args.filter in "limit_" or args.filter.startswith("limit"):
        wanted.update({"c", "python"} & set(languages))
    if "c" in wanted:
        yield from program(args, "limits", [str(build.folder("release") / "bin" / "bench_limits")])
    if "python" in wanted:
        command = [str(build.venv_python()), str(ROOT / "bench" / "python" / "limits.py"),
                   "--modules", str(build.folder("release") / "bench")]
        yield from program(args, "limits-python", command)


def cpp_rows(args):
    """ray.hpp beside ray.h, in turns on one node."""
    command = [str(build.folder("release") / "bin" / "bench_cpp")]
    return program(args, "cpp", command + (["--filter", args.filter] if args.filter else []))


def java_rows(args):
    """The Java binding, where there are a JDK and Maven."""
    if not java.is_there():
        say(java.ABSENT)
        return
    command = java.program("Bench")
    yield from program(args, "java", command + (["--filter", args.filter] if args.filter else []), java.environment())


def rust_rows(args):
    """The Rust binding, where there is a cargo."""
    if not rust.is_there():
        say(rust.ABSENT)
        return
    command, env = rust.bench_program()
    yield from program(args, "rust", command + (["--filter", args.filter] if args.filter else []), env)


# ---- Python, several systems in turns -------------------------------------------------------------

def signal_tree(pid, number):
    """To a process and all that come of it, also those in groups of their own."""
    done = set()
    while True:
        parents = {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/stat", encoding="utf8", errors="replace") as f:
                    parents[int(entry)] = int(f.read().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended
        tree = {pid} & set(parents)
        while True:
            more = {p for p, parent in parents.items() if parent in tree} - tree
            if not more:
                break
            tree |= more
        if tree <= done:
            return
        for p in tree - done:
            try:
                os.kill(p, number)
            except ProcessLookupError:
                pass
        done |= tree


class Served:
    """One bench.py --serve on a system. It is stopped while another is measured."""

    def __init__(self, args, module, python):
        self.module = module
        command = [str(python), str(ROOT / "bench" / "python" / "bench.py"), "--serve", "--module", module]
        env = dict(build.environment(), PYTHONPATH=str(ROOT / "bench" / "python"))
        command += ["--quick"] * args.quick + ["--growth"] * args.growth
        self.process = start(command, env=env, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, line):
        signal_tree(self.process.pid, signal.SIGCONT)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise Failure(f"the measurements of {self.module} ended at {line}")
        return json.loads(answer)

    def pause(self):
        """Until it is asked again: what idle processes do would cost the others processor time."""
        signal_tree(self.process.pid, signal.SIGSTOP)

    def end(self):
        signal_tree(self.process.pid, signal.SIGCONT)
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            pass
        forget(self.process)


def peer_python(peer):
    """The interpreter of the peer's own environment, made when it is not there."""
    if not PEERS[peer]:
        return build.venv_python()
    place = BUILD / "peers" / peer
    python = place / "bin" / "python"
    key = digest(*PEERS[peer])
    if not python.exists() or not is_stamped(f"peer-{peer}", key):
        shutil.rmtree(BUILD / "stamps" / f"peer-{peer}-samples", ignore_errors=True)  # it is new: nothing is in it
        run([build.venv_python(), "-m", "venv", place], f"environment for {peer}", env=build.environment())
        run([python, "-m", "pip", "install", "--progress-bar", "off", "numpy", *PEERS[peer]],
            f"{peer} from PyPI", env=build.environment())
        set_stamp(f"peer-{peer}", key)
    return python


def python_rows(args):
    """Rows of libray and of the peers, row by row in turns; each line of them is told when it is there."""
    peers = args.peer or []
    served = [Served(args, "libray", build.venv_python())]
    try:
        served += [Served(args, peer, peer_python(peer)) for peer in peers]
        for system in served:
            system.ask("names")
            system.pause()
        names = [n for n in served[0].ask("names")
                 if args.filter in n and not (args.quick and n in SLOW)]
        for name in names:
            for system in served:
                if name == "queued_1M" and system.module != "libray":
                    continue  # minutes on any of them; queued_100k tells as much
                status(f"measuring {name} on {system.module} ...")
                found = system.ask(name)
                if peers:
                    system.pause()
                if isinstance(found, dict):
                    say(f"{name} on {system.module}: {found['error']}")
                    continue
                for row in found or []:
                    say(f"  {row['name']:<36} {system.module:<16} {shown(row['value'], row['unit'])}")
                    yield row
    finally:
        for system in served:
            system.end()


def cold_rows(args):
    """Start with cold files. Before anything else loads them."""
    rows = []
    for system in ["libray"] + (["ray"] if "ray" in (args.peer or []) else []):
        python = build.venv_python() if system == "libray" else peer_python(system)
        status(f"a cold start of {system} ...")
        done = subprocess.run(
            [str(python), str(ROOT / "bench" / "python" / "bench.py"), "--cold", "--module", system]
            + (["--quick"] if args.quick else []),
            env=build.environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            say(f"the cold start of {system} failed: {done.stderr[-500:]}")
            continue
        row = {"name": "init_to_first_result_cold", "language": "python", "unit": "s",
               **json.loads(done.stdout.split("\n")[-2])}
        rows.append(row if system == "libray" else dict(row, system=system))
    return rows


def wheel_rows(args):
    """Megabytes to download, of the wheel of this tree and of the peer's."""
    place = BUILD / "dist"
    shutil.rmtree(place, ignore_errors=True)
    python = build.venv_python()
    run([python, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "--config-settings",
         f"build-dir={BUILD / 'wheel'}", "-w", place / "libray", ROOT / "bindings" / "python"],
        "the wheel", env=build.environment())
    systems = ["libray"]
    if "ray" in (args.peer or []):
        peer = peer_python("ray")
        version = (output([peer, "-c", "import ray; print(ray.__version__)"]) or "").strip()
        run([peer, "-m", "pip", "download", "-q", "--no-deps", "-d", place / "ray", f"ray=={version}"],
            "ray's wheel", env=build.environment())
        systems.append("ray")
    rows = []
    for system in systems:
        (wheel,) = (place / system).glob("*.whl")
        row = {"name": "wheel_size", "language": "python", "value": wheel.stat().st_size / 1e6, "unit": "MB",
               "deviation": 0.0}
        rows.append(row if system == "libray" else dict(row, system=system))
    return rows


def evolve_rows(args):
    """The main job, to its end, on libray and on the peer: seconds from start to solved."""
    rows = []
    for system in ["libray"] + (["ray"] if "ray" in (args.peer or []) else []):
        python = build.venv_python() if system == "libray" else peer_python("ray")
        if system == "ray":
            build.install_requirements(ROOT / "samples" / "python" / "requirements.txt", python, "peer-ray-samples")
        status(f"the main job on {system} ...")
        began = time.monotonic()
        process = start([python, "-u", ROOT / "samples" / "python" / "evolve.py",
                         "--out", BUILD / f"evolve-{system}.png"],
                        env=dict(build.environment(), LIBRAY_SAMPLE_MODULE=system),
                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        code = process.wait()
        forget(process)
        if code:
            say(f"the main job on {system} ended with status {code}")
            continue
        row = {"name": "main_job", "language": "python", "value": time.monotonic() - began, "unit": "s",
               "deviation": 0.0}
        rows.append(row if system == "libray" else dict(row, system=system))
    return rows


# ---- showing -------------------------------------------------------------------------------------------

def better(row, other):
    """How many times better than the other system's row."""
    if not row["value"] or not other["value"]:
        return 0.0
    more = row["value"] / other["value"]
    return more if row["unit"].endswith("/s") or row["unit"] == "1/s" else 1 / more


def table(rows):
    """Lines of (name, language, value, deviation, notes of its targets, ratios by peer)."""
    own = bench_targets.own_rows(rows)
    lines = []
    for row in rows:
        if "system" in row:
            continue
        ratios = {r["system"]: (r, better(row, r)) for r in rows
                  if r.get("system") and r["name"] == row["name"] and r["language"] == row["language"]}
        deviation = f"{100 * row['deviation'] / abs(row['value']):.0f} %" if row["value"] else "-"
        notes = bench_targets.notes(row, own)
        lines.append((row["name"], row["language"], shown(row["value"], row["unit"]), deviation, notes, ratios))
    return lines


def print_table(rows):
    say(f"{'name':<36} {'lang':<7} {'value':>16} {'± ':>6} {'target':<44}  against peers")
    for name, language, value, deviation, notes, ratios in table(rows):
        peers = ", ".join(f"{peer} {shown(r['value'], r['unit'])} ({ratio:.1f} x)"
                          for peer, (r, ratio) in ratios.items())
        say(f"{name:<36} {language:<7} {value:>16} {deviation:>6} {notes[0] if notes else '':<44}  {peers}".rstrip())
        for note in notes[1:]:
            say(f"{'':<36} {'':<7} {'':>16} {'':>6} {note}")


def describe_machine():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo")
                  if line.startswith("model name")), platform.machine())
    commit = (output(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]) or "").strip()
    return {"cpu": model, "cpus": len(os.sched_getaffinity(0)), "kernel": platform.release(),
            "commit": commit, "date": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0]}


def is_busy(machine):
    """Threads that wait for each other, as OpenMP's do, lose more by others' work than processes that sleep."""
    return machine["load"] > machine["cpus"] / 2


def stages(args):
    """What is to be measured, each a function that gives rows."""
    out = []
    if args.only in (None, "c"):
        out += [c_rows, sustained_rows]
    if args.only in (None, "c", "python"):
        out.append(limit_rows)
    if args.only in (None, "cpp"):
        out.append(cpp_rows)
    if args.only in (None, "java"):
        out.append(java_rows)
    if args.only in (None, "rust"):
        out.append(rust_rows)
    if args.only in (None, "python"):
        whole = args.report and not args.quick and not args.filter
        beside_ray = "ray" in (args.peer or []) and args.filter in "main_job"
        out += [cold_rows] if args.filter in "init_to_first_result_cold" else []
        out += [python_rows] if args.filter not in ("main_job", "wheel_size") else []
        out += [evolve_rows] if args.filter == "main_job" or beside_ray or whole else []
        out += [wheel_rows] if args.filter == "wheel_size" or whole else []
    return out


def do_bench(args):
    if args.report_from:
        bench_report.write(json.loads(open(args.report_from).read()))
        return
    build.build("release", [*build.PRODUCT, "bench/all"])
    if args.only in (None, "python"):
        build.install_package()
    os.environ["LIBRAY_TASK_ROWS"] = "0"  # no old rows go: the programs count every task's lineage
    machine = describe_machine()  # with the load before the measurements, not theirs
    rows, failed = [], False
    for stage in stages(args):
        try:
            for row in stage(args):
                rows.append(row)
        except (Failure, OSError, ValueError, subprocess.SubprocessError) as e:
            failed = True  # what was measured so far is not lost
            say(f"{stage.__name__.replace('_', ' ')}: {e}")
    rows += bench_targets.derived_rows(rows)
    if not rows:
        raise Failure(f"no row's name holds '{args.filter}'")
    machine["rounds"] = "short rounds (--quick)" if args.quick else "whole rounds"
    result = {"machine": machine, "rows": rows}
    if args.json:
        with open(args.json, "w") as out:
            json.dump(result, out, indent=1)
            out.write("\n")
        say(f"written to {args.json}")
    print_table(rows)
    if is_busy(machine):
        say(f"load {machine['load']:.1f} before the run, {machine['cpus']} processors: others took part of the machine, and "
            "ratios of what needs both processors to what needs one say little")
    if args.report:
        bench_report.write(result)
    return 1 if failed else 0
