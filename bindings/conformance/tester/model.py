"""The sequential model: what each instruction of a program may answer (../SPEC.md)."""
import itertools

from actors import Actor, Constructor, Kill
from outcomes import ANYTHING, CAP, NIL, Done, Failure, Item, Put, Result, Task, Unknown, Value, mixed
from program import MASK, amounts, instructions, mix, options


class Mismatch(Exception):
    """An answer that is none of those that there may be."""


class Invalid(Exception):
    """The program itself is wrong: only shrinking makes such."""


class GaveUp(Exception):
    """The driver waited for something that may indeed never come, and did no more."""


class End(Exception):
    """A body ends before its last instruction."""

    def __init__(self, status):
        super().__init__(status)
        self.status = status


class Run:
    def __init__(self, status, outs, items, children, state):
        self.status, self.outs, self.items, self.children, self.state = status, outs, items, children, state


class Machine:
    """What driver and body share. pick(options) says which of several (answer, effect) it was."""

    def __init__(self, model):
        self.model, self.slots, self.acc = model, {}, 0
        self.task = None

    def slot(self, name):
        found = self.slots.get(name)
        if found is None:
            self.empty()
        return found

    def value(self, word, acc=None, attempt=None):
        parts = word.split(":", 2)
        contents = [self.slot(n) for n in parts[2].split(",")] if len(parts) > 2 else []
        tag = int(parts[0]) & MASK
        return Value(tag if acc is None else mixed(acc, tag, attempt), int(parts[1]), contents)

    def see(self, outcome):
        if outcome is ANYTHING or getattr(outcome, "tag", 0) is None:
            self.acc = None
        elif self.acc is not None:
            self.acc = mix(self.acc, outcome.seen())

    def arguments(self, words):
        found = []
        for w in words:
            if isinstance(w, list) or "=" in w:
                continue
            found.append(self.slot(w) if w[0] == "r" else Put(self.value(w[1:])))
        return found

    # -- values
    def op_put(self, words):
        value = self.value(words[2])
        if value.size > self.model.store:  # one value alone must fit
            self.pick([("e", "STORE_FULL")])
            return
        self.pick([("ok",)])
        self.slots[words[1]] = Put(value)

    def op_drop(self, words):
        for name in words[1:]:
            self.gone(self.slots.pop(name, None))
        self.pick([("ok",)])

    def gone(self, thing):
        if isinstance(thing, Actor):
            if thing.name and not thing.detached and not thing.dropped:  # handles that were found do not keep it
                thing.may_die = True
                thing.add(Kill(may_restart=False, certain=False, unresolved=True))
            thing.dropped = True
        elif isinstance(thing, list) and isinstance(thing[0], Task):  # its producer is cancelled
            self.model.cancel(thing[0], "-")

    def replace(self, slot, actor):
        before = self.slots.pop(slot, None)
        if before is not None:
            self.gone(before)
        if actor is not None:
            self.slots[slot] = actor

    def op_copy(self, words):
        thing = self.slot(words[2])
        self.pick([("ok",)])
        self.slots[words[1]] = thing

    def content(self, outcome, words):
        """Of elem and argx: the answer and what comes into the slot."""
        index = int(words[2])
        if index >= len(outcome.contents):
            return ("e", "INVALID_ARGUMENT"), None
        thing = outcome.contents[index]
        if isinstance(thing, Actor) != (words[3][0] == "a"):
            return ("e", "INVALID_ARGUMENT"), None
        return ("ok",), thing

    # -- submitting
    def new_task(self, words, first, n_outs, is_stream=False, actor=None):
        task = Task(self.model, words[1], words[-1], self.arguments(words[first:]), words[first:], n_outs, self.task,
                    is_stream, actor)
        if "group" in task.opts:
            task.group = self.slot(task.opts["group"])
        self.created(task)
        return task

    def op_task(self, words):
        outs = [] if words[2] == "-" else words[2].split(",")
        task = self.new_task(words, 3, len(outs))
        self.pick([("ok",)])
        for i, name in enumerate(outs):
            self.slots[name] = Result(task, i)

    def op_stream(self, words):
        task = self.new_task(words, 3, 1, True)
        self.pick([("ok",)])
        self.gone(self.slots.get(words[2]))
        self.slots[words[2]] = [task, 0]

    def op_call(self, words):
        actor = self.slot(words[2])
        outs = [] if words[3] == "-" else words[3].split(",")
        task = self.new_task(words, 4, len(outs), False, actor)
        self.pick([("ok",)])
        self.call_made(actor, task)
        for i, name in enumerate(outs):
            self.slots[name] = Result(task, i)

    def op_callstream(self, words):
        actor = self.slot(words[2])
        task = self.new_task(words, 4, 1, True, actor)
        self.pick([("ok",)])
        self.call_made(actor, task)
        self.gone(self.slots.get(words[3]))
        self.slots[words[3]] = [task, 0]

    def call_made(self, actor, task):
        if not task.nested:
            actor.add(task)

    def op_actor(self, words):
        opts = options(words)
        ctor = Constructor(self.model, words[1], words[-1], self.arguments(words[3:]), words, self.task)
        actor = Actor(self.model, words[1], opts, ctor)
        ctor.actor_model = actor
        existing = self.model.names.get(actor.name) if actor.name else None
        if existing is None or existing.killed:
            certain = existing is None or existing.told_dead()
            self.pick([("ok",)] + ([] if certain else [("e", "ALREADY_EXISTS")]), last=self.name_taken)
            if self.last[0] != "ok":
                return
        else:
            gone = existing.may_die or existing.dropped and not existing.detached or ("dead",) in existing.initial(0)
            self.pick([("e", "ALREADY_EXISTS")] + ([("ok",)] if gone else []))
            if self.last[0] != "ok":
                return
        if actor.name:
            self.model.names[actor.name] = actor
        self.created_actor(actor)
        self.replace(words[2], actor)

    def name_taken(self):
        return None

    def op_sleep(self, words):
        self.pick([("ok",)])

    op_spin = op_sleep

    def op_fork(self, words):
        self.pick([("x", "0")])

    def op_thread(self, words):
        self.run(words[1], inside=True)

    # -- key-value
    def unsure(self, words):
        """With a shard dead or slow a call may be given up: what the key then holds is not known."""
        line = self.lines[0] if getattr(self, "lines", None) else None
        if line and self.model.shards and (line == ["t"] or line[:2] == ["e", "UNAVAILABLE"]):
            self.model.keys[words[1]] = "unknown"
        return self.model.keys.get(words[1]) == "unknown"

    def op_kvput(self, words):
        if self.unsure(words):
            return
        tag, version = self.model.keys.get(words[1], (None, 0))
        want = words[3]
        known = self.versions().get(words[1], 0)
        if want == "any" or want == "none" and tag is None or want == "last" and known == version and tag is not None \
                or want == "last" and tag is None and known == 0:
            self.pick([("k", words[2], None)])
            fresh = int(self.last[2]) if self.last[2] is not None else version + 1
            if fresh <= self.model.highest.get(words[1], 0):
                raise Mismatch(f"version {fresh} of {words[1]} was there before")
            self.model.highest[words[1]] = fresh
            self.model.keys[words[1]] = (int(words[2]), fresh)
            self.versions()[words[1]] = fresh
        else:
            self.pick([("e", "CONFLICT")])

    def op_kvget(self, words):
        if self.unsure(words):
            self.acc = None
            return
        tag, version = self.model.keys.get(words[1], (None, 0))
        if tag is None:
            self.pick([("e", "NOT_FOUND")])
        else:
            self.pick([("k", str(tag), str(version))])
            self.versions()[words[1]] = version
            self.acc = None if self.acc is None else mix(self.acc, tag)

    def op_kvdel(self, words):
        if self.unsure(words):
            return
        tag, version = self.model.keys.get(words[1], (None, 0))
        if tag is None:
            self.pick([("e", "NOT_FOUND")] + ([("e", "CONFLICT")] if words[2] == "last" else []))
        elif words[2] == "any" or self.versions().get(words[1], 0) == version:
            self.pick([("ok",)])
            self.model.keys[words[1]] = (None, 0)
        else:
            self.pick([("e", "CONFLICT")])

    def versions(self):
        return self.model.known.setdefault(id(self), {})


