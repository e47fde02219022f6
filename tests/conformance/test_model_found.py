"""Small programs of the conformance machine that once went wrong: each is run many times on one session, and leaves nothing.

libray-test: timeout 300
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bindings" / "conformance" / "tester"))

import program  # noqa: E402
import run  # noqa: E402

FOUND = {  # how often, on how many processors
    # A parent that is tried again submits its child again while the first one is under way.
    "two_makings_of_one_id": (10, 2, """
        task NAME.1 r1,r2 retries=1 roe=1
            [task NAME.2 r1 retries=0 [put r1 676:800;ret 0 788:8300:r1];fail 1;ret 0 628:2000:r1;ret 1 50:64:r1];
        get r2"""),
    # The node reads of a result while it buries the process that was to have it.
    "a_result_for_the_dying": (80, 2, """
        task NAME.1 r1 retries=3
            [task NAME.2 r1 retries=0 [put r1 574:0;ret 0 42:8:r1];get r1;crash 1;ret 0 385:0 a];
        get r1"""),
    # A worker is killed with the one whose tasks it ran, and what it gave back is read before what it was given.
    "what_the_killed_give_back": (100, 4, """
        task NAME.1 r1 retries=-1 res=CPU:0.5
            [sleep 1000;
             task NAME.2 r1 roe=1
                [sleep 1000;
                 task NAME.3 r1 retries=0 v939:0 [thread [put r1 798:8];thread [put r2 860:0];ret 0 525:8300:r1,r2];
                 ret 0 8:64:r1 a];
             get r1;crash 1;ret 0 215:2000];
        told r1"""),
    # A large value in place is an object that nobody but the task refers to.
    "a_large_argument": (3, 2, """
        task NAME.1 r1 v5:200000 [arg 0;ret 0 1:8];get r1;actor NAME.2 a1 v6:131200 [arg 0];
        call NAME.3 a1 r2 v9:131200 [arg 0;ret 0 1:8];get r2"""),
    # A task whose client ended before runs in that very process, which is to give the lease back: its child needs another.
    "a_child_of_a_lease_to_be_given_back": (2, 1, """
        task NAME.0 r1 [task NAME.1 r1 [ret 0 1:8];get r1;task NAME.2 r2 [ret 0 1:8];get r2;ret 0 1:8];get r1;sleep 2600000;
        task NAME.3 r1 [task NAME.4 r1 [sleep 100000;task NAME.5 r2 [ret 0 1:8];get r2;ret 0 2:8];ret 0 3:8];get r1;
        sleep 60000;task NAME.6 r2 [ret 0 4:8];get r2"""),
    # Drivers find each other's actors by their names.
    "a_detached_actor_of_another_driver": (3, 2, """
        driver die [actor NAME.1 a1 name=NAME.0 detached=1 [];call NAME.2 a1 r2 []];
        find NAME.0 a1;call NAME.3 a1 r1 [ret 0 7:8];get r1"""),
}


@pytest.mark.parametrize("times, cpus, text", FOUND.values(), ids=FOUND.keys())
def test_a_program_that_went_wrong(times, cpus, text):
    settings = run.Settings(1, False)
    settings.cpus = cpus
    group = run.Group(settings)
    try:
        for i in range(times):
            group.run(program.parse(text.replace("NAME", f"found{i}")))
        group.finish()
    finally:
        group.close()
