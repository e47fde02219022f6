"""A few instructions that belong together: what single ones would seldom meet."""


def keeper(m):
    """An actor keeps a reference whose maker is gone, and reads what is inside later."""
    a, box, held, out, seen = m.new("a"), m.new("r"), m.new("r"), m.new("r"), m.new("r")
    m.emit("actor", m.label(), a, [])
    m.emit("task", m.label(), box, [["put", "r1", m.value()], ["ret", "0", f"{m.tag()}:{m.random.choice((10, 20000))}:r1"]])
    if m.chance(0.7):
        m.emit("wait", "1", "-1", box)
    m.emit("call", m.label(), a, held, f"v{m.tag()}:8:{box}", [["argx", "0", "0", "r1"], ["keep", "0", "r1"]])
    m.emit("get", held)
    m.emit("drop", box)
    m.emit("sleep", str(m.random.choice((2000, 20000, 60000))))
    m.emit("call", m.label(), a, out, [["kept", "0", "r1"], ["elem", "r1", "0", "r2"], ["get", "r2"], ["ret", "0", m.value()]])
    m.emit("get", out)
    m.emit("copy", seen, out)
    m.actors.append((a, {"ordered": True}))
    m.add_ref(out)


def threads(m):
    """Two actors put values from threads of their own."""
    outs = []
    for _ in range(2):
        a = m.new("a")
        m.emit("actor", m.label(), a, [])
        outs.append((a, m.new("r")))
        m.actors.append((a, {"ordered": True}))
    for a, out in outs:
        m.emit("call", m.label(), a, out, [["thread", [["put", "r1", m.value()]]], ["ret", "0", m.value(["r1"])]])
    for _, out in outs:
        inner = m.new("r")
        m.emit("elem", out, "0", inner)
        m.emit("get", inner)
        m.add_ref(inner)
        m.add_ref(out)


def attempts(m):
    """Several results, of which the first attempt made some."""
    n = m.random.choice((2, 3))
    outs = [m.new("r") for _ in range(n)]
    body = [["put", "r1", m.value()]]
    at = m.random.randint(1, n)
    for i in range(n):
        if i == at:
            body.append([m.random.choice(("fail", "fail", "crash")), "1"])
        body.append(["ret", str(i), f"{m.tag()}:{m.random.choice((8, 20000, 200000))}" + (":r1" if m.chance(0.4) else ""), "a"])
    if at == n:
        body.append(["fail", "1"])
    m.emit("task", m.label(), ",".join(outs), "retries=2", "roe=1", body)
    for out in m.random.sample(outs, n):
        m.emit("get", out)
        m.add_ref(out)
    if m.chance(0.5):
        m.emit("sleep", "20000")
    other = m.new("r")
    m.emit("task", m.label(), other, outs[0], [["arg", "0"], ["ret", "0", m.value()]])
    m.emit("get", outs[0])
    m.emit("get", other)
    m.add_ref(other)


def burst(m):
    """A long task with short ones behind it, which its worker gives back, and more of another kind meanwhile."""
    refs, warm = [], m.new("r")
    size, n_args = m.random.choice(((64, 1), (2000, 6), (8000, 6), (8000, 7), (8000, 7)))
    shape = ["res=CPU:" + m.random.choice(("1", str(m.settings["cpus"])))]

    def one(us, twin):
        refs.append(m.new("r"))
        args = [f"v{m.tag()}:{size}" for _ in range(n_args)]
        m.emit("task", m.label(), refs[-1], "retries=0", *shape, *twin, *args,
               ([["sleep", str(us)]] if us else []) + [["arg", str(i)] for i in range(n_args)] + [["ret", "0", "1:8"]])

    for _ in range(m.random.choice((20, 60))):
        for twin in ([], ["twin=1"]):
            m.emit("task", m.label(), warm, *shape, *twin, [["ret", "0", "1:8"]])
            m.emit("get", warm)
    long = m.random.randrange(5600, 8100)
    for i in range(8):
        one(0 if i else long, [])
    m.emit("spin", str(long + m.random.randrange(300, 2800)))
    for _ in range(8):
        one(0, ["twin=1"])
    for ref in refs:
        m.emit("get", ref)
        m.add_ref(ref)


def behind(m):
    """Calls behind one that is cancelled, or whose argument fails."""
    a, arg, first, second = m.new("a"), m.new("r"), m.new("r"), m.new("r")
    m.emit("actor", m.label(), a, [])
    if m.chance(0.5):
        m.emit("call", m.label(), a, first, [["ret", "0", "1:8"]])
        m.emit("get", first)
    fails = m.chance(0.5)
    m.emit("task", m.label(), arg, "retries=0", [["hold", "30000"]] + ([["fail"]] if fails else []) + [["ret", "0", "1:8"]])
    m.emit("call", m.label(), a, first, arg, [["arg", "0"], ["ret", "0", "1:8"]])
    m.emit("call", m.label(), a, second, [["ret", "0", "2:8"]])
    if not fails:
        m.emit("cancel", m.random.choice((first, arg)), m.random.choice("-r"))
    m.emit("get", second)
    m.emit("get", first)
    m.actors.append((a, {"ordered": True}))
    m.add_ref(first)
    m.add_ref(second)


