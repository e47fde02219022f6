"""What ./dev bench compares its rows with, and the rows that are computed from others.

Hosts differ threefold, so a goal is, where it can be, a factor of a *yardstick*: another row that the same run measured on
the same machine. Goals in absolute figures are of a two-core machine; they remain where nothing bare does the same thing.
Goals are shown, never asserted. Used by bench.py and bench_report.py; nothing here measures or prints.
"""
import statistics
from typing import NamedTuple, Optional, Tuple

Key = Tuple[str, str]  # (language, name) of a row

OPENMP: Key = ("c", "limit_openmp_batch_1000")
OPENMP_CPU: Key = ("c", "limit_openmp_cpu_per_task")
RING_LATENCY: Key = ("c", "limit_ring_latency_p50")
WAKE: Key = ("c", "limit_wake_round_trip_p50")
PYTHON_RING: Key = ("python", "limit_ring_python_batch_1000")
PYTHON_RING_LATENCY: Key = ("python", "limit_ring_python_latency_p50")
POOL: Key = ("python", "limit_pool_batch_1000")
POOL_ONE: Key = ("python", "limit_pool_one_at_a_time")

# How a yardstick is called in the table; others by their names.
LABELS = {
    OPENMP: "OpenMP",
    OPENMP_CPU: "OpenMP's",
    RING_LATENCY: "bare ring",
    WAKE: "bare wake-ups",
    PYTHON_RING: "ring + Python call",
    PYTHON_RING_LATENCY: "ring + Python call",
    POOL: "Pool",
    POOL_ONE: "Pool",
    **{(language, f"memcpy_{state}"): "memcpy" for language in ("c", "python") for state in ("large", "cold")},
    **{(language, "growth_queue_1000"): "batches of 1000" for language in ("c", "python")},
    ("c", "tasks_batch_1000"): "batches",
}


class Target(NamedTuple):
    bound: float  # in the row's unit, or a factor of the yardstick
    more: bool  # True: at least the bound; False: at most
    of: Optional[Key] = None  # the yardstick


def least(bound, of=None):
    return Target(bound, True, of)


def most(bound, of=None):
    return Target(bound, False, of)


# (language, name) -> targets
TARGETS = {
    ("c", "tasks_batch_1000"): [least(0.8, OPENMP)],
    ("c", "cpu_per_task"): [most(2, OPENMP_CPU)],
    ("c", "task_latency_p50"): [most(16, RING_LATENCY)],
    ("c", "task_latency_sleeping_p50"): [most(1.5, WAKE)],
    ("c", "actor_calls_batch_1000"): [least(0.8, OPENMP)],
    ("c", "actor_latency_p50"): [most(16, RING_LATENCY)],
    ("c", "put_get_small"): [least(4e6)],
    ("c", "get_small"): [least(10e6)],
    ("c", "put_large"): [least(0.95, ("c", "memcpy_large"))],
    ("c", "init_to_first_result"): [most(0.05)],
    ("c", "idle_rayd_rss"): [most(25.0)],
    ("c", "idle_worker_private"): [most(3.0)],
    ("c", "queued_1M_over_batches"): [most(1.2)],
    ("c", "sustained_300s_first_40s"): [least(0.8, ("c", "tasks_batch_1000"))],
    ("c", "sustained_300s_last_60s"): [least(0.8, ("c", "tasks_batch_1000"))],
    ("c", "sustained_300s_least_10s"): [least(0.8, ("c", "tasks_batch_1000"))],
    ("python", "tasks_batch_1000"): [least(0.5, PYTHON_RING), least(40, POOL)],
    ("python", "tasks_one_at_a_time"): [least(40, POOL_ONE)],
    ("python", "task_latency_p50"): [most(16, PYTHON_RING_LATENCY)],
    ("python", "task_latency_sleeping_p50"): [most(1.5, WAKE)],
    ("python", "actor_calls_batch_1000"): [least(0.5, PYTHON_RING)],
    ("python", "actor_calls_one_at_a_time"): [least(40, POOL_ONE)],
    ("python", "actor_latency_p50"): [most(16, PYTHON_RING_LATENCY)],
    ("python", "actor_latency_sleeping_p50"): [most(1.5, WAKE)],
    ("python", "async_actor_calls_batch_1000"): [least(200e3)],
    ("python", "async_actor_calls_one_at_a_time"): [least(60e3)],
    ("python", "put_small"): [least(1.5e6)],
    ("python", "get_small"): [least(3e6)],
    ("python", "put_large"): [least(0.95, ("python", "memcpy_large"))],
    ("python", "put_cold"): [least(0.95, ("python", "memcpy_cold"))],
    ("python", "get_object_with_10k_refs"): [least(500)],
    ("python", "wait_1k_refs"): [least(100)],
    ("python", "queued_1M_over_batches"): [most(1.2)],
    ("python", "object_args_10k"): [most(0.05)],
    ("python", "returns_3k"): [most(0.02)],
    ("python", "get_10k_objects"): [most(0.02)],
    ("python", "init_to_first_result"): [most(0.25)],
    ("python", "idle_worker_private"): [most(12.0)],
    ("python", "wheel_size"): [most(8.0)],
    ("java", "tasks_batch_1000_per_c"): [least(0.3)],
    ("java", "worker_start"): [most(0.4)],
    ("java", "idle_worker_rss"): [most(60.0)],
    ("rust", "tasks_batch_1000_per_c"): [least(0.7)],
    ("rust", "task_latency_p50_over_c"): [most(1.3)],
    ("rust", "worker_start"): [most(0.02)],
    ("cpp", "tasks_batch_1000_per_c"): [least(0.9)],
    ("cpp", "task_latency_p50_over_c"): [most(1.1)],
    ("cpp", "actor_calls_batch_1000_per_c"): [least(0.9)],
    ("cpp", "actor_latency_p50_over_c"): [most(1.1)],
}

