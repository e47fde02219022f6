"""The Python program of the kill matrix; see program.c, which does the same through the C API, and
matrix.py, which runs it and kills parts of its cluster meanwhile.

Environment: KILL_DIR, KILL_SEED, KILL_VICTIMS, as told in program.c. Status 0 = every value was right and
every error one that the deaths explain.
"""
import asyncio
import os
import random
import sys
import time
from pathlib import Path

import numpy as np

import libray
from libray import exceptions as ex

DIR = Path(os.environ["KILL_DIR"])
VICTIMS = os.environ.get("KILL_VICTIMS", "").split(",")
LARGE = 700_000  # bytes: several do not fit into the store together

# What the death of the node explains, at whatever stage it ended things.
NODE_GONE = (ex.NodeDiedError, ex.WorkerCrashedError, ex.ObjectLostError, ex.TaskCancelledError,
             ex.RayActorError, ex.ObjectStoreFullError, ex.LocalRayletDiedError, ex.RaySystemError)


# ---- what workers run ----

@libray.remote(max_retries=-1)
def add(a, b):
    return a + b


@libray.remote(max_retries=0)
def add_once(a, b):
    return a + b


def large(seed):
    return np.arange(LARGE // 8, dtype=np.int64) * 7 + seed


@libray.remote(max_retries=-1)
def fill(seed):
    return large(seed)


@libray.remote(max_retries=-1)
def check_fill(seed, array):
    return seed if np.array_equal(array, large(seed)) else -1


@libray.remote(max_retries=-1)
def fib(n):
    return n if n < 2 else sum(libray.get([fib.remote(n - 1), fib.remote(n - 2)]))


@libray.remote(max_retries=-1)
def count_up(n, base):
    for i in range(n):
        yield base + i


@libray.remote(max_retries=-1)
def nest(base):
    return {"put": [libray.put(base), libray.put((base, "x"))], "large": libray.put(large(base)),
            "task": add.remote(base, 1)}


class CounterBase:
    def __init__(self):
        self.n = 0

    def next(self):
        self.n += 1
        return self.n

    def echo(self, x):
        return x


class AsyncBase:
    async def echo(self, x):
        await asyncio.sleep(0.001)
        return x


@libray.remote(max_retries=-1)
def sleep_long():
    for _ in range(3000):
        time.sleep(0.01)
    return "woke up"


# ---- verdicts ----

class Wrong(Exception):
    pass


class Driver:
    def __init__(self):
        self.workers, self.node = "worker" in VICTIMS, "node" in VICTIMS
        self.node_died, self.values, self.errors = False, 0, 0

    def allowed(self, step, error, classes):
        self.errors += 1
        if not str(error):
            raise Wrong(f"{step}: {type(error).__name__} without a message")
        if self.workers and isinstance(error, classes):
            return
        if self.node and isinstance(error, NODE_GONE):
            self.node_died = True
            return
        raise Wrong(f"{step}: {type(error).__name__}: {error}")

    def take(self, step, ref, classes=()):
        """(True, value), or (False, None) after an error that is allowed."""
        if ref is None:
            return False, None
        try:
            value = libray.get(ref)
        except ex.RayError as error:
            self.allowed(step, error, classes)
            return False, None
        self.values += 1
        return True, value

    def expect(self, step, ref, right, classes=()):
        ok, value = self.take(step, ref, classes)
        if ok and not (np.array_equal(value, right) and type(value) is type(right)):
            raise Wrong(f"{step}: {value!r}, not {right!r}")

    def start(self, step, function, *args, classes=()):
        """A reference, or None after an error that is allowed."""
        try:
            return function(*args)
        except ex.RayError as error:
            self.allowed(step, error, classes)
            return None

    # ---- steps ----

    def sums(self, base):
        refs = [self.start("sums", add.remote, base, i) for i in range(100)]
        chain = self.start("chain", add.remote, base, 0)
        for _ in range(20):
            chain = chain and self.start("chain", add.remote, chain, 1)
        for i, ref in enumerate(refs):
            self.expect("sums", ref, base + i)
        self.expect("chain", chain, base + 20)

    def without_retries(self, base):
        refs = [self.start("without retries", add_once.remote, base, i) for i in range(100)]
        for i, ref in enumerate(refs):
            self.expect("without retries", ref, base + i, ex.WorkerCrashedError)

    def large_objects(self, base):
        seeds = range(base, base + 16)
        refs = [self.start("put", libray.put, large(s)) if s % 2 else
                self.start("fill", fill.remote, s) for s in seeds]
        checks = [ref and self.start("check", check_fill.remote, s, ref) for s, ref in zip(seeds, refs)]
        for s, check in zip(seeds, checks):
            self.expect("large argument", check, s)
        for s, ref in zip(seeds, refs):
            self.expect("large object", ref, large(s))

    def recursion(self, _):
        self.expect("recursion", self.start("recursion", fib.remote, 6), 8)

    def generator(self, base):
        stream = self.start("generator",
                            count_up.options(_generator_backpressure_num_objects=8).remote, 60, base)
        n = 0
        try:
            for ref in stream or ():
                self.expect("generator", ref, base + n)
                n += 1
        except ex.RayError as error:
            self.allowed("generator", error, ())
        if n != 60 and not self.node_died:
            raise Wrong(f"generator: {n} items, not 60")

    def nested_references(self, base):
        refs = [self.start("nest", nest.remote, base + 100 * i) for i in range(5)]
        for i, ref in enumerate(refs):
            x = base + 100 * i
            ok, value = self.take("nested value", ref)
            if not ok:
                continue
            self.expect("nested put", value["put"][0], x)
            self.expect("nested put", value["put"][1], (x, "x"))
            self.expect("nested large put", value["large"], large(x))
            self.expect("nested task", value["task"], x + 1, (ex.ObjectLostError, ex.WorkerCrashedError))

    def calls(self, method, arguments):
        return [self.start("call", method.remote, *a, classes=ex.RayActorError) for a in arguments]

    def actor(self, **options):
        return self.start("actor", libray.remote(CounterBase).options(**options).remote)

    def mortal_actor(self, _):
        actor = self.actor()
        refs = self.calls(actor.next, [()] * 40) if actor else []
        dead = False
        for i, ref in enumerate(refs):
            ok, value = self.take("mortal actor", ref, ex.ActorDiedError)
            if ok and dead:
                raise Wrong(f"a dead actor answered call {i}")
            if ok and value != i + 1:
                raise Wrong(f"mortal actor: {value}, not {i + 1}")
            dead |= not ok

    def restarting_actor(self, _):
        actor = self.actor(max_restarts=-1)
        last = 0
        for ref in self.calls(actor.next, [()] * 40) if actor else []:
            ok, value = self.take("restarting actor", ref, ex.ActorUnavailableError)
            if not ok:
                continue
            if value != last + 1 and not (self.workers and value == 1):
                raise Wrong(f"restarting actor: {value} after {last}")
            last = value

    def immortal_actor(self, base):
        actor = self.actor(max_restarts=-1, max_task_retries=-1)
        refs = self.calls(actor.echo, [(base + i,) for i in range(40)]) if actor else []
        for i, ref in enumerate(refs):
            self.expect("immortal actor", ref, base + i)

    def asyncio_actor(self, base):
        actor = self.start("actor", libray.remote(AsyncBase).options(
            max_restarts=-1, max_task_retries=-1).remote)
        refs = self.calls(actor.echo, [(base + i,) for i in range(60)]) if actor else []
        for i, ref in enumerate(refs):
            self.expect("asyncio actor", ref, base + i)

    def cancelled(self, _):
        """A cancelled task does not give its value, and does not run to its end."""
        ref = self.start("cancel", sleep_long.remote)
        if ref is None:
            return
        began = time.monotonic()
        try:
            libray.cancel(ref)
            libray.get(ref)
        except ex.TaskCancelledError:
            pass
        except ex.RayError as error:
            self.allowed("cancel", error, ex.WorkerCrashedError)
        else:
            raise Wrong("a cancelled task gave its value")
        if time.monotonic() - began > 25:
            raise Wrong("a cancelled task ran to its end")

    def named_actor(self, base):
        """Found by its name while it lives; the name is free when it was killed."""
        name = f"named-{base}"
        for turn in range(2):
            actor = self.actor(name=name, max_restarts=-1, max_task_retries=-1)
            found = actor and self.start("get_actor", libray.get_actor, name)
            if not found:
                return
            for i, ref in enumerate(self.calls(found.echo, [(base + i,) for i in range(10)])):
                self.expect("named actor", ref, base + i)
            self.start("kill", libray.kill, found)
            end = time.monotonic() + 20
            while time.monotonic() < end and not self.node_died:
                try:
                    libray.get_actor(name)
                except ValueError:
                    break
                except ex.RayError as error:
                    self.allowed("get_actor", error, ())
                    return
            else:
                if not self.node_died:
                    raise Wrong(f"a killed actor keeps its name in turn {turn}")

    def wait_for_some(self, base):
        pending = [r for r in (self.start("wait", add.remote, base, i) for i in range(50)) if r]
        seen = set()
        while pending:
            try:
                done, pending = libray.wait(pending, num_returns=min(7, len(pending)))
            except ex.RayError as error:
                self.allowed("wait", error, ())
                return
            for ref in done:
                ok, value = self.take("wait", ref)
                if ok:
                    seen.add(value)
        if seen != set(range(base, base + 50)) and not self.node_died:
            raise Wrong(f"wait: {len(seen)} of 50 values")

    STEPS = [sums, without_retries, large_objects, recursion, generator, nested_references, mortal_actor,
             restarting_actor, immortal_actor, asyncio_actor, cancelled, named_actor, wait_for_some]

    def run(self, pick):
        rounds = 0
        while True:
            for step in pick.sample(self.STEPS, len(self.STEPS)):
                step(self, pick.randrange(1 << 40))
            rounds += 1
            if self.node_died or (DIR / "stop").exists():
                return rounds


def main():
    driver = Driver()
    try:
        libray.init(num_cpus=2, object_store_memory=8 << 20)
    except (ex.RayError, ConnectionError, OSError) as error:
        driver.allowed("init", error, ())
        print(f"no cluster: {error}")
        return
    (DIR / "ready").touch()
    rounds = driver.run(random.Random(int(os.environ.get("KILL_SEED", "1"))))
    libray.shutdown()
    print(f"{rounds} rounds, {driver.values} values, {driver.errors} errors"
          + (", the node died" if driver.node_died else ""))


if __name__ == "__main__":
    sys.exit(main())