def neighbour(m):
    """A task that waits behind another one is cancelled by force."""
    one, two = m.new("r"), m.new("r")
    for _ in range(30):
        m.emit("task", m.label(), one, "retries=0", [["ret", "0", "1:8"]])
        m.emit("get", one)
    n = m.random.choice((1, 2, 4))
    firsts = []
    for _ in range(n):
        firsts.append(m.new("r"))
        m.emit("task", m.label(), firsts[-1], "retries=0", [["sleep", "15000"], ["ret", "0", "2:8"]])
    m.emit("task", m.label(), two, "retries=0", [["ret", "0", "3:8"]])
    m.emit("cancel", two, "f")
    for ref in firsts + [two]:
        m.emit("get", ref)


def no_room(m):
    """A task or a group that cannot be placed while an actor keeps a processor; others go on."""
    a, big = m.new("a"), m.new("r")
    cpus = m.settings["cpus"]
    shapes = (1, 0.5, 0.25) if cpus > 1 else (0.5, 0.25, 0.125)
    m.emit("actor", m.label(), a, f"res=CPU:{shapes[0]}", [])
    small = m.new("r")
    m.emit("call", m.label(), a, small, [["ret", "0", "1:8"]])
    m.emit("get", small)
    group = m.new("g")
    if m.chance(0.6):
        m.emit("task", m.label(), big, f"res=CPU:{cpus}", [["ret", "0", "1:8"]])
    else:
        m.emit("group", group, "0", f"CPU:{cpus}")
        big = None
    for i in range(25):
        m.emit("task", m.label(), small, f"res=CPU:{shapes[i % 3]}", [["sleep", "500"], ["ret", "0", "1:8"]])
        m.emit("get", small)
        m.emit("sleep", "3000")
    if big and m.chance(0.5):
        m.emit("cancel", big, "-")
        m.emit("kill", a, "0")
    else:
        m.emit("kill", a, "0")
        m.emit("get", big) if big else m.emit("gwait", group, "20000")
    if not big:
        m.emit("gremove", group)
    m.add_ref(small)


def stream_of_tasks(m):
    """A task of another shape gets its turn beside a stream of tasks."""
    one = m.new("r")
    warm = m.new("r")
    width = str(m.random.choice((8, 16)))
    for _ in range(int(width)):
        m.emit("task", m.label(), warm, "res=CPU:1", [["sleep", "10000"], ["ret", "0", "1:8"]])
    m.emit("task", m.label(), one, "res=CPU:0.5", [["ret", "0", "1:8"]])
    m.emit("pump", "~" + m.label(), one, "4000", width, "res=CPU:1", [["sleep", "10000"], ["ret", "0", "1:8"]])
    m.emit("get", one)
    m.add_ref(one)


def leaving(m):
    """Drivers that leave large values behind, in order or not."""
    m.emit("driver", m.random.choice(("clean", "leave", "die")),
           [["put", "r1", f"{m.tag()}:{m.random.choice((20000, 200000, 1000000))}"], ["put", "r2", f"{m.tag()}:9000:r1"]])


def late_failure(m):
    """A result with objects inside, and then a failure or a death."""
    outs = [m.new("r"), m.new("r")]
    kind = m.random.choice((["fail"], ["crash"], ["fail", "1"], ["crash", "1"]))
    if m.chance(0.5):
        m.emit("task", m.label(), ",".join(outs), f"retries={m.random.choice((0, 2))}", "roe=1",
               [["put", "r1", f"{m.tag()}:200000"], ["ret", "0", f"{m.tag()}:{m.random.choice((8, 20000))}:r1"], kind,
                ["ret", "1", "1:8"]])
        for out in outs:
            m.emit("get", out)
    else:
        s = m.new("s")
        m.emit("stream", m.label(), s, f"retries={m.random.choice((0, 2))}", "roe=1",
               [["put", "r1", f"{m.tag()}:200000"], ["yield", f"{m.tag()}:{m.random.choice((8, 20000))}:r1"],
                ["put", "r1", f"{m.tag()}:200000"], ["yield", f"{m.tag()}:200000:r1"], ["sleep", "3000"], kind])
        for _ in range(4):
            m.emit("next", s, outs[0], "-1")
            m.emit("get", outs[0])
        m.emit("drop", s)
    m.emit("drop", *outs)


