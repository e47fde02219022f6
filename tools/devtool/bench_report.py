"""./dev bench --report: the tables in docs/performance.md and README.md (between two marks), docs/bench.json,
docs/bench.png (bars, logarithmic, libray beside its peers) and docs/growth-*.png from one result of
bench.py. `--report-from FILE` does it again from a file that --json wrote."""
import json
import subprocess

import bench
import bench_targets
import build
from shell import ROOT, Failure, say

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"

# The rows of the README: what it is called there, the row's name in C and in Python.
SUMMARY = [
    ("tasks, batches of 1000", "tasks_batch_1000", "tasks_batch_1000"),
    ("tasks, one at a time", None, "tasks_one_at_a_time"),
    ("actor calls, batches of 1000", "actor_calls_batch_1000", "actor_calls_batch_1000"),
    ("actor calls, one at a time", None, "actor_calls_one_at_a_time"),
    ("calls of an asyncio actor, batches of 1000", None, "async_actor_calls_batch_1000"),
    ("small put", None, "put_small"),
    ("small get", "get_small", "get_small"),
    ("get of an object with 10,000 references", None, "get_object_with_10k_refs"),
    ("wait over 1000 references, one by one", None, "wait_1k_refs"),
    ("start to first result", "init_to_first_result", "init_to_first_result"),
    ("wheel", None, "wheel_size"),
]

# Run by the environment's interpreter, which has matplotlib; argument: the result as JSON.
CHART = r"""
import json, sys
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt

result = json.load(open(sys.argv[1]))
docs = sys.argv[2]
rows = result["rows"]
machine = result["machine"]
caption = f"{machine['cpu']}, {machine['cpus']} processors, {machine.get('date', '')}"
python = [r for r in rows if r["language"] == "python" and r["unit"] == "1/s"]
own = [r for r in python if "system" not in r]
systems = sorted({r["system"] for r in python if "system" in r})
names = [r["name"] for r in own if not systems or any(
    p["name"] == r["name"] for p in python if "system" in p)]
LINES = {"growth_rings": "1024 calls a batch, in all", "growth_rings_deep": "512 calls a batch to each",
         "growth_rings_bare": "1024 bare records a batch, no runtime", "growth_queue": "time",
         "growth_queue_driver": "processor time, driver", "growth_queue_shards": "processor time, shards"}
if names:
    width = 0.8 / (1 + len(systems))
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.34 * len(names)))
    for i, system in enumerate(["libray"] + systems):
        value = {r["name"]: r["value"] for r in python if r.get("system", "libray") == system}
        at = [k + i * width for k in range(len(names))]
        axes.barh(at, [value.get(n, 0) for n in names], width, label=system)
    axes.set_yticks([k + 0.4 - width / 2 for k in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("operations per second, from Python")
    axes.set_title(caption, fontsize=9)
    axes.legend()
    figure.tight_layout()
    figure.savefig(docs + "/bench.png", dpi=110)
for what, label in (("tasks", "tasks in all"), ("queue", "tasks queued at a time"), ("refs", "live references"),
                    ("rings", "workers")):
    lines = {}
    for r in rows:
        start, _, n = r["name"].rpartition("_")
        if start == f"growth_{what}" or start.startswith(f"growth_{what}_"):
            name = f"Python: {LINES[start]}" if r["language"] == "python" else LINES.get(start)
            lines.setdefault(name, []).append((int(n), r["value"]))
    if not lines:
        continue
    figure, axes = plt.subplots(figsize=(5, 3))
    for name, points in lines.items():
        axes.plot([x for x, _ in sorted(points)], [y for _, y in sorted(points)], "o-", label=name)
    if len(lines) > 1:
        axes.legend(fontsize=7)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(label)
    axes.set_ylabel("ns per task" + ("" if what == "queue" else ", from C"))
    axes.set_title(caption, fontsize=8)
    figure.tight_layout()
    figure.savefig(docs + f"/growth-{what}.png", dpi=110)
"""


