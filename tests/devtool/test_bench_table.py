"""What ./dev bench makes of measured rows: targets as factors of yardsticks of the same run, rows that come from others, what
is measured for which arguments. Nothing is measured here; the rows are made up."""
import argparse
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "devtool"))
import bench  # noqa: E402
import bench_report  # noqa: E402
import bench_targets  # noqa: E402

OPENMP = "limit_openmp_batch_1000"


def row(name, value, unit="1/s", language="c", **more):
    return {"name": name, "language": language, "value": value, "unit": unit, "deviation": 0.0, **more}


def notes(*rows):
    """Of the first of these rows."""
    return bench_targets.notes(rows[0], bench_targets.own_rows(rows))


def test_a_ratio_is_of_the_same_run():
    assert notes(row("tasks_batch_1000", 1.68e6, "tasks/s"), row(OPENMP, 3e6, "tasks/s")) == ["≥ 0.8 × OpenMP: 0.56  missed"]
    assert notes(row("tasks_batch_1000", 2.4e6, "tasks/s"), row(OPENMP, 3e6, "tasks/s")) == ["≥ 0.8 × OpenMP: 0.8"]


def test_at_most_is_the_other_way_round():
    limit = row("limit_openmp_cpu_per_task", 0.5, "us")
    assert notes(row("cpu_per_task", 1.0, "us"), limit) == ["≤ 2 × OpenMP's: 2"]
    assert notes(row("cpu_per_task", 1.01, "us"), limit) == ["≤ 2 × OpenMP's: 2.02  missed"]


def test_each_target_of_a_row_is_judged():
    found = notes(row("tasks_batch_1000", 2e6, language="python"),
                  row("limit_ring_python_batch_1000", 10e6, language="python"),
                  row("limit_pool_batch_1000", 40e3, language="python"))
    assert found == ["≥ 0.5 × ring + Python call: 0.2  missed", "≥ 40 × Pool: 50"]


def test_what_cannot_be_compared_is_neither_met_nor_missed():
    unmeasured = ["≥ 0.8 × OpenMP: not measured"]
    assert notes(row("tasks_batch_1000", 1e6)) == unmeasured
    assert notes(row("tasks_batch_1000", 1e6), row(OPENMP, 0.0)) == unmeasured
    assert notes(row("task_latency_p50", 0.0, "us"), row("limit_ring_latency_p50", 0.1, "us")) == [
        "≤ 16 × bare ring: not measured"]
    # A peer's row of that name, or another language's, is no yardstick.
    assert notes(row("tasks_batch_1000", 1e6), row(OPENMP, 1e6, system="ray"), row(OPENMP, 1e6, language="python")) == unmeasured


def test_units_are_taken_into_account():
    assert notes(row("task_latency_p50", 800, "ns"), row("limit_ring_latency_p50", 0.1, "us")) == ["≤ 16 × bare ring: 8"]
    with pytest.raises(ValueError, match="limit_ring_latency_p50"):
        notes(row("task_latency_p50", 1e6, "1/s"), row("limit_ring_latency_p50", 0.1, "us"))
    with pytest.raises(ValueError, match="memcpy_large"):
        notes(row("put_large", 1, "GB/s"), row("memcpy_large", 1, "1/s"))


def test_absolute_targets():
    assert notes(row("idle_rayd_rss", 25.0, "MB")) == ["≤ 25 MB"]
    assert notes(row("idle_rayd_rss", 25.1, "MB")) == ["≤ 25 MB  missed"]
    assert notes(row("get_small", 5e6, "/s")) == ["≥ 10.00 M/s  missed"]
    assert notes(row("nobody_promised_this", 1)) == []


def test_a_shorter_run_is_not_held_to_the_promise_for_a_longer_one():
    batches = row("tasks_batch_1000", 2e6, "tasks/s")
    assert notes(row("sustained_300s_last_60s", 1e6, "tasks/s"), batches) == ["≥ 0.8 × batches: 0.5  missed"]
    assert notes(row("sustained_15s_last_3s", 1e6, "tasks/s"), batches) == []


@pytest.mark.parametrize("language", ["c", "python"])
@pytest.mark.parametrize("queue", [10_000, 100_000, 1_000_000])
def test_cost_is_not_to_grow_with_the_queue(language, queue):
    longer = row(f"growth_queue_{queue}", 625, "ns", language)
    assert notes(longer, row("growth_queue_1000", 500, "ns", language)) == ["≤ 1.2 × batches of 1000: 1.25  missed"]
    assert notes(row("growth_queue_1000", 500, "ns", language)) == []


def test_every_yardstick_is_a_row_and_no_target_of_its_own():
    for key, targets in bench_targets.TARGETS.items():
        assert targets and all(t.of != key for t in targets)
    programs = "".join(p.read_text() for folder in ("c", "python") for p in (bench.ROOT / "bench" / folder).iterdir()
                       if p.is_file())
    for (_, name) in {t.of for targets in bench_targets.TARGETS.values() for t in targets if t.of}:
        assert f'"{name}"' in programs or name.startswith("growth_queue_"), f"nothing measures {name}"
    assert {key for _, key in bench_targets.GOALS} <= set(bench_targets.TARGETS)