# From batches of a thousand to batches of a million, whichever is looked at.
for _language in ("c", "python"):
    for _queue in (10_000, 100_000, 1_000_000):
        TARGETS[_language, f"growth_queue_{_queue}"] = [most(1.2, (_language, "growth_queue_1000"))]

# What the README says of the goals: in words, and the row.
GOALS = [
    ("tasks in batches, from C", ("c", "tasks_batch_1000")),
    ("processor time of a task, all processes", ("c", "cpu_per_task")),
    ("tasks in batches, from Python", ("python", "tasks_batch_1000")),
    ("large put, from C", ("c", "put_large")),
    ("large put, from Python", ("python", "put_large")),
    ("a driver that never pauses, its last minute", ("c", "sustained_300s_last_60s")),
    ("cost of a task, batches of a million, from C", ("c", "growth_queue_1000000")),
    ("the same from Python", ("python", "growth_queue_1000000")),
]

TIMES = {"ns": 1e-9, "us": 1e-6, "s": 1.0}


def shown(value, unit):
    unit = "/s" if unit == "1/s" else unit
    if unit.endswith("/s") and value >= 1000:
        return f"{value / 1e6:.2f} M{unit}" if value >= 1e6 else f"{value / 1e3:.1f} K{unit}"
    return f"{value:.3g} {unit}" if abs(value) < 1000 else f"{value:.0f} {unit}"


def own_rows(rows):
    """(language, name) -> row, without those of peers."""
    return {(r["language"], r["name"]): r for r in rows if "system" not in r}


# ---- a row beside its target -----------------------------------------------------------------------

def _comparable(row):
    """(kind, value): values of one kind can be divided by each other."""
    unit = row["unit"]
    if unit in TIMES:
        return "time", row["value"] * TIMES[unit]
    if unit.endswith("/s") and unit != "GB/s":
        return "rate", row["value"]  # of whatever is counted
    return unit, row["value"]


def ratio(row, yardstick):
    """The row as a multiple of the yardstick; None where there is no such number."""
    kind, value = _comparable(row)
    other_kind, other = _comparable(yardstick)
    if kind != other_kind:
        raise ValueError(f"{row['name']} is in {row['unit']}, its yardstick {yardstick['name']} in {yardstick['unit']}")
    return value / other if other > 0 and value > 0 else None


def judge(target, row, own):
    """(what was measured, in the bound's terms; whether the target is met); None twice: there is nothing to compare with."""
    if target.of is None:
        measured = row["value"]
    else:
        yardstick = own.get(target.of)
        measured = ratio(row, yardstick) if yardstick else None
    if measured is None:
        return None, None
    return measured, measured >= target.bound if target.more else measured <= target.bound


def goal_of(target, unit):
    sign = "≥" if target.more else "≤"
    if target.of is None:
        return f"{sign} {shown(target.bound, unit)}"
    return f"{sign} {target.bound:g} × {LABELS.get(target.of, target.of[1])}"


def notes(row, own):
    """One text for each target of a row: the bound, for ratios what was measured, and whether it was missed."""
    found = []
    for target in TARGETS.get((row["language"], row["name"]), []):
        measured, met = judge(target, row, own)
        text = goal_of(target, row["unit"])
        if measured is None:
            text += ": not measured"
        elif target.of is not None:
            text += f": {measured:.3g}"
        found.append(text + ("  missed" if met is False else ""))
    return found


def wanted_yardsticks(languages, text):
    """Those of the rows of these languages whose names hold the text."""
    return {target.of for (language, name), targets in TARGETS.items() for target in targets
            if target.of and language in languages and text in name}


# ---- rows from rows ----------------------------------------------------------------------------------

KINDS = ("driver", "worker", "daemon", "shards")


def _row(language, name, value, unit, deviation=0.0):
    return {"name": name, "language": language, "value": value, "unit": unit, "deviation": deviation}


def derived_rows(rows):
    """Processor time of all processes; a million queued beside batches of 1000; Java and Rust beside C. A row of which a part
    was not measured is left out."""
    value = {key: r["value"] for key, r in own_rows(rows).items()}
    out = []
    for language in ("c", "python"):
        parts = [value.get((language, f"cpu_per_task_{kind}")) for kind in KINDS]
        if None not in parts:
            out.append(_row(language, "cpu_per_task", sum(parts), "us"))
        queued, rate = value.get((language, "queued_1M")), value.get((language, "tasks_batch_1000"))
        if queued and rate:
            out.append(_row(language, "queued_1M_over_batches", queued * rate / 1e6, ""))
    for language, name, form in [("java", "tasks_batch_1000", "per"), ("rust", "tasks_batch_1000", "per"),
                                 ("rust", "actor_calls_batch_1000", "per"), ("rust", "task_latency_p50", "over"),
                                 ("rust", "actor_latency_p50", "over")]:
        ours, c = value.get((language, name)), value.get(("c", name))
        if ours and c:
            out.append(_row(language, f"{name}_{form}_c", ours / c, ""))
    return out


def lineage_rows(pairs):
    """From rates of C's batches, (with lineage, without) of each turn: nanoseconds that lineage adds to a task."""
    costs = [1e9 / with_it - 1e9 / without for with_it, without in pairs]
    without = [pair[1] for pair in pairs]
    return [_row("c", "tasks_batch_1000_unjournaled", statistics.median(without), "tasks/s", statistics.pstdev(without)),
            _row("c", "lineage_cost", statistics.median(costs), "ns", statistics.pstdev(costs))]