def markdown(result):
    rows, machine = result["rows"], result["machine"]
    peers = sorted({r["system"] for r in rows if "system" in r})
    out = [f"{machine['cpu']}, {machine['cpus']} processors, Linux {machine['kernel']}, commit "
           f"{machine['commit']}, {machine.get('date', '')}; {machine.get('rounds', '')}; load before the run "
           f"{machine.get('load', 0):.1f}.", "",
           "| row | language | value | ± | target | " + "".join(f"{p} | ratio | " for p in peers),
           "|---|---|---|---|---|" + "---|---|" * len(peers)]
    for name, language, value, deviation, notes, ratios in bench.table(rows):
        if name.startswith("growth_"):
            continue
        cells = [name, language, value, deviation, "; ".join(notes)]
        for peer in peers:
            row, ratio = ratios.get(peer, (None, 0))
            cells += [bench.shown(row["value"], row["unit"]), f"{ratio:.3g}×"] if row else ["", ""]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)


def goals(rows):
    """The README's lines of the goals, those that were measured: each beside its yardstick of the same run."""
    own = bench_targets.own_rows(rows)
    out = []
    for label, key in bench_targets.GOALS:
        row = own.get(key)
        found = [n for n in bench_targets.notes(row, own) if "not measured" not in n] if row else []
        if found:
            out.append(f"| {label} | {bench.shown(row['value'], row['unit'])} | {'; '.join(found)} |")
    head = ["", "| beside yardsticks of the same run | | goal, and what was measured |", "|---|---|---|"]
    return head + out if out else []


def summary(result):
    """The README's tables: libray from C and from Python, each peer and the ratio; the goals."""
    rows, machine = result["rows"], result["machine"]
    value = {(r.get("system", "libray"), r["language"], r["name"]): r for r in rows}
    peers = sorted({r["system"] for r in rows if "system" in r})
    out = ["![operations per second, logarithmic](docs/bench.png)", "",
           "| | C | Python | " + "".join(f"{p} | | " for p in peers),
           "|---|---|---|" + "---|---|" * len(peers)]
    for label, c, python in SUMMARY:
        own = value.get(("libray", "python", python))
        if own is None:
            continue
        in_c = value.get(("libray", "c", c))
        cells = [label, bench.shown(in_c["value"], in_c["unit"]) if in_c else "",
                 bench.shown(own["value"], own["unit"])]
        for peer in peers:
            other = value.get((peer, "python", python))
            cells += [bench.shown(other["value"], other["unit"]), f"{bench.better(own, other):.3g}×"] if other \
                else ["", ""]
        out.append("| " + " | ".join(cells) + " |")
    out += goals(rows)
    out += ["", f"{machine['cpu']}, {machine['cpus']} processors, {machine.get('date', '')}, "
            f"{machine.get('rounds', '')}; ratios to other systems are "
            "of the Python column.", "`./dev bench --report` makes this table and the chart again."]
    return "\n".join(out)


def replace(path, text):
    """Puts the text between the marks of a file."""
    old = path.read_text()
    if BEGIN not in old or END not in old:
        raise Failure(f"{path} has no marks for the table")
    head, rest = old.split(BEGIN, 1)
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    path.write_text(head + BEGIN + "\n" + text + "\n" + END + rest.split(END, 1)[1])


def write(result):
    docs = ROOT / "docs"
    replace(docs / "performance.md", markdown(result))
    replace(ROOT / "README.md", summary(result))
    target = docs / "bench.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    build.install_requirements(ROOT / "samples" / "python" / "requirements.txt")
    done = subprocess.run([build.venv_python(), "-c", CHART, target, docs], capture_output=True, text=True,
                          check=False)
    if done.returncode:
        raise Failure(f"the chart could not be drawn: {done.stderr[-500:]}")
    say("README.md, docs/performance.md, docs/bench.json and docs/*.png are written")