def test_yardsticks_of_a_filter():
    wanted = bench_targets.wanted_yardsticks(["python"], "tasks_batch_1000")
    assert wanted == {bench_targets.PYTHON_RING, bench_targets.POOL}
    assert bench_targets.OPENMP in bench_targets.wanted_yardsticks(["c"], "")
    assert bench_targets.wanted_yardsticks(["c"], "get_small") == set()


def derived(*rows):
    return {(r["language"], r["name"]): r["value"] for r in bench_targets.derived_rows(list(rows))}


def test_processor_time_of_all_processes_or_none():
    parts = [row(f"cpu_per_task_{kind}", value, "us") for kind, value in
             (("driver", 0.5), ("worker", 0.25), ("daemon", 0.125), ("shards", 0.0))]
    assert derived(*parts) == {("c", "cpu_per_task"): 0.875}
    assert derived(*parts[:3]) == {}


def test_a_million_queued_beside_batches():
    assert derived(row("queued_1M", 0.6, "s"), row("tasks_batch_1000", 2e6)) == {("c", "queued_1M_over_batches"): 1.2}
    assert derived(row("queued_1M", 0.6, "s"), row("tasks_batch_1000", 2e6, language="python")) == {}


def test_lineage_is_what_differs_within_a_turn():
    off, cost = bench_targets.lineage_rows([(1e6, 2e6), (2e6, 4e6), (2.5e6, 5e6)])
    assert (off["name"], off["value"]) == ("tasks_batch_1000_unjournaled", 4e6)
    assert (cost["name"], cost["unit"], round(cost["value"])) == ("lineage_cost", "ns", 250)


def test_a_busy_machine_is_told():
    assert bench.is_busy({"load": 1.5, "cpus": 2}) and not bench.is_busy({"load": 0.8, "cpus": 2})


def stages(**given):
    args = {"only": None, "filter": "", "quick": False, "report": False, "peer": None, "growth": False, **given}
    return [stage.__name__ for stage in bench.stages(argparse.Namespace(**args))]


def test_ray_as_a_peer_includes_the_main_job():
    assert "evolve_rows" in stages(peer=["ray"])
    assert "evolve_rows" in stages(peer=["multiprocessing", "ray"], quick=True)
    assert "evolve_rows" not in stages()
    assert "evolve_rows" not in stages(peer=["multiprocessing"])
    assert "evolve_rows" not in stages(peer=["ray"], filter="tasks_batch")
    assert "evolve_rows" not in stages(peer=["ray"], only="c")
    assert stages(filter="main_job", only="python")[-1] == "evolve_rows"


def started(monkeypatch, stage, **given):
    """The programs that a stage starts: (label, command, environment)."""
    begun = []

    def program(_args, label, command, env=None):
        begun.append((label, command, env))
        return [row("tasks_batch_1000", 1e6, "tasks/s")]

    monkeypatch.setattr(bench, "program", program)
    args = {"only": None, "filter": "", "quick": False, "growth": False, **given}
    list(stage(argparse.Namespace(**args)))
    return begun


def test_limits_are_measured_with_what_is_compared_with_them(monkeypatch):
    def labels(**given):
        return [label for label, _, _ in started(monkeypatch, bench.limit_rows, **given)]

    assert labels() == ["limits", "limits-python"]
    assert labels(only="c") == ["limits"]
    assert labels(only="python", filter="tasks_batch_1000") == ["limits-python"]
    assert labels(only="python", filter="sleeping") == ["limits"]  # bare wake-ups
    assert labels(filter="get_small") == []
    assert labels(filter="limit_pool", only="python") == ["limits-python"]


def test_a_driver_that_never_pauses_has_the_limits_of_every_program(monkeypatch):
    monkeypatch.setenv("LIBRAY_TASK_ROWS", "0")
    ((_, command, env),) = started(monkeypatch, bench.sustained_rows)
    assert command[command.index("--sustained") + 1] == "300"
    assert "LIBRAY_TASK_ROWS" not in env
    ((_, command, _),) = started(monkeypatch, bench.sustained_rows, quick=True)
    assert command[command.index("--sustained") + 1] == "15"
    assert started(monkeypatch, bench.sustained_rows, quick=True, filter="sustained_300s") == []
    assert started(monkeypatch, bench.sustained_rows, filter="tasks_batch_1000") == []
    assert len(started(monkeypatch, bench.sustained_rows, filter="sustained_300s_disk")) == 1


def test_both_tables_show_each_target():
    rows = [row("tasks_batch_1000", 2e6, language="python"), row("limit_pool_batch_1000", 40e3, language="python"),
            row("tasks_batch_1000", 1e6, language="python", system="ray")]
    ((_, _, _, _, found, ratios), _) = bench.table(rows)
    assert found[1] == "≥ 40 × Pool: 50"
    assert ratios["ray"][1] == 2.0
    machine = {"cpu": "a", "cpus": 2, "kernel": "k", "commit": "c"}
    text = bench_report.markdown({"rows": rows, "machine": machine})
    assert "| ≥ 0.5 × ring + Python call: not measured; ≥ 40 × Pool: 50 | 1.00 M/s | 2× |" in text
    summary = bench_report.summary({"rows": rows, "machine": machine})
    assert "| tasks in batches, from Python | 2.00 M/s | ≥ 40 × Pool: 50 |" in summary
