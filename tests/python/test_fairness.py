"""Nobody waits for ever: what cannot be placed stops nobody, and what fits has its turn however long others go on."""

import json
import os
import sys
import time

import pytest

import libray
from libray.api.placement import placement_group, remove_placement_group


@libray.remote(num_cpus=1)
class Holder:
    def ping(self):
        return 1


@libray.remote(num_cpus=1)
def small(i):
    return i


@libray.remote(num_cpus=2)
def big():
    return "big"


def small_ones_run(times):
    """Each needs a lease of its own, for each asks for another amount."""
    for i in range(times):
        assert libray.get(small.options(num_cpus=1 - i / 10000).remote(i), timeout=20) == i


def test_a_task_that_waits_for_an_actors_cpu_stops_nobody(fresh):
    fresh(num_cpus=2)
    actor = Holder.remote()
    libray.get(actor.ping.remote())
    waiting = big.remote()
    began = time.monotonic()
    small_ones_run(30)
    while time.monotonic() - began < 2:
        small_ones_run(10)
    libray.cancel(waiting)
    with pytest.raises(libray.exceptions.TaskCancelledError):
        libray.get(waiting, timeout=20)
    small_ones_run(20)
    waiting = big.remote()
    libray.kill(actor)
    assert libray.get(waiting, timeout=20) == "big"


def test_a_pending_group_stops_nobody(fresh):
    fresh(num_cpus=2)
    actor = Holder.remote()
    libray.get(actor.ping.remote())
    group = placement_group([{"CPU": 2}])
    began = time.monotonic()
    small_ones_run(30)
    while time.monotonic() - began < 2:
        small_ones_run(10)
    libray.kill(actor)
    assert group.wait(20)
    remove_placement_group(group)
    small_ones_run(5)


def test_a_stream_of_one_shape_leaves_another_its_turn(fresh):
    fresh(num_cpus=2)

    @libray.remote(num_cpus=1)
    def nap():
        time.sleep(0.05)

    @libray.remote(num_cpus=0.5)
    def other():
        return "other"

    pending = [nap.remote() for _ in range(40)]  # as many are in flight all the time
    libray.wait(pending, num_returns=10)
    for _ in range(2):
        turn = other.remote()
        began = time.monotonic()
        while not libray.wait([turn], timeout=0)[0]:
            assert time.monotonic() - began < 15
            done, pending = libray.wait(pending, num_returns=1, timeout=1)
            pending += [nap.remote() for _ in done]
    libray.get(pending)


def test_the_next_task_of_a_driver_whose_first_takes_long(fresh, tmp_path):
    fresh(num_cpus=2)
    gate = tmp_path / "gate"

    @libray.remote(num_cpus=1)
    def step(wait_for=None):
        while wait_for and not os.path.exists(wait_for):
            time.sleep(0.02)

    @libray.remote(num_cpus=0)
    class Loop:
        def run(self, until):
            n = 0
            while not os.path.exists(until):
                libray.get(step.remote())
                n += 1
            return n

    first = step.remote(str(gate))
    loop = Loop.remote()
    running = loop.run.remote(str(gate))
    libray.wait([running], timeout=0.5)
    try:
        libray.get(step.remote(), timeout=20)
    finally:
        gate.touch()
    libray.get([first, running])


def test_a_lease_that_is_kept_for_the_next_task_is_available(fresh):
    fresh(num_cpus=2)

    @libray.remote
    def outer():
        return libray.get(small.remote(1))

    for i in range(30):
        libray.get(small.remote(i))
        assert libray.available_resources()["CPU"] == 2
    for _ in range(10):
        libray.get(outer.remote())
        assert libray.available_resources().get("CPU", 0) >= 1


def test_a_name_is_free_when_the_caller_knows_of_the_death(fresh):
    fresh(num_cpus=2)

    @libray.remote(num_cpus=0)
    class Named:
        def leave(self):
            libray.exit_actor()

        def sys_exit(self):
            sys.exit(0)

        def crash(self):
            os._exit(1)

    for i in range(30):
        actor = Named.options(name="again", lifetime="detached" if i % 2 else None).remote()
        with pytest.raises(libray.exceptions.RayActorError):
            libray.get(getattr(actor, ("leave", "sys_exit", "crash")[i % 3]).remote(), timeout=20)


def test_groups_that_ask_for_millions_of_gpus_cost_nothing(fresh):
    context = fresh(num_cpus=1, num_gpus=1)
    with open(os.path.join(context["session_dir"], "session.json")) as file:
        daemon = json.load(file)["pid"]

    def resident_kb():
        with open(f"/proc/{daemon}/status") as status:
            return int(next(line for line in status if line.startswith("VmRSS")).split()[1])

    libray.get(small.remote(1))
    before = resident_kb()
    for n in (1e6, 5e6, 1e12):
        placement_group([{"GPU": n}])
    assert libray.get(small.remote(1), timeout=20) == 1
    assert resident_kb() - before < 20_000


def test_tasks_that_come_back_keep_their_place(fresh, tmp_path):
    """A worker that blocks gives back what waits in its ring: that still runs before what was submitted later."""
    fresh(num_cpus=1)
    order, count = tmp_path / "order", 3000

    @libray.remote(num_cpus=0)
    def gate():
        while len(order.read_bytes().split()) < count - 1:
            time.sleep(0.002)

    @libray.remote
    def step(i):
        if i == 0:
            return libray.get(gate.remote())
        with open(order, "ab", buffering=0) as file:
            file.write(b"%d " % i)

    order.touch()
    libray.get([step.remote(-1) for _ in range(300)])  # short: many of them are sent at once
    order.write_bytes(b"")
    libray.get([step.remote(i) for i in range(count)])
    assert [int(i) for i in order.read_bytes().split()] == list(range(1, count))
