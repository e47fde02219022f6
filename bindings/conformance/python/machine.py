"""The machine of the Python driver (../SPEC.md): runs instructions in a driver, a task, a call or a thread of any of them.

Instructions are asynchronous functions so that the same ones serve asyncio actors, which await references; everywhere
else nothing in them ever waits (they block instead), and `drive` runs them to their end.
"""
import asyncio
import contextlib
import os
import signal
import threading
import time

import libray
import numpy as np
from libray import _libray
from libray import exceptions as errors

MASK = (1 << 64) - 1
STEP = np.uint64(0x9E3779B97F4A7C15)

# The first class that an exception is an instance of says its code. Groups of wrappers come last.
CODES = [
    (errors.GetTimeoutError, "TIMED_OUT"), (errors.TaskCancelledError, "CANCELLED"),
    (errors.WorkerCrashedError, "WORKER_CRASHED"), (errors.OutOfMemoryError, "OUT_OF_MEMORY"),
    (errors.ObjectLostError, "OBJECT_LOST"), (errors.ActorUnavailableError, "ACTOR_RESTARTING"),
    (errors.ActorDiedError, "ACTOR_DIED"), (errors.RayActorError, "ACTOR_DIED"),
    (errors.TaskUnschedulableError, "UNSCHEDULABLE"), (errors.ActorUnschedulableError, "UNSCHEDULABLE"),
    (errors.TaskPlacementGroupRemoved, "GROUP_REMOVED"), (errors.ActorPlacementGroupRemoved, "GROUP_REMOVED"),
    (errors.ObjectStoreFullError, "STORE_FULL"), (errors.NodeDiedError, "NODE_DIED"),
    (errors.ActorAlreadyExistsError, "ALREADY_EXISTS"), (errors.ConflictError, "CONFLICT"),
    (errors.ActorHandleNotFoundError, "NOT_FOUND"), (errors.RayTaskError, "TASK_FAILED"),
]


CROSS = "CONFORMANCE_CROSS" in os.environ  # programs of two languages
PLANT = os.environ.get("CONFORMANCE_PLANT", "").removesuffix("@python")  # a fault that the tester has to find


def code_of(error):
    return next((code for kind, code in CODES if isinstance(error, kind)), "INTERNAL")


def mix(acc, x):
    return (acc * 6364136223846793005 + x + 1) & MASK


class OnPurpose(RuntimeError):
    """What a body raises when it is to fail."""


class BodyFailed(RuntimeError):
    """An instruction of a body failed."""


class Empty(Exception):
    """A slot is empty."""


# ---- values ------------------------------------------------------------------------------------------

class Holder:
    """A value of a class of its own: pickled, unlike tuples and arrays."""

    def __init__(self, tag, size, data, inside):
        self.tag, self.size, self.data, self.inside = tag, size, data, inside


