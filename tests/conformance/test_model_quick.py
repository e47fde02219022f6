"""The tester of random programs: that it can see what it is there to see, and a few programs."""

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bindings" / "conformance" / "tester"))

import generate  # noqa: E402
import program as programs  # noqa: E402
import run  # noqa: E402
import session  # noqa: E402
import shrink  # noqa: E402
from model import Driver, GaveUp, Mismatch, Model  # noqa: E402

SETTINGS = {"cpus": 2, "faults": True, "fork": 1.0, "huge": 40 << 20}


def judge(text, answers):
    """What the model says of these answers, one list of lines per instruction."""
    lines = {str(i): [a.split() for a in some] for i, some in enumerate(answers)}
    Driver(Model({"CPU": 2.0}), lambda path: lines.get(path, [])).run(programs.parse(text))


def test_a_program_is_its_seed_and_its_text():
    for seed in range(200):
        one = generate.program("p", seed, SETTINGS)
        assert one == generate.program("p", seed, SETTINGS)
        text = programs.text(one)
        assert programs.text(programs.parse(text)) == text


@pytest.mark.parametrize("text, answers", [
    ("put r1 5:8;get r1", [["ok"], ["v 5 8 0"]]),
    ("task L r1 [ret 0 5:8];get r1", [["ok"], ["v 6 8 0"]]),
    ("task L r1 [fail];get r1", [["ok"], ["e TASK_FAILED # on purpose"]]),
    ("task L r1 [ret 0 5:8];cancel r1 -;get r1", [["ok"], ["ok"], ["e CANCELLED"]]),
    ("task L r1 [ret 0 5:8];cancel r1 -;get r1", [["ok"], ["ok"], ["v 6 8 0"]]),
    ("actor A a1 [add 3];call L a1 r1 [add 4;rets 0];get r1", [["ok"], ["ok"], ["v 7 0 0"]]),
    ("task L r1,r2 roe=1 [ret 0 5:8 a;fail 1;ret 1 5:8 a];get r1;get r2",
     [["ok"], [f"v {programs.mix(6, 1001)} 8 0"], [f"v {programs.mix(6, 1001)} 8 0"]]),
    ("get r1;put r1 5:8", [["empty"], ["ok"]]),
    ("actor A a1 [];callstream L a1 s1 [yield 5:8];next s1 r1 -1;get r1;kill a1 0;next s1 r2 -1;get r2",
     [["ok"], ["ok"], ["ok"], ["v 6 8 0"], ["ok"], ["ok"], ["e ACTOR_DIED"]]),
])
def test_what_is_right_passes(text, answers):
    judge(text, answers)


def test_a_group_may_have_got_the_room_of_an_actor_that_died():
    text = "actor A a1 res=CPU:1 [];FAULT;group g1 0 CPU:2;task L r1 [ret 0 5:8];get r1"
    with pytest.raises(GaveUp):
        judge(text.replace("FAULT", "fault kill 0"), [["ok"]] * 4 + [["t"]])
    with pytest.raises(Mismatch):
        judge(text.replace("FAULT", "fault stop 0"), [["ok"]] * 4 + [["t"]])


@pytest.mark.parametrize("driver", ["c", "cpp", "python"])
def test_a_program_that_gave_up_leaves_no_group(driver):
    settings = run.Settings(0, False, driver)
    settings.cpus = 2
    group = run.Group(settings, bound=1.0)
    try:
        group.run(programs.parse("group g1 0 CPU:2;gwait g1 20000;task L1 r1 [ret 0 5:8];get r1;gremove g1"))
        assert group.gave_up == 1
        group.run(programs.parse("task L2 r1 [ret 0 5:8];get r1"))
        assert group.gave_up == 1
        group.finish()
    finally:
        group.close()


def test_a_constructor_that_fails_starts_again_when_its_process_was_killed_before():
    text = "FAULT;actor A a1 restarts=1 [fail];call L a1 r1 [ret 0 5:8];get r1"
    for fault, code in [("kill", "RESTARTING"), ("kill", "DIED"), ("stop", "DIED")]:
        judge(text.replace("FAULT", f"fault {fault} 0"), [["ok"]] * 3 + [[f"e ACTOR_{code}"]])
    text += ";fault kill 0;call L a1 r2 [ret 0 5:8];get r2"
    judge(text.replace("FAULT;", "kvdel K any;"), [["e NOT_FOUND"], ["ok"], ["ok"], ["e ACTOR_DIED"]] + [["ok"]] * 2
          + [["e ACTOR_DIED"]])
    for again in "", "again=1 ":
        wrong = text.replace("FAULT", "kvdel K any").replace("restarts=1", again + "restarts=1")
        with pytest.raises(Mismatch):
            judge(wrong, [["e NOT_FOUND"], ["ok"], ["ok"], ["e ACTOR_DIED"], ["ok"], ["ok"], ["e ACTOR_RESTARTING"]])
    with pytest.raises(Mismatch):
        judge("actor A a1 [fail];fault kill 0;call L a1 r1 [ret 0 5:8];get r1", [["ok"]] * 3 + [["e ACTOR_RESTARTING"]])


