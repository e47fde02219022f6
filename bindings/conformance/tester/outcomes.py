"""What a reference may turn out to be: values, nil, errors, and tasks with several possible worlds."""
from program import amounts, mix, options

CAP = 48  # more possible worlds than this are not told apart: anything goes then


class Value:
    """A tag, a size, and what is inside: objects and actors. `tag` None: any."""

    def __init__(self, tag, size, contents=()):
        self.tag, self.size, self.contents = tag, size, tuple(contents)

    def fits(self, answer):
        return answer[0] == "v" and (self.tag is None or int(answer[1]) == self.tag) \
            and int(answer[2]) == self.size and int(answer[3]) == len(self.contents)

    def seen(self):
        return self.tag + self.size

    def key(self):
        return ("v", self.tag, self.size, self.contents)

    def __repr__(self):
        return f"v {self.tag} {self.size} {len(self.contents)}"


class Nil:
    contents = ()

    def fits(self, answer):
        return answer[0] == "nil"

    def seen(self):
        return 1

    def key(self):
        return ("nil",)

    def __repr__(self):
        return "nil"


class Failure:
    def __init__(self, code):
        self.code = code

    def fits(self, answer):
        return answer[0] == "e" and answer[1] == self.code

    def key(self):
        return ("e", self.code)

    def __repr__(self):
        return f"e {self.code}"


class Anything:
    """When the possible worlds were too many."""
    contents = ()

    def fits(self, answer):
        return answer[0] in ("v", "nil", "e")

    def key(self):
        return ("any",)

    def __repr__(self):
        return "anything"


NIL, ANYTHING = Nil(), Anything()


def unique(outcomes):
    found = {}
    for o in outcomes:
        found.setdefault(o.key(), o)
    return list(found.values())


class Put:
    """A reference whose value is known."""
    complete = True
    nested = travelled = False  # travelled: it was taken out of another value, and may lie in the store
    label = None

    def __init__(self, value):
        self.value = value

    def outcomes(self):
        return [self.value]

    def observe(self, answer):
        return self.value if self.value.fits(answer) else None

    def may_wait(self):
        return False


class Unknown:
    """A reference that was found in a value which could be anything."""
    complete, nested, label = False, False, None

    def outcomes(self):
        return [ANYTHING]

    def observe(self, answer):
        return ANYTHING

    def may_wait(self):
        return True


class World:
    """One way in which a task may have gone."""

    def __init__(self, outs, status, runs=1, children=(), before=None, after=None):
        self.outs, self.status, self.runs, self.children = outs, status, runs, children
        self.before, self.after = before, after

    def key(self):
        return (tuple(o.key() for o in self.outs), self.status, self.before, self.after)

    def out(self, index):
        """Result or item `index`, None if there is none."""
        if self.status == "any":
            return ANYTHING
        return self.outs[index] if index < len(self.outs) else None