class Body(Machine):
    """One possible run of a body; `choose(n)` takes one of n possibilities."""

    def __init__(self, model, task, combination, attempt, state, choose):
        super().__init__(model)
        self.task, self.args, self.attempt, self.state, self.choose = task, combination, attempt, state, choose
        self.outs, self.items, self.children = {}, [], []

    def empty(self):
        raise End("failed")

    def created(self, task):
        self.children.append(task)
        if self.task.recursive and isinstance(task, Task):
            task.cancelled = task.recursive = True
            task.force = self.task.force

    def created_actor(self, actor):
        actor.nested = True
        self.children.append(actor)

    def pick(self, possible, last=None):
        self.last = possible[self.choose(len(possible))]
        if self.last[0] == "e":
            raise End("failed")
        return self.last

    def run(self, program, inside=False):
        for words in program:
            operation = getattr(self, "op_" + words[0], None)
            if operation is None:
                raise Invalid(f"{words[0]} in a body")
            operation(words)

    def play(self):
        status = "ok"
        try:
            self.run(self.task.body)
        except End as end:
            status = end.status
        return Run(status, self.outs, self.items, self.children, self.state)

    def op_get(self, words):
        for name in words[1:]:
            thing = self.slot(name)
            if isinstance(thing, Result):
                thing.task.waited = True
            outcomes = thing.outcomes()
            values = [o for o in outcomes if not isinstance(o, Failure)]
            may_fail = len(values) < len(outcomes) or ANYTHING in values
            at = self.choose(len(values) + (1 if may_fail else 0))
            if at == len(values):
                raise End("failed")
            self.see(values[at])

    def op_wait(self, words):
        for name in words[3:]:
            self.slot(name)

    def op_elem(self, words):
        outcomes = self.slot(words[1]).outcomes()
        outcome = outcomes[self.choose(len(outcomes))]
        if isinstance(outcome, Failure):
            raise End("failed")
        if outcome is ANYTHING:
            raise End("any")
        answer, thing = self.content(outcome, words)
        if answer[0] == "e":
            raise End("failed")
        self.slots[words[3]] = thing

    def op_next(self, words):
        stream = self.slot(words[1])
        more = any(w.out(stream[1]) is not None for w in stream[0].worlds())
        if stream[0].may_end(stream[1]) and (not more or self.choose(2)):
            self.acc = mix(self.acc, 7) if self.acc is not None else None
            self.slots.pop(words[2], None)
            return
        self.slots[words[2]] = Item(stream[0], stream[1])
        stream[1] += 1

    def op_arg(self, words):
        at = int(words[1])
        if at >= len(self.args):
            raise End("failed")
        self.see(self.args[at])

    def op_argx(self, words):
        at = int(words[1])
        if at >= len(self.args):
            raise End("failed")
        if self.args[at] is ANYTHING:
            raise End("any")
        answer, thing = self.content(self.args[at], words)
        if answer[0] == "e":
            raise End("failed")
        self.slots[words[3]] = thing

    def made(self, words, at):
        attempt = self.attempt if len(words) > at + 1 and words[at + 1] == "a" else None
        if self.acc is None:
            value = self.value(words[at])
            value.tag = None
            return value
        return self.value(words[at], self.acc, attempt)

    def op_ret(self, words):
        self.outs[int(words[1])] = self.made(words, 2)
        self.enough()

    def op_reterr(self, words):
        if self.task.language == "python":  # which knows no such thing
            raise End("failed")
        self.outs[int(words[1])] = Failure("TASK_FAILED")

    def op_rets(self, words):
        self.outs[int(words[1])] = Value(self.state[1], 0) if self.state else ANYTHING
        self.enough()

    def enough(self):
        """In Python a function with several results is a generator, which is not resumed after the last of them."""
        if self.task.one_by_one() and all(i in self.outs for i in range(self.task.n_outs)):
            raise End("ok")

    def op_yield(self, words):
        self.items.append(self.made(words, 1))

    def op_fail(self, words):
        if len(words) < 2 or self.attempt < int(words[1]):
            raise End("failed")

    def op_crash(self, words):
        if len(words) < 2 or self.attempt < int(words[1]):
            self.model.lossy_now()
            raise End("crashed")

    def op_exit(self, words):
        raise End("died")

    def op_hold(self, words):
        return

    def op_add(self, words):
        if self.state is None:
            self.acc = None
            return
        up, total, kept, left = self.state
        total = (total + int(words[1])) & MASK
        self.state = (up, total, kept, left)
        if self.acc is not None:
            self.acc = mix(self.acc, total)

    def op_keep(self, words):
        thing = self.slot(words[2])
        if self.state is not None:
            up, total, kept, left = self.state
            at = int(words[1]) & 7
            self.state = (up, total, kept[:at] + (thing,) + kept[at + 1:], left)

    def op_kept(self, words):
        if self.state is None:
            raise Invalid("kept by a call of another process")
        thing = self.state[2][int(words[1]) & 7]
        if thing is None:
            raise End("failed")
        self.slots[words[2]] = thing