@pytest.mark.parametrize("restarts, kills, died", [
    (1, "kill a1 1;kill a1 1", True), (1, "fault kill 0;kill a1 1", True), (2, "kill a1 1;kill a1 1", False),
    (1, "kill a1 1", False), (-1, "kill a1 1;kill a1 1", False)])
def test_a_call_is_lost_for_good_when_the_kills_are_more_than_the_restarts(restarts, kills, died):
    text = f"actor A a1 restarts={restarts} [];call L a1 r1 [ret 0 5:8];{kills};told r1"
    begins = [["ok"]] * (2 + len(kills.split(";")))
    for code in ["OK", "ACTOR_RESTARTING"] + ["ACTOR_DIED"] * died:
        judge(text, begins + [[f"told {code}"]])
    if not died:
        with pytest.raises(Mismatch):
            judge(text, begins + [["told ACTOR_DIED"]])


def test_a_call_that_crashes_after_a_kill_has_used_two_restarts():
    text = "actor A a1 restarts=1 [];call L a1 r1 [crash];kill a1 1;get r1"
    for code in "RESTARTING", "DIED":
        judge(text, [["ok"]] * 3 + [[f"e ACTOR_{code}"]])
    with pytest.raises(Mismatch):
        judge(text.replace("kill a1 1;", ""), [["ok"]] * 2 + [["e ACTOR_DIED"]])


def beside(inner, answers, rest):
    """A thread with these answers, and what the driver does meanwhile."""
    lines = {f"0.{i}": [a.split() for a in some] for i, some in enumerate(answers)}
    lines |= {str(i): [["ok"]] for i in range(4)}
    Driver(Model({"CPU": 2.0}), lambda path: lines.get(path, [])).run(programs.parse(f"spawn 0 [{inner}];{rest}"))


def test_a_thread_may_see_the_death_of_the_node_before_the_instruction_after_it():
    inner, right = "task L r1 [ret 0 5:8];get r1;told r1", [["ok"], ["v 6 8 0"], ["told OK"]]
    died = [["ok"], ["e NODE_DIED"], ["told NODE_DIED"]]
    for rest in "fault node 0;join 0", "fault node 0", "join 0;fault node 0":
        beside(inner, right, rest)
    for rest in "fault node 0;join 0", "put r9 5:8;fault node 0;join 0":
        beside(inner, died, rest)
        beside(inner, [["e NODE_DIED"], ["empty"], ["empty"]], rest)
        for wrong in [["ok"], ["v 7 8 0"], ["told OK"]], [["ok"], ["e NODE_DIED"], ["t"]]:
            with pytest.raises(Mismatch):
                beside(inner, wrong, rest)
    stream = "stream L s1 [];next s1 r1 -1;get r1"
    beside(stream, [["ok"], ["ok"], ["e NODE_DIED"]], "fault node 0;join 0")
    with pytest.raises(Mismatch):
        beside(stream, [["ok"], ["ok"], ["v 5 8 0"]], "fault node 0;join 0")
    for rest in "join 0;fault node 0", "fault kill 0;join 0":
        with pytest.raises(Mismatch):
            beside(inner, died, rest)


def test_what_was_put_is_there_after_the_death_of_the_node():
    text = "put r1 5:8;put r2 5:9000;put r3 5:8:r1;elem r3 0 r4;copy r5 r1;fault node 0;put r6 5:8;get "
    begins = [["ok"]] * 6 + [["e NODE_DIED"]]
    for slot in "r2", "r3", "r4", "r6", "r9":
        judge(text + slot, begins + [["e NODE_DIED"]])
    put = text.replace("elem r3 0 r4", "sleep 0")
    for slot in "r1", "r5":
        judge(put + slot, begins + [["v 5 8 0"]])
        for wrong in "e NODE_DIED", "v 6 8 0":
            with pytest.raises(Mismatch):
                judge(put + slot, begins + [[wrong]])
    judge(put.replace("put r6", "put r1") + "r1", begins + [["empty"]])
    inner = "put r1 5:8;task L r2 [];get r1"
    beside(inner, [["ok"], ["e NODE_DIED"], ["v 5 8 0"]], "fault node 0;join 0")
    with pytest.raises(Mismatch):
        beside(inner, [["ok"], ["e NODE_DIED"], ["e NODE_DIED"]], "fault node 0;join 0")