def pattern(tag, size):
    with np.errstate(over="ignore"):
        return (np.arange(size // 8, dtype=np.uint64) + np.uint64(tag)) * STEP


def cross_value(tag, size, data, inside):
    """The form of programs of two languages: tag, size, bytes, array, and pairs of a reference or None and a handle or None."""
    array = tag % 3 == 0
    pairs = [[x, None] if isinstance(x, libray.ObjectRef) else [None, x] for x in inside]
    return [tag, size, b"" if array else data.tobytes(), data.view(np.int64) if array else np.empty(0, np.int64), pairs]


def make_value(tag, size, inside):
    """The tag decides which of several kinds of Python objects it is."""
    data = pattern(tag, size)
    if PLANT == "value" and tag % 7 == 0:
        data[-1:] = 7
    if PLANT == "lost" and tag % 7 == 0:
        inside = inside[:-1]
    if CROSS:
        return cross_value(tag, size, data, inside)
    kind = tag % 5
    if kind == 0:
        return (tag, size, data.tobytes(), inside)
    if kind == 1:
        return {"tag": tag, "size": size, "data": data, "inside": inside}
    if kind == 2:
        return Holder(tag, size, data, inside)
    if kind == 3 and not inside:
        return np.concatenate([np.array([tag, size], dtype=np.uint64), data])
    return [tag, size, [data.tobytes()], inside]


def look(value):
    """(tag, size, references inside, whether it is whole)."""
    if CROSS:
        tag, size, data, array, pairs = value
        right = type(data) is bytes and array.dtype == np.int64 and not (data if tag % 3 == 0 else array.size)
        words = array.view(np.uint64) if tag % 3 == 0 else np.frombuffer(data, dtype=np.uint64)
        right = right and all((a is None) != (b is None) for a, b in pairs)
        return tag, size, [b if a is None else a for a, b in pairs], right and bool(np.array_equal(words, pattern(tag, size)))
    if isinstance(value, np.ndarray):
        tag, size, data, inside = int(value[0]), int(value[1]), value[2:], []
    elif isinstance(value, Holder):
        tag, size, data, inside = value.tag, value.size, value.data, value.inside
    elif isinstance(value, dict):
        tag, size, data, inside = value["tag"], value["size"], value["data"], value["inside"]
    else:
        tag, size, data, inside = value
        data = data[0] if isinstance(data, list) else data
    if isinstance(data, bytes):
        data = np.frombuffer(data, dtype=np.uint64)
    return tag, size, inside, bool(np.array_equal(data, pattern(tag, size)))


# ---- text --------------------------------------------------------------------------------------------

def instructions(text):
    """Lists of words; a body is a word that begins with '['."""
    words, word, depth = [], "", 0
    for c in text + ";":
        if depth == 0 and c in " ;":
            if word:
                words.append(word)
            word = ""
            if c == ";" and words:
                yield words
                words = []
            continue
        depth += (c == "[") - (c == "]")
        word += c


def body_text(word):
    return word[1:-1]


def options(words):
    return dict(w.split("=", 1) for w in words if "=" in w and w[0] not in "[v")


# ---- remote functions --------------------------------------------------------------------------------

def drive(generator):
    """The items of an asynchronous generator that never waits."""
    while True:
        try:
            generator.__anext__().send(None)
        except StopIteration as item:
            yield item.value
        except StopAsyncIteration:
            return


def only_result(machine):
    for _ in drive(machine.play()):
        pass
    return machine.given.get(0)


@libray.remote
def run(text, *args):
    return only_result(Machine(text, args))


@libray.remote
def twin(text, *args):
    return only_result(Machine(text, args))


@libray.remote
def run_several(text, *args):
    yield from Machine(text, args).results()


@libray.remote
def run_stream(text, *args):
    yield from drive(Machine(text, args).play())


class State:
    def __init__(self):
        self.lock, self.sum, self.kept = threading.Lock(), 0, {}


class Box:
    """An actor whose methods are bodies; synchronous, or with threads."""

    def __init__(self, text, *args):
        self.state = State()
        for _ in drive(Machine(text, args, self.state).play()):
            pass

    def run(self, text, *args):
        return only_result(Machine(text, args, self.state))

    def run_several(self, text, *args):
        yield from Machine(text, args, self.state).results()

    def run_stream(self, text, *args):
        yield from drive(Machine(text, args, self.state).play())


class AsyncBox:
    """The same on an event loop."""

    def __init__(self, text, *args):
        self.state = State()
        for _ in drive(Machine(text, args, self.state).play()):
            pass

    async def run(self, text, *args):
        machine = Machine(text, args, self.state, True)
        async for _ in machine.play():
            pass
        return machine.given.get(0)

    async def run_several(self, text, *args):
        machine = Machine(text, args, self.state, True)
        async for _ in machine.play():
            pass
        return machine.in_order()

    async def run_stream(self, text, *args):
        async for item in Machine(text, args, self.state, True).play():
            yield item


RemoteBox, RemoteAsyncBox = libray.remote(Box), libray.remote(AsyncBox)


# ---- two languages

def of_any_language(opts, name):
    """The function or class under the name that all drivers give it."""
    language = opts["lang"]
    make = libray.actor_class if name == "Box" else libray.function
    if language == "python":
        return make("python", "machine", name)
    if language == "java":
        return make("java", "Bodies$Box") if name == "Box" else make("java", "Bodies", name)
    return make(language, name)


# ---- the machine -------------------------------------------------------------------------------------

class Machine:
    def __init__(self, text="", args=(), state=None, is_async=False, say=None, bound=20.0):
        self.text, self.args, self.state, self.is_async, self.say, self.bound = text, args, state, is_async, say, bound
        self.slots, self.acc, self.path, self.versions, self.threads = {}, 0, "", {}, {}
        self.given, self.over = {}, False
        self.attempt = 0
        if say is None:
            self.attempt = (_libray._current_task() or (0, 0, 0, 0))[3]

    # -- running
    async def play(self):
        """Runs a body; gives what it returns or yields, as it comes."""
        async for item in self.steps(self.text, ""):
            yield item

    def results(self):
        """The results of a body with several, in order; each goes as soon as it is there."""
        sent = 0
        for _ in drive(self.play()):
            while sent in self.given:
                yield self.given[sent]
                sent += 1
        for i in range(sent, self.wanted() if self.text[:1].isdigit() else len(self.given)):
            yield self.given.get(i)

    def in_order(self):
        return [self.given.get(i) for i in range(self.wanted())]

    def wanted(self):
        """How many results: a body with several begins with their number."""
        return int(self.text.split(";", 1)[0])

    async def steps(self, text, prefix):
        index = 0
        for words in instructions(text):
            if words[0].isdigit():  # a body with several results begins with their number
                continue
            if self.over:
                return
            self.path = f"{prefix}{index}"
            index += 1
            operation = getattr(self, "op_" + words[0], None)
            try:
                if operation is None:
                    raise BodyFailed(f"unknown {words[0]}")
                item = await operation(words)
            except Empty:
                if self.say is None:
                    raise BodyFailed(f"{self.path}: a slot is empty") from None
                self.tell("empty")
            except Exception as error:
                if self.say is None and not isinstance(error, errors.RayError):
                    raise
                self.failed(error)
            else:
                if item is not None:
                    yield item[0]

    def tell(self, text):
        if self.say is not None:
            self.say(f"a {self.path} {text}")

    def failed(self, error, code=None):
        if self.say is None:
            raise BodyFailed(f"{self.path}: {code or code_of(error)}") from None
        code = code or code_of(error)
        text = " ".join(str(error).split())[:300]
        self.tell("t" if code == "TIMED_OUT" else f"e {code} # {text}")

    def slot(self, name):
        found = self.slots.get(name)
        if found is None:
            raise Empty
        return found

    async def fetch(self, ref):
        if self.is_async:
            return await ref
        return libray.get(ref, timeout=self.bound if self.say is not None else None)

    async def value(self, ref):
        try:
            return await self.fetch(ref)
        except errors.GetTimeoutError:
            self.over = self.say is not None
            raise

    def see(self, value):
        if value is None:
            self.acc = mix(self.acc, 1)
            self.tell("nil")
            return
        tag, size, inside, whole = look(value)
        self.acc = mix(self.acc, tag + size if whole else 1)
        self.tell(f"v {tag} {size} {len(inside)}" if whole else f"damaged {tag} {size}")

    def parse(self, word, at=None, words=()):
        """A value; `at`: where it is returned, so that its tag tells what the body saw."""
        parts = word.split(":", 2)
        inside = [self.slot(n) for n in parts[2].split(",")] if len(parts) > 2 else []
        tag = int(parts[0])
        if at is not None:
            tag = mix(self.acc, tag)
            if len(words) > at + 1 and words[at + 1] == "a":
                tag = mix(tag, 1000 + self.attempt)
        return make_value(tag, int(parts[1]), inside)

    # -- values
    async def op_put(self, words):
        self.slots[words[1]] = libray.put(self.parse(words[2]), portable=CROSS)
        self.tell("ok")

    async def op_get(self, words):
        refs = [self.slot(n) for n in words[1:]]
        if len(refs) == 1:
            self.see(await self.value(refs[0]))
        elif self.is_async:
            for value in await asyncio.gather(*refs):
                self.see(value)
        else:
            values = await self.value(refs)
            if PLANT == "order":
                values[:2] = values[1::-1]
            self.tell(f"values {len(values)}")
            for value in values:
                self.see(value)

    async def op_try(self, words):
        ref = self.slot(words[1])
        try:
            self.see(libray.get(ref, timeout=0))
        except errors.GetTimeoutError:
            self.tell("t")

    async def op_wait(self, words):
        refs = [self.slot(n) for n in words[3:]]
        want, ms = int(words[1]), int(words[2])
        timeout = (self.bound if self.say else None) if ms < 0 else ms / 1000
        if self.is_async:
            timeout = 0
        try:
            ready, _ = libray.wait(refs, num_returns=want, timeout=timeout)
        except ValueError as error:
            return self.failed(error, "INVALID_ARGUMENT")
        self.over = self.say is not None and ms < 0 and len(ready) < want
        ids = {r.hex() for r in ready}
        self.tell(f"w {len(ready)} " + "".join("1" if r.hex() in ids else "0" for r in refs))

    async def op_told(self, words):
        """By futures, each of which is completed from another thread."""
        futures, codes = [self.slot(n).future() for n in words[1:]], []
        for future in futures:
            try:
                future.result(self.bound if self.say else None)
                codes.append("OK")
            except errors.RayError as error:
                codes.append(code_of(error))
            except TimeoutError as error:
                self.over = self.say is not None
                return self.failed(error, "TIMED_OUT")
        self.tell("told " + " ".join(codes))

    async def op_elem(self, words):
        value = await self.value(self.slot(words[1]))
        self.take([] if value is None else look(value)[2], words)

    def take(self, inside, words):
        at = int(words[2])
        if at >= len(inside) or isinstance(inside[at], libray.ObjectRef) != (words[3][0] == "r"):
            return self.failed(IndexError("no such reference"), "INVALID_ARGUMENT")
        self.slots[words[3]] = inside[at]
        self.tell("ok")

    async def op_copy(self, words):
        self.slots[words[1]] = self.slot(words[2])
        self.tell("ok")

    async def op_drop(self, words):
        for name in words[1:]:
            self.slots.pop(name, None)
        self.tell("ok")

    # -- submitting
    def submission(self, words, first, n_outs, is_stream, is_call):
        """Arguments and options of a task or call."""
        opts = options(words[first:])
        body = body_text(words[-1])
        text = f"{n_outs};{body}" if n_outs > 1 and not is_stream else body
        args = [self.slot(w) if w[0] == "r" else self.parse(w[1:]) for w in words[first:-1] if "=" not in w]
        given = {"name": words[1], "num_returns": "streaming" if is_stream else n_outs}
        if "retries" in opts and int(opts["retries"]) > -2:
            given["max_task_retries" if is_call else "max_retries"] = int(opts["retries"])
        if "roe" in opts:
            given["retry_exceptions"] = True
        if "window" in opts:
            given["_generator_backpressure_num_objects"] = int(opts["window"])
        if "res" in opts and not is_call:
            given.update(self.resources(opts["res"]))
        if "group" in opts:
            given["placement_group"] = self.slot(opts["group"])
            given["placement_group_bundle_index"] = int(opts.get("bundle", -1))
        return [text, *args], given

    @staticmethod
    def resources(text):
        amounts = dict(part.rsplit(":", 1) for part in text.split(","))
        cpus = float(amounts.pop("CPU", 0))
        return {"num_cpus": cpus, "resources": {k: float(v) for k, v in amounts.items()}}

    def keep(self, outs, refs):
        refs = refs if isinstance(refs, list) else [refs]
        for name, ref in zip(outs, refs):
            self.slots[name] = ref
        self.tell("ok")

    async def op_task(self, words):
        outs = [] if words[2] == "-" else words[2].split(",")
        args, given = self.submission(words, 3, len(outs), False, False)
        function = run_several if len(outs) > 1 else twin if "twin=1" in words else run
        if CROSS:
            name = "twin" if "twin=1" in words else "run_several" if len(outs) > 1 else "run"
            function = of_any_language(options(words), name)
        self.keep(outs, function.options(**given).remote(*args))

    async def op_stream(self, words):
        args, given = self.submission(words, 3, 1, True, False)
        function = of_any_language(options(words), "run_stream") if CROSS else run_stream
        self.slots[words[2]] = function.options(**given).remote(*args)
        self.tell("ok")

    async def op_call(self, words):
        outs = [] if words[3] == "-" else words[3].split(",")
        actor = self.slot(words[2])
        args, given = self.submission(words, 4, len(outs), False, True)
        method = actor.run_several if len(outs) > 1 else actor.run
        self.keep(outs, method.options(**given).remote(*args))

    async def op_callstream(self, words):
        actor = self.slot(words[2])
        args, given = self.submission(words, 4, 1, True, True)
        self.slots[words[3]] = actor.run_stream.options(**given).remote(*args)
        self.tell("ok")

    async def op_actor(self, words):
        opts = options(words[3:])
        args, given = self.submission(words, 3, 1, False, False)
        kind = of_any_language(opts, "Box") if CROSS else RemoteAsyncBox if opts.get("kind") == "asyncio" else RemoteBox
        mine = {k: given[k] for k in ("num_cpus", "resources", "placement_group", "placement_group_bundle_index") if k in given}
        for ours, theirs in (("restarts", "max_restarts"), ("again", "max_task_retries"), ("conc", "max_concurrency"),
                             ("pending", "max_pending_calls")):
            if ours in opts:
                mine[theirs] = int(opts[ours])
        if "name" in opts:
            mine["name"] = opts["name"]
        if "detached" in opts:
            mine["lifetime"] = "detached"
        if "gie" in opts:
            mine["get_if_exists"] = True
        if "ooo" in opts:
            mine["allow_out_of_order_execution"] = True
        try:
            self.slots[words[2]] = kind.options(**mine).remote(*args)
        except ValueError as error:
            return self.failed(error, "ALREADY_EXISTS")
        self.tell("ok")

    # -- streams, cancelling, actors
    async def op_next(self, words):
        stream, ms = self.slot(words[1]), int(words[3])
        timeout = self.bound if ms < 0 else ms / 1000
        try:
            if self.is_async:
                ref = await stream.__anext__()
            elif self.say is None and ms < 0:
                ref = next(stream)
            else:
                ready, _ = libray.wait([stream], num_returns=1, timeout=timeout)
                if not ready:
                    self.over = ms < 0
                    return self.tell("t")
                ref = next(stream)
        except (StopIteration, StopAsyncIteration):
            self.acc = mix(self.acc, 7)
            self.slots.pop(words[2], None)
            return self.tell("end")
        self.slots[words[2]] = ref
        self.tell("ok")

    async def op_scancel(self, words):
        libray.cancel(self.slot(words[1]), force="f" in words[2], recursive="r" in words[2])
        self.tell("ok")

    async def op_sdone(self, words):
        self.slots[words[2]] = self.slot(words[1]).completed()
        self.tell("ok")

    async def op_cancel(self, words):
        try:
            libray.cancel(self.slot(words[1]), force="f" in words[2], recursive="r" in words[2])
        except ValueError as error:
            return self.failed(error, "UNSUPPORTED")
        self.tell("ok")

    async def op_find(self, words):
        self.slots.pop(words[2], None)
        try:
            self.slots[words[2]] = libray.get_actor(words[1])
        except ValueError as error:
            return self.failed(error, "NOT_FOUND")
        self.tell("ok")

    async def op_kill(self, words):
        libray.kill(self.slot(words[1]), no_restart=words[2] != "1")
        self.tell("ok")

    # -- time
    async def op_sleep(self, words):
        if self.is_async:
            await asyncio.sleep(int(words[1]) / 1e6)
        else:
            time.sleep(int(words[1]) / 1e6)
        self.tell("ok")

    async def op_spin(self, words):
        end = time.perf_counter() + int(words[1]) / 1e6
        while time.perf_counter() < end:
            pass
        self.tell("ok")

    async def op_pump(self, words):
        ref, width = self.slot(words[2]), int(words[4])
        end, window = time.monotonic() + int(words[3]) / 1000, []
        args, given = self.submission(words, 5, 1, False, False)
        ready, function = [], of_any_language(options(words), "run") if CROSS else run
        while not ready and time.monotonic() < end:
            if len(window) == width:
                libray.get(window.pop(0))
            window.append(function.options(**given).remote(*args))
            ready, _ = libray.wait([ref], num_returns=1, timeout=0)
        self.tell("y" if ready else "n")

    # -- around
    async def op_group(self, words):
        from libray.api.placement import placement_group

        bundles = [{k: float(v) for k, v in (p.rsplit(":", 1) for p in b.split(","))} for b in words[3].split("/")]
        strategy = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")[int(words[2])]
        self.slots[words[1]] = placement_group(bundles, strategy)
        self.tell("ok")

    async def op_gwait(self, words):
        group = self.slots.get(words[1])
        if group is None:
            return self.failed(ValueError("no group"), "NOT_FOUND")
        self.tell("ok" if group.wait(int(words[2]) / 1000) else "t")

    async def op_gremove(self, words):
        from libray.api.placement import remove_placement_group

        group = self.slots.pop(words[1], None)
        if group is None:
            return self.failed(ValueError("no group"), "NOT_FOUND")
        remove_placement_group(group)
        self.tell("ok")

    def remove_groups(self):
        """Of a driver's machine that has ended: one that gave up has left them."""
        from libray.api.placement import PlacementGroup, remove_placement_group

        for thing in self.slots.values():
            if isinstance(thing, PlacementGroup):
                with contextlib.suppress(Exception):  # the node may be dead
                    remove_placement_group(thing)

    def expected(self, words, at):
        return {"any": None, "none": 0, "last": self.versions.get(words[1], 0)}[words[at]]

    async def op_kvput(self, words):
        version = _libray.kv_put("model", words[1].encode(), int(words[2]).to_bytes(8, "little"), self.expected(words, 3))
        self.versions[words[1]] = version
        self.tell(f"k {words[2]} {version}")

    async def op_kvget(self, words):
        found = _libray.kv_get("model", words[1].encode())
        if found is None:
            return self.failed(KeyError(words[1]), "NOT_FOUND")
        tag = int.from_bytes(found[0], "little")
        self.versions[words[1]] = found[1]
        self.acc = mix(self.acc, tag)
        self.tell(f"k {tag} {found[1]}")

    async def op_kvdel(self, words):
        if _libray.kv_get("model", words[1].encode()) is None:
            return self.failed(KeyError(words[1]), "NOT_FOUND")
        _libray.kv_delete("model", words[1].encode(), self.expected(words, 2))
        self.tell("ok")

    # -- beside
    async def op_thread(self, words):
        outer, problem = self.path, []

        def inside():
            was, self.is_async = self.is_async, False
            try:
                for _ in drive(self.steps(body_text(words[1]), outer + ".")):
                    pass
            except BaseException as error:
                problem.append(error)
            finally:
                self.is_async = was

        thread = threading.Thread(target=inside)
        thread.start()
        if self.is_async:
            while thread.is_alive():
                await asyncio.sleep(0.0005)
        thread.join()
        if problem:
            raise problem[0]

    async def op_spawn(self, words):
        if words[1] in self.threads:
            return self.tell("empty")
        beside = Machine(say=self.say, bound=self.bound)
        beside.slots = dict(self.slots)
        prefix = self.path + "."

        def inside():
            for _ in drive(beside.steps(body_text(words[2]), prefix)):
                pass

        self.threads[words[1]] = threading.Thread(target=inside)
        self.threads[words[1]].start()
        self.tell("ok")

    async def op_join(self, words):
        thread = self.threads.pop(words[1], None)
        if thread is None:
            return self.tell("empty")
        thread.join()
        self.tell("ok")

    async def op_fork(self, words):
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)
            status = 0
            try:
                for _ in drive(self.steps(body_text(words[1]), self.path + ".")):
                    pass
            except BaseException:
                status = 1
            os._exit(status)
        self.tell(f"x {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")

    # -- bodies alone
    async def op_arg(self, words):
        at = int(words[1])
        if at >= len(self.args):
            raise Empty
        self.see(self.args[at])

    async def op_argx(self, words):
        at = int(words[1])
        if at >= len(self.args):
            raise Empty
        self.take([] if self.args[at] is None else look(self.args[at])[2], words)

    async def op_ret(self, words):
        value = self.parse(words[2], 2, words)
        self.given[int(words[1])] = value
        return (value,)

    async def op_rets(self, words):
        value = make_value(self.state.sum, 0, [])
        self.given[int(words[1])] = value
        return (value,)

    async def op_yield(self, words):
        return (self.parse(words[1], 1, words),)

    async def op_fail(self, words):
        if len(words) < 2 or self.attempt < int(words[1]):
            raise OnPurpose("on purpose")

    async def op_crash(self, words):
        if len(words) < 2 or self.attempt < int(words[1]):
            os.kill(os.getpid(), signal.SIGKILL)

    async def op_exit(self, words):
        libray.exit_actor()

    async def op_hold(self, words):
        end = time.monotonic() + int(words[1]) / 1e6
        while time.monotonic() < end:
            if self.is_async:
                await asyncio.sleep(0.0005)
            else:
                time.sleep(0.0005)

    async def op_add(self, words):
        with self.state.lock:
            self.state.sum = (self.state.sum + int(words[1])) & MASK
            self.acc = mix(self.acc, self.state.sum)

    async def op_keep(self, words):
        self.state.kept[int(words[1]) & 7] = self.slot(words[2])

    async def op_kept(self, words):
        found = self.state.kept.get(int(words[1]) & 7)
        if found is None:
            raise Empty
        self.slots[words[2]] = found