OWN = 4096  # bytes: values of that size are kept in the process that puts them


def failed(line):
    """Whether an answer is of an error."""
    return line[0] == "e" or line[0] == "told" and any(code != "OK" for code in line[1:])


def still_fits(thing, line):
    """Whether a get of it may answer so after the node died: an item was an error, a small value lies in the process."""
    if isinstance(thing, Failure):
        return failed(line)
    own = isinstance(thing, Put) and not thing.travelled and not thing.value.contents and thing.value.size <= OWN
    return not own or thing.value.fits(line)


def names_in(words):
    for w in words:
        if isinstance(w, list):
            yield from names_in(w)
        else:
            yield from w.split(",")


class Driver(Machine):
    """A driver's machine; answers(path) gives what it said."""

    def __init__(self, model, answers, task=None):
        super().__init__(model)
        self.answers, self.path, self.lines, self.is_other = answers, "", [], False
        self.ahead = []            # instructions after this one
        self.node_may_die = False  # a thread: the node is killed while it runs, before any of its instructions
        self.node_is_dead = False  # for this machine: an answer of the thread showed it
        self.beside = False        # other threads run, or have run, beside this one
        self.own = set()           # what this one saw ready, or had ready when the first of them began

    def created(self, task):
        if any(w[0] in ("crash", "exit") for w in instructions(task.body)):
            self.model.lossy_now()
        task.of_other_driver = self.is_other
        self.model.tasks.append(task)

    def created_actor(self, actor):
        self.model.actors.append(actor)
        if self.model.kills:  # it may get a worker whose death the daemon has yet to learn of
            actor.add(Kill(True, False, True))
            actor.may_die = True

    def empty(self):
        raise Mismatch("empty")

    def run(self, program, prefix="", inside=False):
        prefix = self.path + "." if inside else prefix
        outer = self.path
        for index, words in enumerate(program):
            self.path = f"{prefix}{index}"
            self.lines = self.answers(self.path)
            self.ahead = program[index + 1:]
            self.step(words)
        self.path = outer

    def step(self, words):
        operation = getattr(self, "op_" + words[0], None)
        if operation is None:
            raise Invalid(f"{words[0]} in a driver")
        if self.model.node_is_dead or self.node_is_dead:
            self.after_death(words)
            return
        lines = list(self.lines)
        try:
            operation(words)
        except Mismatch as wrong:
            if self.node_may_die and (words[0] == "next" and lines in ([["ok"]], [["end"]])
                                      or any(failed(line) for line in lines)):
                self.node_is_dead = True
                self.lines = lines
                self.after_death(words)
                if lines == [["ok"]]:  # the item that follows the last one is the generator's error, and then it is at its end
                    self.slots[words[2]] = Failure("NODE_DIED")
                return
            if str(wrong) == "empty":
                if self.lines and self.lines[0][0] == "empty":
                    return
                wrong = Mismatch(f"answered {self.lines}, its slot is empty")
            where = f"{self.path}: {' '.join(str(w) if not isinstance(w, list) else '[...]' for w in words)}"
            raise Mismatch(f"{where}\n    {wrong}") from None

    def after_death(self, words):
        """What comes now is an error, or was there before; but it comes, and small values that were put are there."""
        if ["t"] in self.lines and words[0] in ("get", "told", "elem"):
            raise Mismatch(f"{self.path}: {words[0]} waits though the node is dead")
        if words[0] in ("get", "told", "wait", "try"):
            thing = self.slots.get(words[1]) if words[0] == "get" and len(words) == 2 else None
            if self.lines and not still_fits(thing, self.lines[0]):
                raise Mismatch(f"{self.path}: {' '.join(words)}\n    answered '{' '.join(self.lines[0])}' after the node died, "
                               f"but only {thing.outcomes() if isinstance(thing, Put) else 'an error'} may be")
            return
        for name in names_in(words):  # what is in these slots now is not followed
            self.slots.pop(name, None)

    def over(self):
        """The machine has ended: its streams are dropped."""
        for thing in list(self.slots.values()):
            if isinstance(thing, list):
                self.gone(thing)

    def next_line(self):
        if not self.lines:
            raise Mismatch("no answer")
        line = self.lines.pop(0)
        return line

    def pick(self, possible, last=None):
        line = self.next_line()
        for p in possible:
            if all(i < len(line) and (w is None or line[i] == w) for i, w in enumerate(p)):
                self.last = line
                return line
        raise Mismatch(f"answered '{' '.join(line)}', but only {possible} may be")

    def observed(self, thing):
        """Takes a line as the answer of a get of it; returns what it turned out to be."""
        line = self.next_line()
        if line[0] == "t":
            if not thing.may_wait():
                raise Mismatch("did not become ready in time")
            raise GaveUp
        if line[0] == "e" and self.model.explains(line[1], thing):
            return Failure(line[1])
        possible = thing.outcomes()
        outcome = thing.observe(line)
        if outcome is None:
            raise Mismatch(f"answered '{' '.join(line)}', but only {possible} may be")
        if hasattr(thing, "complete") and not isinstance(thing, (Put, Result, Item)):
            thing.complete = True
        self.own.add(id(thing))
        return outcome

    def sure(self, thing):
        """Whether it was ready before this thread's next instruction: what another thread saw may have come later."""
        return thing.complete and (not self.beside or isinstance(thing, Put) or id(thing) in self.own)

    def op_get(self, words):
        things = [self.slot(n) for n in words[1:]]
        if len(things) > 1:
            if not self.lines or self.lines[0][0] != "values":
                line = self.next_line()
                if line[0] == "t" and any(t.may_wait() for t in things):
                    raise GaveUp
                if line[0] == "e" and any(o.fits(line) for t in things for o in t.outcomes()):
                    return
                raise Mismatch(f"answered '{' '.join(line)}', but only {[t.outcomes() for t in things]} may be")
            self.lines.pop(0)
        for thing in things:
            self.observed(thing)

    def op_try(self, words):
        thing = self.slot(words[1])
        if self.lines and self.lines[0][0] == "t" and not self.sure(thing):
            self.lines.pop(0)
            return
        self.observed(thing)

    def op_wait(self, words):
        things = [self.slot(n) for n in words[3:]]
        want, ms = int(words[1]), int(words[2])
        line = self.next_line()
        if len({id(t) for t in things}) < len(things) or want > len(things) or line[0] != "w":
            if line[:2] == ["e", "INVALID_ARGUMENT"]:
                return
            raise Mismatch(f"answered '{' '.join(line)}'")
        count, mask = int(line[1]), line[2]
        known = [self.sure(t) for t in things]
        marked = [m == "1" for m in mask]
        if count != sum(marked) or count > want:
            raise Mismatch(f"answered '{' '.join(line)}' for {want}")
        if ms < 0 and count < want and not any(t.may_wait() for t in things):
            raise Mismatch(f"answered '{' '.join(line)}': {want} should have become ready")
        if ms < 0 and count < want:
            raise GaveUp
        for i, ready in enumerate(known):
            if ready and not marked[i] and sum(marked[:i]) < want and count < want:
                raise Mismatch(f"answered '{' '.join(line)}': number {i} was ready before")
        for t, m in zip(things, marked):
            if m:
                self.own.add(id(t))
            if m and isinstance(t, Result):
                t.task.ended()
            elif m and isinstance(t, Done):
                t.complete = True

    def op_told(self, words):
        things = [self.slot(n) for n in words[1:]]
        line = self.next_line()
        if line[0] == "t" and any(t.may_wait() for t in things):
            raise GaveUp
        if line[0] != "told" or len(line) != len(things) + 1:
            raise Mismatch(f"answered '{' '.join(line)}'")
        for thing, code in zip(things, line[1:]):
            possible = {o.code if isinstance(o, Failure) else "any" if o is ANYTHING else "OK" for o in thing.outcomes()}
            if code not in possible and "any" not in possible:
                raise Mismatch(f"answered '{' '.join(line)}', but only {possible} may be")
            if isinstance(thing, Result):
                thing.task.ended()

    def op_elem(self, words):
        thing = self.slot(words[1])
        line = self.lines[0] if self.lines else self.next_line()
        good = []
        for outcome in thing.outcomes():
            if isinstance(outcome, Failure):
                good.append((("e", outcome.code), None))
            elif outcome is ANYTHING:
                good += [(("ok",), Unknown()), (("e", None), None)]
            else:
                good.append(self.content(outcome, words))
        self.pick([g[0] for g in good] + ([("t",)] if thing.may_wait() else []))
        if line[0] == "t" or words[3][0] == "a" and ANYTHING in thing.outcomes():
            raise GaveUp
        if isinstance(thing, Result):
            thing.task.ended()
        if line[0] == "ok":
            self.slots[words[3]] = found = next(g[1] for g in good if g[0] == ("ok",))
            if isinstance(found, Put):
                found.travelled = True

    def op_next(self, words):
        stream = self.slot(words[1])
        task, at = stream
        more, end = any(w.out(at) is not None for w in task.worlds()), task.may_end(at)
        possible = ([("ok",)] if more else []) + ([("end",)] if end else [])
        if int(words[3]) >= 0 or task.may_wait():
            possible.append(("t",))
        if self.lines and self.lines[0][0] == "e" and task.cancelled:
            possible.append(("e", "CANCELLED"))
        self.pick(possible)
        if self.last[0] == "t" and int(words[3]) < 0:
            raise GaveUp
        if self.last[0] == "end":
            task.length_seen, task.complete = (at, True), True
            self.slots.pop(words[2], None)
            task.dirty()
        elif self.last[0] == "ok":
            task.length_seen = (at + 1, False)
            stream[1] += 1
            self.slots[words[2]] = Item(task, at)
            if end:
                task.dirty()

    def op_scancel(self, words):
        task = self.slot(words[1])[0]
        self.pick([("ok",)])
        self.model.cancel(task, words[2])

    def op_sdone(self, words):
        task = self.slot(words[1])[0]
        self.pick([("ok",)])
        self.slots[words[2]] = Done(task)

    def op_cancel(self, words):
        thing = self.slot(words[1])
        if isinstance(thing, (Put, Item, Done, Unknown)):
            self.pick([("ok",), ("e", "INVALID_ARGUMENT"), ("e", "NOT_FOUND"), ("e", "UNSUPPORTED")])
            return
        if thing.task.actor is not None and "f" in words[2]:
            self.pick([("e", "UNSUPPORTED"), ("ok",)])  # ok: it has ended
            return
        self.pick([("ok",)])
        self.model.cancel(thing.task, words[2])

    def op_find(self, words):
        actor = self.model.names.get(words[1])
        possible = []
        if actor is not None and not (actor.killed and actor.told_dead()):
            possible.append(("ok",))
        if actor is None or actor.killed or actor.may_die or actor.dropped and not actor.detached \
                or ("dead",) in actor.initial(0):
            possible.append(("e", "NOT_FOUND"))
        self.pick(possible)
        self.replace(words[2], actor if self.last[0] == "ok" else None)

    def op_kill(self, words):
        actor = self.slot(words[1])
        self.pick([("ok",)] + ([("e", "ACTOR_DIED"), ("e", "NOT_FOUND")] if actor.may_die or actor.killed else []))
        self.model.kill_actor(actor, words[2] == "1")

    def op_pump(self, words):
        thing = self.slot(words[2])
        self.pick([("y",)] + ([("n",)] if thing.may_wait() else []))

    # -- groups
    def op_group(self, words):
        self.pick([("ok",)])
        self.slots[words[1]] = self.model.group([amounts(b) for b in words[3].split("/")], int(words[2]))

    def op_gwait(self, words):
        group = self.slots.get(words[1])
        if group is None or group.removed:
            self.pick([("e", "NOT_FOUND")])
        else:
            self.pick([("ok",)] + ([("t",)] if group.may_wait() else []))

    def op_gremove(self, words):
        group = self.slots.pop(words[1], None)
        if group is None:
            self.pick([("e", "NOT_FOUND")])
            return
        self.pick([("ok",)])
        self.model.remove_group(group)

    # -- beside
    def op_spawn(self, words):
        self.pick([("ok",)])
        beside = Driver(self.model, self.answers)
        beside.slots = {k: v for k, v in self.slots.items() if not isinstance(v, list)}
        if not self.beside:
            self.own.update(id(v) for v in self.slots.values() if getattr(v, "complete", False))
        self.beside, beside.beside = True, True
        beside.own = set(self.own)
        until = itertools.takewhile(lambda w: w[:2] != ["join", words[1]], self.ahead)
        beside.node_may_die = self.node_may_die or any(w[:2] == ["fault", "node"] for w in until)
        beside.run(words[2], prefix=self.path + ".")
        beside.over()

    def op_join(self, words):
        self.pick([("ok",), ("empty",)])

    def op_fork(self, words):
        self.pick([("x", "0")])

    def op_driver(self, words):
        other = Driver(self.model, self.answers)
        other.is_other = True
        try:
            other.run(words[2], prefix=self.path + ".")
        except Mismatch as wrong:  # it may not have come that far
            ends = [" ".join(line) for path in (self.path + ".join", self.path) for line in self.answers(path)]
            raise Mismatch(f"{wrong}\n    the other driver: {ends}") from None
        other.over()
        self.lines = self.answers(self.path)
        self.pick([("x", "1009" if words[1] == "die" else "0")])

    def op_fault(self, words):
        self.pick([("ok",), ("no",)])
        self.model.fault(words[1])


