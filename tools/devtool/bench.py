"""./dev bench: runs the measurements of every language and prints one table beside the targets.

Each bench program writes rows {name, language, value, unit, deviation}. A target is what the project
promises for a two-core machine; it is shown, never asserted. With --peer NAME the very same Python
definitions run on another system too, in turns with libray within one run, and a ratio is printed;
peers are installed from PyPI into environments of their own below build/peers. --report also writes
docs/bench.json, a table into docs/performance.md and a chart (bench_report.py).
"""
import json
import os
import platform
import shutil
import signal
import subprocess
import time

import bench_report
import build
import java
import rust
from shell import BUILD, ROOT, Failure, digest, forget, is_stamped, output, run, say, set_stamp, start, status

# (language, name) -> (target, True = more is better)
TARGETS = {
    ("c", "tasks_batch_1000"): (1.8e6, True),
    ("c", "task_latency_p50"): (2.0, False),
    ("c", "task_latency_sleeping_p50"): (80.0, False),
    ("c", "actor_calls_batch_1000"): (2e6, True),
    ("c", "actor_latency_p50"): (2.0, False),
    ("c", "put_get_small"): (4e6, True),
    ("c", "get_small"): (10e6, True),
    ("c", "init_to_first_result"): (0.05, False),
    ("c", "idle_rayd_rss"): (25.0, False),
    ("c", "queued_1M"): (1.0, False),
    ("python", "tasks_batch_1000"): (1e6, True),
    ("python", "tasks_one_at_a_time"): (250e3, True),
    ("python", "actor_calls_batch_1000"): (1e6, True),
    ("python", "actor_calls_one_at_a_time"): (250e3, True),
    ("python", "async_actor_calls_batch_1000"): (200e3, True),
    ("python", "async_actor_calls_one_at_a_time"): (60e3, True),
    ("python", "put_small"): (1.5e6, True),
    ("python", "get_small"): (3e6, True),
    ("python", "get_object_with_10k_refs"): (500, True),
    ("python", "wait_1k_refs"): (100, True),
    ("python", "queued_1M"): (2.5, False),
    ("python", "object_args_10k"): (0.05, False),
    ("python", "returns_3k"): (0.02, False),
    ("python", "get_10k_objects"): (0.02, False),
    ("python", "init_to_first_result"): (0.25, False),
    ("python", "idle_worker_private"): (12.0, False),
    ("c", "idle_worker_private"): (3.0, False),
    ("python", "wheel_size"): (8.0, False),
    ("java", "tasks_batch_1000_per_c"): (0.3, True),
    ("java", "worker_start"): (0.4, False),
    ("java", "idle_worker_rss"): (60.0, False),
    ("rust", "tasks_batch_1000_per_c"): (0.7, True),
    ("rust", "task_latency_p50_over_c"): (1.3, False),
    ("rust", "worker_start"): (0.02, False),
    ("c", "put_large_share"): (0.9, True),
    ("python", "put_large_share"): (0.9, True),
    ("cpp", "tasks_batch_1000_per_c"): (0.9, True),
    ("cpp", "task_latency_p50_over_c"): (1.1, False),
    ("cpp", "actor_calls_batch_1000_per_c"): (0.9, True),
    ("cpp", "actor_latency_p50_over_c"): (1.1, False),
}
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


