"""What the journal has to show of a session's programs, and whether it does: each task with its parent, its arguments,
its outcome, its result and its last attempt; and the graph by the checks of gcs/graph.h."""
from outcomes import Failure, Item, Result, Task, Value

STATUS = {"ok": ("OK",), "failed": ("TASK_FAILED",), "crashed": ("WORKER_CRASHED",), "cancelled": ("CANCELLED", "WORKER_CRASHED")}


class Entry:
    """One task as the journal has to show it. None = not known."""

    def __init__(self, task, parent):
        self.label, self.parent = task.label, parent
        worlds = task.worlds()
        self.codes = set()
        for w in worlds:
            failed = next((o.code for o in w.outs if isinstance(o, Failure)), None)
            self.codes.update(STATUS.get(w.status, ()) or ({failed} if failed else ()))
            if w.status not in STATUS and not failed:
                self.codes.add(None)
        if task.one_by_one() and any(isinstance(w.outs[-1], Failure) and not isinstance(w.outs[0], Failure) for w in worlds):
            self.codes.add("OK")  # its results are what they are, each for itself
        certain = len(worlds) == 1 and not task.cancelled and not task.kills and task.complete
        self.attempts = {w.runs - 1 for w in worlds} if certain and worlds[0].status == "ok" else None
        self.value = worlds[0].outs[0] if certain and worlds[0].status == "ok" and worlds[0].outs and not task.is_stream else None
        self.arguments = {i + 1: a.task.label for i, a in enumerate(task.args) if isinstance(a, (Result, Item))}
        self.children = worlds[0].children if certain and worlds[0].status == "ok" else ()
        # A child that its parent did not wait for ends with the parent's process, perhaps between two attempts.
        self.waited = task.waited
        self.cut_before = max(w.runs - 1 for w in worlds) if parent is not None and not task.waited else 0
        self.may_wait = task.may_wait() or getattr(task, "of_other_driver", False)  # it did not wait for them


def expected(model):
    """Entries of the tasks of a program that has ended."""
    found = []

    def add(task, parent):
        if task.label.startswith("~"):
            return
        entry = Entry(task, parent)
        found.append(entry)
        if not model.lossy:
            for child in entry.children:
                if isinstance(child, Task):
                    add(child, task.label)

    for task in model.tasks:
        add(task, None)
    return found


def tag_of(text):
    """The tag of a small raw value as the tables show it."""
    try:
        return int.from_bytes(bytes.fromhex(text.removeprefix("0x"))[:8], "little")
    except (AttributeError, ValueError):
        return None


def compare(session, entries, raw):
    """What is wrong, or "". `raw`: the driver's values are raw bytes."""
    rows = session.rows("SELECT name, task, parent, state, code, attempt, result, kind, error FROM tasks")
    by_name, names = {}, {}
    for row in rows:
        by_name.setdefault(row[0], []).append(row)
        names[row[1]] = row[0]
    arguments = {}
    for task, index, _, producer in session.rows("SELECT task, idx, object, producer FROM task_args"):
        arguments.setdefault(task, {})[index] = names.get(producer, producer)
    for entry in entries:
        found = by_name.get(entry.label, [])
        if len(found) != 1:
            return f"{len(found)} rows of task {entry.label}"
        wrong = check(entry, found[0], names, arguments.get(found[0][1], {}), raw)
        if wrong:
            return f"task {entry.label}: {wrong}"
    return ""


def check(entry, row, names, arguments, raw):
    _, _, parent, state, code, attempt, result, _, error = row
    if entry.parent is not None and names.get(parent) != entry.parent:
        return f"its parent is {names.get(parent, parent)}, not {entry.parent}"
    code = {106: "STREAM_END", 109: "GROUP_REMOVED"}.get(code, code)
    if state == "SUBMITTED":
        return "" if entry.may_wait or entry.parent is not None and not entry.waited else "it has no end"
    if attempt is not None and attempt < entry.cut_before:
        return ""
    if code == "CANCELLED" and entry.parent is not None and not entry.waited:
        return ""  # its parent was an actor that has ended, and nobody refers to what it makes
    if None not in entry.codes and code not in entry.codes and not (entry.may_wait and code != "OK"):
        return f"ended with {code} (attempt {attempt}: {error}), but only {sorted(entry.codes)} may be"
    if entry.attempts is not None and attempt not in entry.attempts:
        return f"its last attempt is {attempt}, not {sorted(entry.attempts)}"
    if raw and isinstance(entry.value, Value) and entry.value.tag is not None and entry.value.size < 200 and state == "FINISHED" \
            and tag_of(result) not in (None, entry.value.tag):
        return f"its result is {result}, not {entry.value}"
    for index, label in entry.arguments.items():
        if arguments.get(index) != label:
            return f"argument {index} comes from {arguments.get(index)}, not {label}"
    return ""