class Group:
    def __init__(self, model, bundles, strategy):
        self.model, self.bundles, self.strategy, self.removed = model, bundles, strategy, False

    def needs(self):
        total = {}
        for b in self.bundles:
            for name, amount in b.items():
                total[name] = total.get(name, 0) + amount
        return total

    def may_wait(self):
        return self.strategy == 3 and len(self.bundles) > 1 or not self.model.fits(self.needs(), but=self)


class Model:
    """All that a session's programs have made so far."""

    def __init__(self, capacity, store=1 << 40, driver="c"):
        self.capacity, self.store, self.driver = capacity, store, driver
        self.names, self.keys, self.known, self.highest = {}, {}, {}, {}
        self.node_is_dead = False
        self.epoch = 0  # of cancellations, kills and deaths: what may have been different before
        self.begin()

    def begin(self):
        """A new program: what the last one made is gone, but for names and keys."""
        self.tasks, self.actors, self.groups = [], [], []
        self.kills = self.shards = 0  # of workers, of shards, so far
        self.lossy = False            # a process may have died with what it was to make for others

    # -- possibilities
    def combinations(self, lists):
        n = 1
        for one in lists:
            n *= len(one)
        if n > CAP:
            return [tuple(ANYTHING if len(one) > 1 else one[0] for one in lists)]
        return list(itertools.product(*lists))

    def evaluate(self, task, combination, attempt, state):
        key = (attempt, tuple(o.key() for o in combination), state, self.lossy, self.epoch)
        if key in task.made:
            return task.made[key]
        runs, todo = [], [[]]
        while todo:
            prefix, trace = todo.pop(), []

            def choose(n):
                if n <= 1:
                    return 0
                at = prefix[len(trace)] if len(trace) < len(prefix) else 0
                if len(trace) >= len(prefix):
                    todo.extend(trace + [k] for k in range(1, n))
                trace.append(at)
                return at

            runs.append(Body(self, task, combination, attempt, state, choose).play())
            if len(runs) > CAP:
                break
        task.made[key] = runs
        return runs

    # -- room
    def fits(self, needs, but=None):
        """Whether it has room, whichever of the actors that may have died are dead: a group may have got their room."""
        holders = [a for a in self.actors if not a.killed and a is not but and a.needs]
        unsure = [a for a in holders if a.may_die]
        if len(unsure) > 6:
            return False
        return all(self.fits_beside([a for a in holders if a not in dead], needs, but)
                   for n in range(len(unsure) + 1) for dead in itertools.combinations(unsure, n))

    def fits_beside(self, actors, needs, but):
        held = {}
        for actor in actors:
            for name, amount in actor.needs.items():
                held[name] = held.get(name, 0) + amount

        def room(wanted):
            return all(self.capacity.get(n, 0) - held.get(n, 0) >= amount - 1e-9 for n, amount in wanted.items())

        for group in self.groups:  # one that has no room beside the actors waits and holds nothing
            if not group.removed and group is not but and room(group.needs()):
                for name, amount in group.needs().items():
                    held[name] = held.get(name, 0) + amount
        return room(needs)

    def blocked(self):
        """Whether a generator may wait for its reader, and keep what it runs on."""
        return any("window" in t.opts and not (t.length_seen and t.length_seen[1]) and not t.cancelled for t in self.tasks)

    def may_wait(self, task):
        if self.blocked():
            return True
        if task.cancelled:
            return False
        if task.group is not None:
            return not task.group.removed and task.group.may_wait()
        return not self.fits(task.needs)

    def may_wait_actor(self, actor):
        return self.blocked() or not actor.killed and not self.fits(actor.needs, but=actor)

    # -- events
    def cancel(self, task, flags):
        if task.complete and (not task.is_stream or task.length_seen and task.length_seen[1]):
            return
        self.epoch += 1
        task.cancelled = True
        task.force = task.force or "f" in flags
        if "f" in flags:
            self.lossy_now()
        if "r" in flags:
            task.recursive = True
            for runs in list(task.made.values()):
                for run in runs:
                    for child in run.children:
                        if isinstance(child, Task):
                            self.cancel(child, flags)
        task.dirty()
        task.cached = None

    def kill_actor(self, actor, may_restart):
        self.epoch += 1
        self.lossy_now()
        unresolved = False
        for call in actor.entries:
            if isinstance(call, Task) and not call.complete:
                call.kills += 1
                call.for_good = call.for_good or not may_restart
                call.dirty()
                unresolved = True
        kill = Kill(may_restart, True, unresolved)
        # Whether a process that has yet to start is killed too when it may restart, is left open.
        kill.started = not may_restart or any(isinstance(c, Task) and c.complete for c in actor.entries)
        actor.add(kill)
        actor.may_die = True
        if not may_restart or actor.restarts == 0:
            actor.killed = True

    def lossy_now(self):
        self.lossy = True

    def group(self, bundles, strategy):
        found = Group(self, bundles, strategy)
        self.groups.append(found)
        return found

    def remove_group(self, group):
        group.removed = True
        self.epoch += 1
        self.lossy_now()
        for task in self.tasks:
            if task.group is group and not task.complete:
                task.removed = True
                task.dirty()

    def fault(self, kind):
        if kind in ("shard", "slow"):
            self.shards += 1
        if kind == "node":
            self.node_is_dead = True
        if kind != "kill":
            return
        self.lossy_now()
        self.epoch += 1
        self.kills += 1
        for task in self.tasks:
            if not task.complete and task.actor is None:
                task.kills += 1
                task.dirty()
        for actor in self.actors:
            for call in actor.entries:
                if isinstance(call, Task) and not call.complete:
                    call.kills += 1
                    call.dirty()
            actor.add(Kill(True, False, True))
            actor.may_die = True

    def explains(self, code, thing):
        """Codes that need no world of their own."""
        return False


def told_dead(actor):
    return any(isinstance(e, Task) and any(a[:2] == ["e", "ACTOR_DIED"] for a in e.seen.values()) for e in actor.entries)


Actor.told_dead = told_dead
assert NIL