def window(m):
    """A generator that waits for its reader."""
    s, n = m.new("s"), m.random.choice((3, 6))
    m.emit("stream", m.label(), s, f"window={m.random.choice((1, 2))}", [["yield", m.value()] for _ in range(n)])
    for i in range(n + 1):
        item = m.new("r")
        m.emit("next", s, item, "-1")
        if m.chance(0.3):
            m.emit("get" if i < n else "drop", item)


def placement(m):
    """Tasks and an actor in a placement group, which is then removed, perhaps while they run."""
    group, refs = m.new("g"), []
    share = "0.5" if m.settings["cpus"] == 1 else "1"
    bundles = m.random.choice((f"CPU:{share}", "CPU:0.5/CPU:0.25,disk:1", "CPU:0.25/CPU:0.25"))
    m.emit("group", group, m.random.choice("012"), bundles)
    if m.chance(0.7):
        m.emit("gwait", group, "20000")
    for _ in range(m.random.choice((1, 3))):
        ref = m.new("r")
        m.emit("task", m.label(), ref, f"group={group}", f"bundle={m.random.choice(('-1', '0'))}", "res=CPU:0.25",
               f"retries={m.random.choice((0, 2))}", [["sleep", m.random.choice(("100", "5000"))], ["ret", "0", m.value()]])
        refs.append(ref)
    early = m.chance(0.4)
    if early:
        m.emit("gremove", group)
    for ref in refs:
        m.emit("get", ref)
    if not early:
        m.emit("gremove", group)


def handle(m):
    """A handle travels inside a value; a task calls the actor, also when the maker's own handle is gone."""
    a, ref, box = m.new("a"), m.new("r"), m.new("r")
    m.emit("actor", m.label(), a, [])
    m.emit("put", box, m.value([a]))
    if m.chance(0.5):
        m.emit("drop", a)
    m.emit("task", m.label(), ref, box if m.chance(0.5) else f"v{m.tag()}:8:{a}",
           [["argx", "0", "0", "a1"], ["call", m.label(), "a1", "r1", [["sleep", "500"], ["ret", "0", m.value()]]], ["get", "r1"],
            ["ret", "0", m.value(["r1"] if m.chance(0.5) else ["a1"])]])
    if m.chance(0.5):
        m.emit("drop", box)
    m.emit("get", ref)
    m.add_ref(ref)


def beside(m):
    """Threads of the driver."""
    n = m.random.choice((2, 3))
    for i in range(n):
        inner = type(m)(m.label(), m.random.random(), dict(m.settings, nested=True))
        inner.write(m.random.choice((3, 8)))
        m.emit("spawn", str(i), inner.program)
    for i in range(n):
        m.emit("join", str(i))


def names(m):
    """Names: taken, found, given up at a death that was seen, taken again."""
    name, a, b, r = m.label(), m.new("a"), m.new("a"), m.new("r")
    lasting = ["detached=1"] if m.chance(0.5) else []
    m.emit("actor", m.label(), a, f"name={name}", *lasting, [])
    m.emit("find", name, b)
    m.emit("actor", m.label(), m.new("a"), f"name={name}", [])
    m.emit("call", m.label(), b, r, [["ret", "0", "1:8"]])
    if m.chance(0.5):
        m.emit("get", r)
    m.emit("kill", a, "0")
    m.emit("call", m.label(), b, r, [["ret", "0", "1:8"]])
    m.emit("get", r)
    m.emit("actor", m.label(), a, f"name={name}", [])
    m.emit("find", name, b)
    m.emit("drop", a, b)


def ends(m):
    """An actor ends by its own will, or crashes, with calls behind."""
    a = m.new("a")
    m.emit("actor", m.label(), a, f"restarts={m.random.choice((0, 0, 1))}", f"again={m.random.choice((0, 1))}", [["add", "5"]])
    refs = []
    at = m.random.randrange(4)
    for i in range(4):
        refs.append(m.new("r"))
        body = [[m.random.choice(("exit", "crash"))]] if i == at else [["add", "1"], ["rets", "0"]]
        m.emit("call", m.label(), a, refs[-1], body)
    for ref in refs:
        m.emit("get", ref)


SCENES = {window: 4, placement: 3, handle: 4, beside: 4, names: 3, ends: 3, keeper: 6, threads: 6, attempts: 8, burst: 3,
          behind: 6, neighbour: 3, no_room: 1, stream_of_tasks: 1, leaving: 4, late_failure: 6}


def pick(m, changed):
    weights = changed({scene.__name__: weight for scene, weight in SCENES.items()})
    if any(weights.values()):
        [scene] = m.random.choices(list(SCENES), list(weights.values()))
        scene(m)
