"""Random programs. The seed alone says what comes out."""
import os
import random

import scenes

SMALL, INLINE, STORED = (0, 8, 64, 800), (2000, 7900, 8176, 8300), (20000, 131000, 131200, 200000)


def changed(weights):
    """Weights with what CONFORMANCE_WEIGHTS="fork=0,threads=9" says of them; "all=0" is a start from nothing."""
    given = dict(w.split("=") for w in os.environ.get("CONFORMANCE_WEIGHTS", "").split(",") if w)
    return {k: float(given.get(k, given.get("all", w))) for k, w in weights.items()}


def tame(words):
    """A task that always crashes is not tried for ever."""
    if "retries=-1" in words and ["crash"] in words[-1]:
        words[words.index("retries=-1")] = "retries=1"
    return words


class Maker:
    """Writes one program: instructions of random kinds, and now and then a scene, a few that belong together."""

    def __init__(self, name, seed, settings):
        self.random, self.name, self.settings = random.Random(seed), name, settings
        self.program, self.labels, self.next_slot = [], 0, {"r": 0, "a": 0, "s": 0, "g": 0}
        self.refs, self.actors, self.streams = [], [], []  # what the driver's slots hold: (slot, facts)
        self.share = changed({"scenes": 0.04, "trouble": 1.0, "in_thread": 0.25, "inside": 0.6})

    # -- words
    def label(self):
        self.labels += 1
        return f"{self.name}.{self.labels}"

    def new(self, kind):
        self.next_slot[kind] += 1
        if self.next_slot[kind] >= 60:
            self.next_slot[kind] = 1
        return f"{kind}{self.next_slot[kind]}"

    def chance(self, p):
        return self.random.random() < p

    def tag(self):
        return self.random.randrange(1, 1000)

    def size(self):
        kind = self.random.random()
        if kind < 0.7:
            return self.random.choice(SMALL)
        if kind < 0.88:
            return self.random.choice(INLINE)
        if kind < 0.99 or not self.settings.get("huge"):
            return self.random.choice(STORED)
        return self.settings["huge"]

    def value(self, contents=()):
        text = f"{self.tag()}:{self.size()}"
        return text + ":" + ",".join(contents) if contents else text

    def emit(self, *words):
        self.program.append(tame(list(words)))

    def pick_ref(self, plain=False):
        good = [r for r in self.refs if not plain or r[1].get("plain")]
        return self.random.choice(good)[0] if good else None

    def add_ref(self, slot, **facts):
        self.refs = [r for r in self.refs if r[0] != slot] + [(slot, facts)]

    # -- bodies
    def body(self, depth, n_args, outs, stream=False, call=False, args=(), calm=False):
        """What a task does: looks at arguments, makes children, returns."""
        b, r = [], self.random
        used = 0

        def slot():
            nonlocal used
            used += 1
            return f"r{used}"

        mine = []
        for i in range(n_args):
            if self.chance(0.8):
                b.append(["arg", str(i)])
            if i < len(args) and args[i] and self.chance(0.7):
                s = slot()
                b.append(["argx", str(i), str(r.randrange(args[i])), s])
                if self.chance(0.6):
                    b.append(["get", s])
                mine.append(s)
        if self.chance(0.15):
            b.append(["sleep", str(r.choice((100, 1000, 6000)))])
        for _ in range(r.choice((0, 0, 0, 1, 1, 2))):
            s = slot()
            if depth > 0 and self.chance(0.5):
                b.append(tame(["task", self.label(), s] + self.own_options(0.1, True) + self.inline_args(mine)
                              + [self.body(depth - 1, 0, 1)]))
                if self.chance(0.5):
                    b.append(["get", s])
            else:
                put = ["put", s, self.value([r.choice(mine)] if mine and self.chance(0.3) else ())]
                b.append(["thread", [put]] if self.chance(self.share["in_thread"]) else put)
            mine.append(s)
        if call and self.chance(0.5):
            b.append(["add", str(self.tag())])
        self.returns(b, outs, stream, mine, call or calm)
        return b

    def returns(self, b, outs, stream, mine, call):
        r = self.random
        inside = lambda: r.sample(mine, r.randint(1, len(mine))) if mine and self.chance(self.share["inside"]) else ()
        if stream:
            for _ in range(r.choice((0, 1, 2, 3, 5))):
                b.append(["yield", self.value(inside())])
            if self.chance(0.15):
                b.append(["fail"])
            return
        mark = ["a"] if not call and self.chance(0.4) else []
        trouble = r.random() if self.chance(self.share["trouble"]) else 0.5
        at = r.randrange(outs + 1)
        for i in range(outs):
            if trouble < 0.12 and i == at and not call:
                b.append([r.choice(("fail", "fail", "crash")), str(r.choice((1, 1, 2)))])
            if self.chance(0.03 * self.share["trouble"]):
                b.append(["reterr", str(i)])
            elif self.chance(0.97):
                b.append(["ret", str(i), self.value(inside())] + mark)
        if trouble < 0.12 and at == outs and not call:
            b.append(["fail", str(r.choice((1, 2)))])
        elif trouble > 0.96:
            b.append(["fail"])
        elif trouble > 0.95 and not call:
            b.append(["crash"])

    def inline_args(self, mine):
        args = []
        for _ in range(self.random.choice((0, 0, 1, 2))):
            args.append("v" + self.value([self.random.choice(mine)] if mine and self.chance(0.4) else ()))
        return args

    def own_options(self, resources=0.2, nested=False):
        """Resources that the node has; a child asks for nothing that its parent would not lend it."""
        words, r = [], self.random
        if self.chance(0.5):
            words.append(f"retries={r.choice((0, 0, 1, 2, 3, -1))}")
        if self.chance(0.4) and "retries=-1" not in words:  # whoever fails always would never end
            words.append("roe=1")
        if self.chance(resources):
            some = ["CPU:0.5", "CPU:0", "CPU:0.25", f"CPU:{self.settings['cpus']}"]
            words.append("res=" + r.choice(some if nested else some + ["CPU:1,disk:1"]))
        return words

    def arguments(self):
        """Words, and how many references each argument's value is known to hold."""
        words, inside = [], []
        for _ in range(self.random.choice((0, 0, 1, 1, 2, 3))):
            if self.refs and self.chance(0.5):
                slot, facts = self.random.choice(self.refs)
                words.append(slot)
                inside.append(facts.get("inside", 0))
            else:
                n = self.random.choice((0, 0, 1, 2))
                contents = [self.random.choice(self.refs)[0] for _ in range(n)] if self.refs else []
                words.append("v" + self.value(contents))
                inside.append(len(contents))
        return words, inside

    def handles(self):
        return ",".join(self.new("r") for _ in range(self.random.choice((1, 1, 1, 2, 3))))

    # -- single instructions of the driver
    def do_put(self):
        slot = self.new("r")
        if self.settings.get("store") and self.chance(0.01):
            self.emit("put", slot, f"{self.tag()}:{self.settings['store'] + 8}")
            self.emit("get", slot)
            self.refs = [r for r in self.refs if r[0] != slot]
            return
        contents = [self.random.choice(self.refs)[0]] if self.refs and self.chance(0.3) else []
        if self.actors and self.chance(0.1):
            contents = [self.random.choice(self.actors)[0]]
        self.emit("put", slot, self.value(contents))
        self.add_ref(slot, inside=len([c for c in contents if c[0] == "r"]), plain=True)

    def do_task(self):
        words, inside = self.arguments()
        outs = "-" if self.chance(0.05) else self.handles()
        names = [] if outs == "-" else outs.split(",")
        self.emit("task", self.label(), outs, *self.own_options(), *words,
                  self.body(2, len(words), len(names), args=inside))
        for name in names:
            self.add_ref(name)

    def do_get(self):
        if self.refs:
            n = 1 if self.chance(0.85) else min(len(self.refs), 4)
            self.emit("get", *[r[0] for r in self.random.sample(self.refs, n)])

    def do_try(self):
        if self.refs:
            self.emit("try", self.pick_ref())

    def do_wait(self):
        if self.refs:
            some = [r[0] for r in self.random.sample(self.refs, min(len(self.refs), self.random.randint(1, 5)))]
            self.emit("wait", str(self.random.randint(1, len(some))), self.random.choice(("-1", "0", "5")), *some)

    def do_told(self):
        if self.refs:
            some = self.random.sample(self.refs, min(len(self.refs), self.random.randint(1, 4)))
            self.emit("told", *[r[0] for r in some])

    def do_elem(self):
        good = [r for r in self.refs if r[1].get("inside")]
        if good:
            slot, facts = self.random.choice(good)
            new = self.new("r")
            self.emit("elem", slot, str(self.random.randrange(facts["inside"])), new)
            self.add_ref(new)

    def do_drop(self):
        if self.refs:
            slot = self.pick_ref()
            self.refs = [r for r in self.refs if r[0] != slot]
            self.emit("drop", slot)

    def do_copy(self):
        if self.refs:
            slot, facts = self.random.choice(self.refs)
            new = self.new("r")
            self.emit("copy", new, slot)
            self.add_ref(new, **facts)

    def do_sleep(self):
        self.emit("sleep", str(self.random.choice((100, 1000, 3000))))

    def do_cancel(self):
        tasks = [r[0] for r in self.refs if not r[1].get("plain")]
        if tasks:
            self.emit("cancel", self.random.choice(tasks), self.random.choice(("-", "-", "f", "r")))

    def do_stream(self):
        words, inside = self.arguments()
        slot = self.new("s")
        if self.actors and self.chance(0.3):
            actor, facts = self.random.choice(self.actors)
            self.emit("callstream", self.label(), actor, slot, *words,
                      self.body(1, len(words), 0, True, args=inside if facts["ordered"] else ()))
        else:
            self.emit("stream", self.label(), slot, *self.own_options(), *words,
                      self.body(1, len(words), 0, True, args=inside))
        self.streams.append(slot)

    def do_next(self):
        if self.streams:
            new = self.new("r")
            self.emit("next", self.random.choice(self.streams), new, self.random.choice(("-1", "-1", "-1", "2")))
            self.add_ref(new)

    def do_scancel(self):
        if self.streams and self.chance(0.3):
            self.emit("scancel", self.random.choice(self.streams), "-")

    def do_sdone(self):
        if self.streams and self.chance(0.3):
            self.emit("sdone", self.random.choice(self.streams), self.new("r"))

    def do_actor(self):
        slot, words = self.new("a"), []
        if self.chance(0.2):
            words.append(f"restarts={self.random.choice((1, 2, -1))}")
        if self.chance(0.2):
            words.append(f"again={self.random.choice((1, 2))}")
        if self.chance(0.15):
            words.append(f"conc={self.random.choice((2, 4))}")
        if self.chance(0.1):
            words.append("ooo=1")
        if self.settings.get("driver") == "python" and self.chance(0.3):
            words.append("kind=asyncio")
        named = self.chance(0.15)
        if named:
            words.append(f"name={self.label()}")
        if named and self.chance(0.4):
            words.append("detached=1")
        ctor = [["add", str(self.tag())]] if self.chance(0.5) else []
        if self.chance(0.04):
            ctor.append(["fail"])
        self.emit("actor", self.label(), slot, *words, ctor)
        self.actors.append((slot, {"ordered": not any(w[:4] in ("conc", "ooo=", "kind") for w in words)}))

    def call(self, slot, facts):
        words, inside = self.arguments()
        outs = self.handles()
        if not facts["ordered"]:  # it might wait for a call that itself keeps from running
            inside = ()
        body = self.body(1, len(words), len(outs.split(",")), call=facts["ordered"], args=inside, calm=True)
        if facts["ordered"] and self.chance(0.2):
            body.append(["rets", "0"]) if not any(w[0] in ("ret", "reterr") and w[1] == "0" for w in body) else None
        self.emit("call", self.label(), slot, outs, *words, body)
        for name in outs.split(","):
            self.add_ref(name)

    def do_call(self):
        if not self.actors:
            return self.do_actor()
        for _ in range(self.random.choice((1, 1, 2, 4))):
            self.call(*self.random.choice(self.actors))

    def do_kill(self):
        if self.actors and self.chance(0.5):
            slot, _ = self.random.choice(self.actors)
            self.emit("kill", slot, self.random.choice("01"))

    def do_drop_actor(self):
        if self.actors:
            slot, _ = self.actors.pop(self.random.randrange(len(self.actors)))
            self.emit("drop", slot)

    def do_find(self):
        named = [w[5:] for i in self.program if i[0] == "actor" for w in i if isinstance(w, str) and w.startswith("name=")]
        if named:
            self.emit("find", self.random.choice(named), self.new("a"))

    def do_kv(self):
        key = f"{self.name}.k{self.random.randrange(3)}"
        kind = self.random.random()
        if kind < 0.5:
            self.emit("kvput", key, str(self.tag()), self.random.choice(("any", "any", "none", "last")))
        elif kind < 0.8:
            self.emit("kvget", key)
        else:
            self.emit("kvdel", key, self.random.choice(("any", "last")))

    def do_fork(self):
        if self.chance(self.settings.get("fork", 0.0)):
            inner = [["get", self.pick_ref()]] if self.refs and self.chance(0.5) else []
            if self.refs and self.chance(0.7):
                inner.append(["drop", self.pick_ref()])
            self.emit("fork", inner)

    def do_driver(self):
        if self.chance(0.25):
            other = Maker(self.label(), self.random.random(), dict(self.settings, nested=True))
            other.write(self.random.choice((3, 8)))
            self.emit("driver", self.random.choice(("clean", "clean", "leave", "die")), other.program)

    def do_fault(self):
        if self.settings.get("faults"):
            kinds = ("kill", "kill", "kill", "stop", "stop", "slow", "slow", "shard")
            self.emit("fault", self.random.choice(kinds), str(self.random.randrange(8)))

    # Of each instruction, and of scenes together; CONFORMANCE_WEIGHTS="fork=0,threads=0" changes some.
    WEIGHTS = {"put": 10, "task": 22, "get": 18, "try": 4, "wait": 6, "told": 3, "elem": 8, "drop": 8, "copy": 2, "sleep": 2,
               "cancel": 4, "stream": 5, "next": 10, "scancel": 1, "sdone": 1, "actor": 4, "call": 12, "kill": 1, "drop_actor": 2,
               "find": 2, "kv": 3, "fork": 2, "driver": 1, "fault": 3}

    def write(self, n):
        names = [k for k in self.WEIGHTS if not (self.settings.get("nested") and k in ("driver", "fork", "fault", "kill", "kv"))]
        base = changed(self.WEIGHTS)
        weights = [base[k] * self.random.choice((0.2, 1, 1, 3)) for k in names]
        while len(self.program) < n:
            if self.chance(self.share["scenes"]) and not self.settings.get("nested"):
                scenes.pick(self, changed)
            else:
                getattr(self, "do_" + self.random.choices(names, weights)[0])()
        return self.program


def in_languages(words, languages, pick):
    """Of programs of two languages: each task and actor says which is its own."""
    for instruction in words:
        for body in instruction:
            if isinstance(body, list):
                in_languages(body, languages, pick)
        at = {"task": 3, "stream": 3, "actor": 3, "pump": 5}.get(instruction[0])
        if at:
            language = pick.choice(languages)
            # A generator in Python that was called by its name does not know that it will be tried again: it keeps the
            # results that it gave before it failed, and so it is not.
            if language == "python" and "," in instruction[2] and "roe=1" in instruction:
                instruction.remove("roe=1")
            instruction.insert(at, "lang=" + language)


def program(name, seed, settings):
    maker = Maker(name, seed, settings)
    made = maker.write(maker.random.choice((6, 15, 25, 40)))
    if settings.get("languages"):
        in_languages(made, settings["languages"], random.Random(seed))
    return made
