"""The model of an actor: the states in which it may be after each of its calls."""
from outcomes import ANYTHING, CAP, Failure, World
from program import amounts, options

EMPTY = (None,) * 8


class Actor:
    """A state is ("up", sum, kept, restarts left), ("back", restarts left): it restarts, or ("dead",)."""
    complete, nested = True, False

    def __init__(self, model, label, opts, ctor):
        self.model, self.label, self.ctor = model, label, ctor
        self.name, self.language = opts.get("name"), opts.get("lang", model.driver)
        self.detached = "detached" in opts
        self.restarts = {-1: 1000}.get(int(opts.get("restarts", 0)), int(opts.get("restarts", 0)))
        self.again = {-2: 0}.get(int(opts.get("again", 0)), int(opts.get("again", 0)))
        self.kind = opts.get("kind", "sync")
        self.ordered = "ooo" not in opts and int(opts.get("conc", 1)) == 1 and self.kind == "sync"
        self.needs = amounts(opts["res"]) if "res" in opts else {}
        self.entries = []      # calls and kills, in order
        self.users = []
        self.may_die = self.dropped = self.killed = False
        self.computed, self.epoch = 0, model.epoch  # entries whose worlds stand, as of then
        self.states = []       # before each entry

    # -- being a value's content
    def label_of(self):
        return self.label

    def add(self, entry):
        if isinstance(entry, Kill) and not any(
                e.complete and not restarted(e) for e in self.entries if not isinstance(e, Kill)):
            entry.in_constructor = entry.may_restart and self.restarts > 0
        if not isinstance(entry, Kill) and self.restarts and not entry.retries:
            # While it restarts a call without retries is refused at once, though those before it wait and then run.
            since = max((at for at, e in enumerate(self.entries) if isinstance(e, Kill) and e.may_restart), default=None)
            entry.refusable = since is not None and not any(
                e.complete and ran(e) for e in self.entries[since:] if not isinstance(e, Kill))
        self.entries.append(entry)

    def dirty(self, call):
        if call.nested or call not in self.entries:
            return
        at = self.entries.index(call)
        self.computed = min(self.computed, at)
        for later in self.entries[at:]:
            if later is not call and not isinstance(later, Kill) and later.cached is not None:
                later.cached = None
                for user in later.users:
                    user.dirty()

    def initial(self, left):
        """States after the constructor."""
        found = []
        for combination in self.model.combinations([a.outcomes() for a in self.ctor.args]):
            if any(isinstance(o, Failure) for o in combination) or any(o is ANYTHING for o in combination):
                found.append(("dead",))
                continue
            for run in self.model.evaluate(self.ctor, combination, 0, ("up", 0, EMPTY, left)):
                found.append(run.state if run.status in ("ok", "any") else ("dead",))
                if run.status == "any":
                    found.append(("dead",))
                if run.status == "crashed" and left > 0:
                    found.append(("back", left - 1))
        if self.ctor.may_fail():
            found.append(("dead",))
        return list(dict.fromkeys(found))

    def compute(self):
        """Worlds of the calls, each from the states that the one before may have left."""
        if self.epoch != self.model.epoch:  # something happened that calls may feel that have not ended
            self.epoch = self.model.epoch
            calls = [at for at, e in enumerate(self.entries) if not isinstance(e, Kill) and not e.complete]
            self.computed = min(calls + [self.computed])
            if not any(isinstance(e, Kill) or e.complete for e in self.entries[:self.computed]):
                self.states, self.computed = [], 0
        if not self.states:
            self.states = [self.initial(self.restarts)]
        for at in range(self.computed, len(self.entries)):
            entry, before = self.entries[at], self.states[at]
            if isinstance(entry, Kill):
                after = entry.after(before)
                if entry.in_constructor and after is not None:  # a constructor that would fail starts again all the same
                    after = list(dict.fromkeys([*after, ("back", self.restarts - 1)]))
            elif before is None or len(before) > CAP:
                entry.cached = entry.filtered([World(entry.all_outs(ANYTHING), "any", children=())])
                after = None
            else:
                worlds = [w for state in before for w in self.call(entry, state)]
                entry.cached = entry.filtered(worlds)
                after = list(dict.fromkeys(w.after for w in entry.cached))
                if not self.ordered:
                    after = list(dict.fromkeys(before + after))
                if any(w.status == "any" for w in entry.cached):
                    after = None
            self.states[at + 1:] = [after]
        self.computed = len(self.entries)

    def call(self, task, state):
        if state[0] == "dead":
            return [World(task.all_outs(Failure("ACTOR_DIED")), "refused", 0, before=state, after=state)] + (
                [World(task.all_outs(Failure("CANCELLED")), "cancelled", 0, before=state, after=state)]
                if task.cancelled else []) + [w for w in self.dependencies(task, state)]
        if state[0] == "back":
            refused = [World(task.all_outs(Failure("ACTOR_RESTARTING")), "refused", 0, before=state, after=state)]
            if task.cancelled:  # while it waits: that says nothing of the actor
                refused.append(World(task.all_outs(Failure("CANCELLED")), "cancelled", 0, before=state, after=state))
            return refused + [w for s in self.initial(state[1]) for w in self.call(task, s)]
        worlds = []
        for w in task.natural(state):
            if w.status in ("crashed", "died"):
                worlds += self.lost(task, w, state, [w])
            else:
                worlds.append(w)
        if task.refusable:
            worlds.append(World(task.all_outs(Failure("ACTOR_RESTARTING")), "refused", 0, before=state, after=state))
        if task.kills:
            worlds += self.lost(task, World([], "killed", after=state), state, worlds)
        return worlds

    def dependencies(self, task, state):
        found = []
        for a in task.args:
            for o in a.outcomes():
                if o is ANYTHING:  # a failure among the rest
                    found.append(World(task.all_outs(ANYTHING), "any", 0, before=state, after=state))
                elif isinstance(o, Failure):
                    found.append(World(task.all_outs(o), "dependency", 0, before=state, after=state))
        return found

    def lost(self, task, world, state, ways):
        """The actor's process ended while it ran the call in one of these ways, or before."""
        left = state[3]
        dead = [World(outs, "lost", before=state, after=("dead",)) for outs in task.cut_off(ways, "ACTOR_DIED")]
        if world.status == "died":  # by its own will
            return dead + [World(world.outs, "died", before=state, after=("dead",))]
        if left == 0:
            return dead
        back = ("back", left - 1)
        # Deaths before it ran count: each kill may have been that of another process, or have come before there was one.
        deaths = task.kills + (world.status == "crashed")
        return (dead if task.for_good or deaths > left else []) + self.lost_once(task, state, left, back, ways)

    def lost_once(self, task, state, left, back, ways):
        worlds = [World(outs, "lost", before=state, after=back) for outs in task.cut_off(ways, "ACTOR_RESTARTING")]
        if task.retries > 0:
            for s in self.initial(left - 1):
                for w in task.natural(s):
                    if w.status not in ("crashed", "died"):
                        worlds.append(World(w.outs, w.status, 2, w.children, state, w.after))
                    else:
                        worlds.append(World(task.all_outs(Failure("ACTOR_DIED")), "lost", before=state, after=("dead",)))
        return worlds

    def may_wait(self, call):
        """Whether the call may wait for ever: the actor has no room, or an earlier call waits."""
        if self.model.may_wait_actor(self) or self.ctor.may_wait_for_arguments():
            return True
        if call.nested or not self.ordered:
            return False
        earlier = self.entries[:self.entries.index(call)] if call in self.entries else []
        return any(not isinstance(e, Kill) and not e.complete and not e.cancelled
                   and any(a.may_wait() for a in e.args) for e in earlier)