def c_rows(args):
    binaries = build.folder("release") / "bin"
    program_c = [str(binaries / "bench_c")] + (["--filter", args.filter] if args.filter else [])
    yield from program(args, "c", program_c)
    if args.filter in "limit_" or args.filter.startswith("limit"):
        yield from program(args, "limits", [str(binaries / "bench_limits")])
    if args.filter in "tasks_batch_1000_unjournaled":
        env = dict(build.environment(), LIBRAY_LINEAGE="0", LIBRAY_BENCH_NO_LINEAGE="1")
        off = program(args, "c-unjournaled", [str(binaries / "bench_c"), "--filter", "tasks_batch_1000"], env)
        yield from (dict(r, name=r["name"] + "_unjournaled") for r in off)
    if args.growth:
        yield from program(args, "growth", [*program_c, "--growth"])
        if args.filter in "growth_rings_bare_" or args.filter.startswith("growth_rings"):
            yield from program(args, "limits-growth", [str(binaries / "bench_limits"), "--growth"])


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
        self.process = start(command + (["--quick"] if args.quick else []), env=env, text=True,
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


def derived_rows(rows):
    """A large put as a share of memcpy in the same run; what the journal costs a task; Rust beside C."""
    value = {(r["language"], r["name"]): r["value"] for r in rows if "system" not in r}
    out = []
    for language in ("c", "python"):
        put, copy = value.get((language, "put_large")), value.get((language, "memcpy_large"))
        if put and copy:
            out.append({"name": "put_large_share", "language": language, "value": put / copy, "unit": "",
                        "deviation": 0.0})
    java_rate, c_rate = value.get(("java", "tasks_batch_1000")), value.get(("c", "tasks_batch_1000"))
    if java_rate and c_rate:
        out.append({"name": "tasks_batch_1000_per_c", "language": "java", "value": java_rate / c_rate, "unit": "",
                    "deviation": 0.0})
    for name, form in [("tasks_batch_1000", "per"), ("actor_calls_batch_1000", "per"), ("task_latency_p50", "over"),
                       ("actor_latency_p50", "over")]:
        ours, c = value.get(("rust", name)), value.get(("c", name))
        if ours and c:
            out.append({"name": f"{name}_{form}_c", "language": "rust", "value": ours / c, "unit": "", "deviation": 0.0})
    on, off = value.get(("c", "tasks_batch_1000")), value.get(("c", "tasks_batch_1000_unjournaled"))
    if on and off:
        out.append({"name": "lineage_cost", "language": "c", "value": 1e9 / on - 1e9 / off, "unit": "ns",
                    "deviation": 0.0})
    return out


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

def shown(value, unit):
    unit = "/s" if unit == "1/s" else unit
    if unit.endswith("/s") and value >= 1000:
        return f"{value / 1e6:.2f} M{unit}" if value >= 1e6 else f"{value / 1e3:.1f} K{unit}"
    return f"{value:.3g} {unit}" if abs(value) < 1000 else f"{value:.0f} {unit}"


def better(row, other):
    """How many times better than the other system's row."""
    if not row["value"] or not other["value"]:
        return 0.0
    more = row["value"] / other["value"]
    return more if row["unit"].endswith("/s") or row["unit"] == "1/s" else 1 / more


def table(rows):
    """Lines of (name, language, value, deviation, target, ratios by peer)."""
    own = [r for r in rows if "system" not in r]
    lines = []
    for row in own:
        target = TARGETS.get((row["language"], row["name"]))
        note = ""
        if target:
            met = row["value"] >= target[0] if target[1] else row["value"] <= target[0]
            note = ("≥ " if target[1] else "≤ ") + shown(target[0], row["unit"])
            note += "" if met else "  missed"
        ratios = {r["system"]: (r, better(row, r)) for r in rows
                  if r.get("system") and r["name"] == row["name"] and r["language"] == row["language"]}
        deviation = f"{100 * row['deviation'] / row['value']:.0f} %" if row["value"] else "-"
        lines.append((row["name"], row["language"], shown(row["value"], row["unit"]), deviation, note, ratios))
    return lines


def print_table(rows):
    say(f"{'name':<36} {'lang':<7} {'value':>16} {'± ':>6} {'target':>22}  against peers")
    for name, language, value, deviation, note, ratios in table(rows):
        peers = ", ".join(f"{peer} {shown(r['value'], r['unit'])} ({ratio:.1f} x)"
                          for peer, (r, ratio) in ratios.items())
        say(f"{name:<36} {language:<7} {value:>16} {deviation:>6} {note:>22}  {peers}")


def describe_machine():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo")
                  if line.startswith("model name")), platform.machine())
    commit = (output(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]) or "").strip()
    return {"cpu": model, "cpus": len(os.sched_getaffinity(0)), "kernel": platform.release(),
            "commit": commit, "date": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0]}


def stages(args):
    """What is to be measured, each a function that gives rows."""
    out = []
    if args.only in (None, "c"):
        out.append(c_rows)
    if args.only in (None, "cpp"):
        out.append(cpp_rows)
    if args.only in (None, "java"):
        out.append(java_rows)
    if args.only in (None, "rust"):
        out.append(rust_rows)
    if args.only in (None, "python"):
        build.install_package()
        whole = args.report and not args.quick and not args.filter
        out += [cold_rows] if args.filter in "init_to_first_result_cold" else []
        out += [python_rows] if args.filter not in ("main_job", "wheel_size") else []
        out += [evolve_rows] if args.filter == "main_job" or whole else []
        out += [wheel_rows] if args.filter == "wheel_size" or whole else []
    return out


def do_bench(args):
    if args.report_from:
        bench_report.write(json.loads(open(args.report_from).read()))
        return
    build.build("release")
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
    rows += derived_rows(rows)
    if not rows:
        raise Failure(f"no row's name holds '{args.filter}'")
    print_table(rows)
    machine["rounds"] = "short rounds (--quick)" if args.quick else "whole rounds"
    result = {"machine": machine, "rows": rows}
    if args.json:
        with open(args.json, "w") as out:
            json.dump(result, out, indent=1)
            out.write("\n")
        say(f"written to {args.json}")
    if args.report:
        bench_report.write(result)
    return 1 if failed else 0