class Task:
    """A task, a call or a generator: its possible worlds follow from its body and its arguments, and shrink with each
    answer that was seen."""

    def __init__(self, model, label, body, args, words, n_outs, parent, is_stream=False, actor=None):
        self.model, self.label, self.body, self.args, self.parent = model, label, body, args, parent
        self.opts, self.n_outs, self.is_stream, self.actor = options(words), n_outs, is_stream, actor
        self.language = actor.language if actor is not None else self.opts.get("lang", model.driver)
        default = -2 if actor is None else 0
        retries = int(self.opts.get("retries", default))
        if actor is not None and "retries" not in self.opts:
            retries = actor.again
        self.retries = {-1: 1000, -2: 3}.get(retries, retries)
        self.needs = amounts(self.opts["res"]) if "res" in self.opts else {"CPU": 1.0}
        self.cancelled = self.force = self.recursive = self.removed = False
        self.group = None         # placement group
        self.kills = 0            # deaths that may have hit it
        self.for_good = False     # one of them ended its actor
        self.complete = False     # an end was seen
        self.nested = parent is not None
        self.waited = False       # by the body that submitted it
        self.refusable = False    # a call: its actor may have been restarting when it was made
        self.seen = {}            # index -> answer
        self.length_seen = None   # streams: (items, ended)
        self.users, self.made = [], {}
        self.cached, self.epoch = None, model.epoch
        for a in args:
            if isinstance(a, (Result, Item)):
                a.task.users.append(self)
        if actor is not None:
            actor.users.append(self)

    # -- worlds
    def dirty(self):
        if self.cached is None and self.actor is None:
            return
        self.cached = None
        if self.actor is not None:
            self.actor.dirty(self)
        for user in self.users:
            user.dirty()

    def worlds(self):
        if self.actor is not None and not self.nested:
            if self.cached is None or self.actor.epoch != self.model.epoch:
                self.actor.compute()
        elif self.cached is None or self.epoch != self.model.epoch and not self.complete:
            self.epoch = self.model.epoch  # else something happened since that may have changed it
            self.cached = self.filtered(self.natural(None))
        return self.cached

    def filtered(self, worlds):
        good = {}
        for w in worlds:
            if all(w.out(i) is not None and w.out(i).fits(a) for i, a in self.seen.items()) and self.fits_length(w):
                good.setdefault(w.key(), w)
        return list(good.values())

    def may_end(self, n):
        """Whether a generator may have had n items, or fewer."""
        return any(w.status == "any" or len(w.outs) <= n for w in self.worlds())

    def fits_length(self, w):
        if self.length_seen is None or w.status == "any":
            return True
        n, ended = self.length_seen
        return len(w.outs) == n if ended else len(w.outs) >= n

    def all_outs(self, outcome):
        return [outcome] if self.is_stream else [outcome] * max(self.n_outs, 1)

    def natural(self, state):
        """Worlds from this state of the actor (None: no actor's state)."""
        worlds = []
        for combination in self.model.combinations([a.outcomes() for a in self.args]):
            failures = [o for o in combination if isinstance(o, Failure)]
            if any(o is ANYTHING for o in combination):
                worlds.append(World(self.all_outs(ANYTHING), "any", before=state, after=state))
            elif failures:
                for f in failures:
                    worlds.append(World(self.all_outs(f), "dependency", 0, before=state, after=state))
            else:
                worlds += self.attempts(combination, state)
        if self.cancelled:
            worlds += self.when_cancelled(worlds, state)
        if self.removed:
            worlds += [World(self.all_outs(Failure(c)), "refused") for c in ("GROUP_REMOVED", "WORKER_CRASHED")]
        tried = max((w.runs - 1 for w in worlds), default=0)  # retries that failures may have used up
        if self.kills and self.kills + tried > self.retries and self.actor is None:
            worlds += [World(outs, "crashed") for outs in self.cut_off(worlds, "WORKER_CRASHED")]
        if self.nested and self.model.lossy:
            worlds += [World(self.all_outs(Failure(c)), "lost") for c in ("OBJECT_LOST", "WORKER_CRASHED")]
        return worlds if len(worlds) <= CAP else [World(self.all_outs(ANYTHING), "any", before=state, after=state)]

    def cut_off(self, worlds, error):
        """What there may be of a task whose process was killed: of a generator some items too."""
        outs = [self.all_outs(Failure(error))]
        if self.is_stream:
            outs += [w.outs[:n] + [Failure(error)] for w in worlds for n in range(1, len(w.outs) + 1)
                     if w.status != "any" and not isinstance(w.outs[n - 1], Failure)]
        return outs

    def attempts(self, combination, state):
        worlds, todo = [], [0]
        last = 0
        while todo:
            attempt = todo.pop()
            last = max(last, attempt)
            for run in self.model.evaluate(self, combination, attempt, state):
                again = attempt < self.retries
                if run.status == "failed" and "roe" in self.opts and again \
                        or run.status == "crashed" and again and self.actor is None:
                    if attempt + 1 not in todo:
                        todo.append(attempt + 1)
                    if not self.cancelled:
                        continue
                worlds.append(World(self.outs_of(run), run.status, attempt + 1, run.children, state, run.state))
        kills = self.model.kills if self.nested else self.kills
        for attempt in range(last + 1, last + 1 + min(kills, self.retries - last)):
            for run in self.model.evaluate(self, combination, attempt, state):
                worlds.append(World(self.outs_of(run), run.status, attempt + 1, run.children, state, run.state))
        return worlds

    def outs_of(self, run):
        error = {"failed": "TASK_FAILED", "crashed": "WORKER_CRASHED", "cancelled": "CANCELLED"}.get(run.status)
        if self.is_stream:
            return run.items + ([Failure(error)] if error else [])
        if error:
            return self.partial(run, error)
        return [run.outs.get(i, NIL) for i in range(max(self.n_outs, 1))]

    def partial(self, run, error):
        """Those that were given one by one before the failure stay, unless it was to be tried again."""
        outs = self.all_outs(Failure(error))
        if self.one_by_one() and run.status == "failed" and "roe" not in self.opts:
            for i in range(self.n_outs):
                if i not in run.outs:
                    break
                outs[i] = run.outs[i]
        return outs

    def one_by_one(self):
        """Whether its results leave the body one after the other, as those of a generator in Python do."""
        asynchronous = self.actor is not None and self.actor.kind == "asyncio"
        return self.language == "python" and self.n_outs > 1 and not self.is_stream and not asynchronous

    def when_cancelled(self, worlds, state):
        codes = ["CANCELLED"] + (["WORKER_CRASHED"] if self.force else [])
        more = []
        afters = {state} | {w.after for w in worlds}
        for code in codes:
            for after in afters:
                more.append(World(self.all_outs(Failure(code)), "cancelled", 0, before=state, after=after))
        if self.is_stream:
            for w in list(worlds):
                for n in range(len(w.outs)):
                    more.append(World(w.outs[:n], "cancelled", before=state, after=w.after))
                    more += [World(w.outs[:n] + [Failure(c)], "cancelled", before=state, after=w.after) for c in codes]
        return more

    # -- what was seen
    def observe(self, index, answer):
        """Keeps the worlds in which result `index` answers so; None when there is none."""
        before = self.worlds()
        fitting = [w for w in before if w.out(index) is not None and w.out(index).fits(answer)]
        if not fitting:
            return None
        self.complete = self.complete or not self.is_stream  # an item says nothing of a generator's end
        if len(fitting) != len(before) or self.actor is not None:
            self.seen[index] = answer
            self.dirty()
            self.cached = None
            fitting = [w for w in self.worlds() if w.out(index) is not None]
            if not fitting:
                return None
        return fitting[0].out(index)

    def ended(self):
        """Its end was seen: what happens from now on changes nothing of it."""
        self.worlds()
        self.complete = True

    def may_wait(self):
        if any(a.may_wait() for a in self.args):
            return True
        if self.actor is not None:
            return self.actor.may_wait(self)
        return self.model.may_wait(self)

    def children(self):
        found = {}
        for w in self.worlds():
            for c in w.children:
                found[id(c)] = c
        return found.values()