def ran(call):
    """Whether what was seen of a call says that its actor ran it: one that was refused or cancelled says nothing."""
    return all(w.status in ("ok", "failed", "died") for w in call.worlds())


def restarted(call):
    """Whether it was told that the actor restarts."""
    return any(a[:2] == ["e", "ACTOR_RESTARTING"] for a in call.seen.values())


class Kill:
    """The actor's process was killed here; `certain` if it was this one. `in_constructor`: perhaps before that had ended."""
    in_constructor = False

    def __init__(self, may_restart, certain, unresolved):
        self.may_restart, self.certain, self.unresolved = may_restart, certain, unresolved
        self.started = True

    def after(self, before):
        if before is None:
            return None
        found = [] if self.certain else list(before)
        for state in before:
            left = state[3] if state[0] == "up" else state[1] if state[0] == "back" else 0
            if state[0] == "dead" or not self.may_restart or left == 0:
                found.append(("dead",))
            else:
                found.append(("back", left - 1))
            if self.unresolved or state[0] == "back" or not self.started:
                found.append(state)
        return list(dict.fromkeys(found))


class Constructor:
    """Looks like a task to the evaluation of bodies."""
    one_by_one = staticmethod(lambda: False)
    is_stream, n_outs, retries, nested, complete, recursive = False, 1, 0, False, False, False

    def __init__(self, model, label, body, args, words, parent):
        self.model, self.label, self.body, self.args, self.parent = model, label, body, args, parent
        self.made, self.users, self.cancelled = {}, [], False
        self.language = options(words).get("lang", model.driver)
        for a in args:
            task = getattr(a, "task", None)
            if task is not None:
                task.users.append(self)

    def dirty(self):
        if self.actor_model.states:
            self.actor_model.states, self.actor_model.computed = [], 0
            for call in self.actor_model.entries:
                if not isinstance(call, Kill):
                    call.cached = None
                    for user in call.users:
                        user.dirty()

    def may_fail(self):
        return False

    def may_wait_for_arguments(self):
        return any(a.may_wait() for a in self.args)