def test_a_generator_of_too_many_possibilities_may_end():
    tasks = ";".join(f"task L{i} r{i} [ret 0 5:8];cancel r{i} -" for i in range(1, 8))
    text = tasks + ";stream L s1 " + " ".join(f"r{i}" for i in range(1, 8)) + " [];sdone s1 r9;next s1 r8 -1"
    for last in ["end"], ["ok"]:
        judge(text, [["ok"]] * 16 + [last])
    for last in ["nil"], ["e CANCELLED"]:
        judge(text.replace("next s1 r8 -1", "get r9"), [["ok"]] * 16 + [last])


def test_a_cancelled_call_says_nothing_of_its_actor():
    text = "actor A a1 restarts=1 [];kill a1 1;call L1 a1 r1 [ret 0 5:8];cancel r1 -;get r1;" \
           "call L2 a1 r2 [ret 0 5:8];call L3 a1 r3 [ret 0 5:8];get r3;get r2"
    begins = [["ok"], ["ok"], ["ok"], ["ok"], ["e CANCELLED"], ["ok"], ["ok"], ["v 6 8 0"]]
    judge(text, begins + [["e ACTOR_RESTARTING"]])
    judge(text, begins + [["v 6 8 0"]])
    with pytest.raises(Mismatch):
        judge(text.replace("cancel r1 -", "get r1"), begins[:3] + [["v 6 8 0"]] * 2 + begins[5:] + [["e ACTOR_RESTARTING"]])


@pytest.mark.parametrize("text, answers", [
    ("put r1 5:8;get r1", [["ok"], ["v 6 8 0"]]),
    ("put r1 5:8;get r1", [["ok"], ["damaged 5 8 24"]]),
    ("task L r1 [ret 0 5:8];get r1", [["ok"], ["t"]]),
    ("task L r1 [ret 0 5:8];get r1", [["ok"], ["e WORKER_CRASHED"]]),
    ("task L r1 [ret 0 5:8];cancel r1 -;get r1;get r1", [["ok"], ["ok"], ["e CANCELLED"], ["v 6 8 0"]]),
    ("task L r1,r2 roe=1 [ret 0 5:8 a;fail 1;ret 1 5:8 a];get r1;get r2",
     [["ok"], [f"v {programs.mix(6, 1000)} 8 0"], [f"v {programs.mix(6, 1001)} 8 0"]]),
    ("actor A a1 [add 3];call L a1 r1 [add 4;rets 0];call L a1 r2 [rets 0];get r1;get r2",
     [["ok"], ["ok"], ["ok"], ["v 7 0 0"], ["v 3 0 0"]]),
    ("put r1 5:8;wait 1 -1 r1", [["ok"], ["w 0 0"]]),
])
def test_what_is_wrong_is_seen(text, answers):
    with pytest.raises(Mismatch):
        judge(text, answers)


def test_a_failing_program_becomes_small():
    one = generate.program("p", 3, SETTINGS)
    one.insert(len(one) // 2, ["task", "L", "r1", "retries=2", [["sleep", "1"], ["exit"], ["ret", "0", "1:8"]]])

    def fails(candidate):
        return any(i[0] == "exit" for i in programs.instructions(candidate))

    assert shrink.shrink(one, fails, lambda: True) == [["task", "L", "r1", [["exit"]]]]


class Unquiet(session.Session):
    """A session that is not quiet before `seconds` are over; `goes_on`: because something goes on."""

    def __init__(self, seconds, goes_on):
        self.end, self.goes_on = time.monotonic() + seconds, goes_on

    def unquiet(self, leases):
        return "references are left" if time.monotonic() < self.end else ""

    def under_way(self):
        return time.monotonic() if self.goes_on else 0

    def still(self):
        return ""


def test_what_takes_long_is_waited_for_and_what_hangs_is_not():
    assert Unquiet(2.5, True).settle(seconds=0.3) == ""
    assert "references are left" in Unquiet(1000, False).settle(seconds=0.3)
    assert "references are left" in Unquiet(1000, True).settle(seconds=0.3, most=2)


@pytest.mark.parametrize("driver", ["c", "cpp"])
def test_a_few_programs(driver):
    settings = run.Settings(0, False, driver)
    text = "put r1 5:200000;task L1 r2 r1 [arg 0;put r1 6:9000;ret 0 1:20000:r1];elem r2 0 r3;get r3;get r2;" \
           "actor L2 a1 [add 5];call L3 a1 r4 v1:8:r1 [add 2;rets 0];get r4;stream L4 s1 [yield 1:8;yield 2:8];" \
           "next s1 r5 -1;get r5;next s1 r5 -1;next s1 r5 -1;task L5 r2 r60 [];get r2;call L6 a1 r4 v1:8:r60 [];get r4"
    failure = run.run_some([(1, programs.parse(text))], settings)
    assert failure is None, failure.text
