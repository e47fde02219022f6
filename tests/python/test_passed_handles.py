"""Actors whose handle came from elsewhere: their first calls go by what the creator has said, though the node has yet to
tell it. And kills of actors that are not there yet."""

import os
import time

import pytest

import libray
from libray import exceptions as exc

pytestmark = pytest.mark.usefixtures("cluster")

ROUNDS = 3  # each with an actor that the other process has not seen


def test_the_first_call_has_the_retries_of_the_actor(tmp_path):
    @libray.remote(max_restarts=-1, max_task_retries=-1, num_cpus=0)
    class Actor:
        def die_once(self, path):
            if not os.path.exists(path):
                open(path, "w").close()
                os._exit(1)
            return "there"

    @libray.remote(max_retries=0)
    def use(actor, path):
        return libray.get(actor.die_once.remote(path))

    for i in range(ROUNDS):
        actor = Actor.remote()
        assert libray.get(use.remote(actor, str(tmp_path / str(i))), timeout=60) == "there"


def test_the_first_calls_run_out_of_order(tmp_path):
    @libray.remote(allow_out_of_order_execution=True, num_cpus=0)
    class Actor:
        def release(self, path):
            open(path, "w").close()
            return "released"

        def first(self, x):
            return x

    @libray.remote(max_retries=0)
    def use(actor, path):

        @libray.remote
        def slow():
            while not os.path.exists(path):
                time.sleep(0.01)
            return "slow"

        # the argument of the first call comes when the second has run
        first = actor.first.remote(slow.remote())
        return libray.get([first, actor.release.remote(path)], timeout=60)

    for i in range(ROUNDS):
        actor = Actor.remote()
        assert libray.get(use.remote(actor, str(tmp_path / str(i))), timeout=90) == ["slow", "released"]


def test_the_first_calls_are_counted(tmp_path):
    @libray.remote(num_cpus=0, max_pending_calls=3)
    class Actor:
        def wait(self, path):
            while not os.path.exists(path):
                time.sleep(0.01)
            return 1

    @libray.remote(max_retries=0)
    def use(actor, path):
        calls = []
        with pytest.raises(exc.PendingCallsLimitExceeded):
            while len(calls) < 50:
                calls.append(actor.wait.remote(path))
        open(path, "w").close()
        return libray.get(calls)

    for i in range(ROUNDS):
        actor = Actor.remote()
        assert libray.get(use.remote(actor, str(tmp_path / str(i))), timeout=60) == [1, 1, 1]


@pytest.mark.parametrize("restarts", [0, -1])
def test_killed_while_its_constructor_waits(tmp_path, restarts):
    path = str(tmp_path / "go")

    @libray.remote(max_restarts=restarts, num_cpus=0)
    class Actor:
        def __init__(self, x):
            self.x = x

        def get(self):
            return self.x

    @libray.remote(num_cpus=0)
    def slow():
        while not os.path.exists(path):
            time.sleep(0.01)
        return 7

    actor = Actor.remote(slow.remote())
    libray.kill(actor, no_restart=False)
    open(path, "w").close()
    if restarts:
        assert libray.get(actor.get.remote(), timeout=60) == 7
    else:
        with pytest.raises(exc.RayActorError):
            libray.get(actor.get.remote(), timeout=60)
