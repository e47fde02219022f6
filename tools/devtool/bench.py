"""./dev bench: runs the measurements of every language and prints one table beside the targets.

Each bench program writes rows {name, language, value, unit, deviation} as JSON. A target is what the
project promises for a two-core machine; it is shown, never asserted.
"""
import json
import os
import platform

import build
from shell import BUILD, ROOT, Failure, forget, output, say, start, status

# (language, name) -> (target, True = more is better)
TARGETS = {
    ("c", "tasks_batch_1000"): (500e3, True),
    ("c", "task_latency_p50"): (10.0, False),
    ("c", "put_get_small"): (1e6, True),
    ("c", "init_to_first_result"): (0.2, False),
    ("c", "idle_rayd_rss"): (25.0, False),
    ("c", "idle_rayd_cpu"): (0.0, False),
    ("python", "tasks_batch_1000"): (100e3, True),
    ("python", "tasks_one_at_a_time"): (20e3, True),
    ("python", "init_to_first_result"): (0.6, False),
}


def program(args, language, command):
    """Runs one bench program; returns its rows."""
    out = BUILD / f"bench-{language}.json"
    out.unlink(missing_ok=True)
    command = command + ["--json", str(out)]
    if args.filter:
        command += ["--filter", args.filter]
    if args.quick:
        command += ["--quick"]
    status(f"measuring {language} ...")
    process = start(command, env=build.environment())
    code = process.wait()
    forget(process)
    if code != 0 or not out.exists():
        raise Failure(f"the {language} measurements ended with status {code}")
    return json.loads(out.read_text())


def shown(value, unit):
    if unit.endswith("/s") and value >= 1000:
        return f"{value / 1e6:.2f} M{unit}" if value >= 1e6 else f"{value / 1e3:.1f} K{unit}"
    return f"{value:.3g} {unit}" if abs(value) < 1000 else f"{value:.0f} {unit}"


def print_table(rows):
    say(f"{'name':<34} {'lang':<7} {'value':>18} {'± ':>8} {'target':>16}")
    for row in rows:
        target = TARGETS.get((row["language"], row["name"]))
        note = ""
        if target:
            met = row["value"] >= target[0] if target[1] else row["value"] <= target[0]
            note = ("≥ " if target[1] else "≤ ") + shown(target[0], row["unit"])
            note += "" if met else "  missed"
        deviation = f"{100 * row['deviation'] / row['value']:.0f} %" if row["value"] else "-"
        say(f"{row['name']:<34} {row['language']:<7} {shown(row['value'], row['unit']):>18}"
            f" {deviation:>8} {note:>16}")


def describe_machine():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo")
                  if line.startswith("model name")), platform.machine())
    commit = (output(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]) or "").strip()
    return {"cpu": model, "cpus": len(os.sched_getaffinity(0)), "kernel": platform.release(),
            "commit": commit}


def do_bench(args):
    build.build("release")
    rows = []
    if args.only != "python":
        rows += program(args, "c", [str(build.folder("release") / "bin" / "bench_c")])
    script = ROOT / "bench" / "python" / "bench.py"
    if args.only != "c" and script.exists():
        build.install_package()
        rows += program(args, "python", [str(build.venv_python()), str(script)])
    if not rows:
        raise Failure(f"no row's name holds '{args.filter}'")
    print_table(rows)
    if args.json:
        with open(args.json, "w") as out:
            json.dump({"machine": describe_machine(), "rows": rows}, out, indent=1)
            out.write("\n")
        say(f"written to {args.json}")