class Result:
    """The index-th result of a task."""

    def __init__(self, task, index):
        self.task, self.index = task, index

    complete = property(lambda self: self.task.complete)

    def outcomes(self):
        return unique(w.out(self.index) or w.outs[-1] for w in self.task.worlds())

    def observe(self, answer):
        return self.task.observe(self.index, answer)

    def may_wait(self):
        return not self.task.complete and self.task.may_wait()


class Item:
    """The index-th item of a stream: there as soon as one has it."""
    complete = True

    def __init__(self, task, index):
        self.task, self.index = task, index

    def outcomes(self):
        return unique(w.out(self.index) for w in self.task.worlds() if w.out(self.index) is not None) or [ANYTHING]

    def observe(self, answer):
        return self.task.observe(self.index, answer)

    def may_wait(self):
        return False


class Done:
    """The reference of ray_stream_completed: nil, or the generator's error."""

    def __init__(self, task):
        self.task, self.complete = task, False

    def outcomes(self):
        found = []
        for w in self.task.worlds():
            failed = w.outs and (isinstance(w.outs[-1], Failure) or w.status == "any")
            found.append(w.outs[-1] if failed else Failure("CANCELLED") if w.status == "cancelled" else NIL)
        return unique(found) + ([Failure("CANCELLED"), NIL] if self.task.cancelled else [])

    def observe(self, answer):
        return next((o for o in self.outcomes() if o.fits(answer)), None)

    def may_wait(self):
        return True  # the generator may be waiting for somebody to take its items


def mixed(acc, tag, attempt=None):
    tag = mix(acc, tag)
    return tag if attempt is None else mix(tag, 1000 + attempt)
