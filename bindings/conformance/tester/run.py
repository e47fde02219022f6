"""Groups of programs on a session of their own: run, compare, look what is left; and a program alone."""
import functools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import generate
import journal
import program as programs
from model import Driver, GaveUp, Invalid, Mismatch, Model
from session import Died, Hung, Session, marked

GROUP = 40  # programs on one session
ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("LIBRAY_BUILD", ROOT / "build" / "release"))


def command(driver):
    if os.environ.get("CONFORMANCE_DRIVER"):
        return os.environ["CONFORMANCE_DRIVER"].split()
    if driver == "java":
        return java_command()
    if driver == "rust":
        return rust_command()
    if driver == "c":
        return [str(BUILD / "tests" / "conformance_driver")]
    if driver == "cpp":
        return [str(BUILD / "tests" / "conformance_driver_cpp")]
    return [sys.executable, "-u", str(ROOT / "bindings" / "conformance" / "python" / "driver.py")]


def code_of(language):
    """Environment by which workers of this language are found in programs of two."""
    words = command(language)
    if language == "java":
        return {"LIBRAY_JAVA_CODE": words[words.index("-cp") + 1], "LIBRAY_JAVA_OPTIONS": " ".join(words[1:words.index("-cp")])}
    if language == "python":
        return {"LIBRAY_PYTHON_CODE": str(Path(words[-1]).parent), "LIBRAY_PYTHON": words[0]}
    return {"LIBRAY_RUST_CODE" if language == "rust" else "LIBRAY_NATIVE_CODE": words[0]}


@functools.cache
def java_command():
    """The Java driver, built by Maven."""
    sys.path.insert(0, str(ROOT / "tools" / "devtool"))
    import java
    if not java.is_there():
        raise SystemExit(java.ABSENT)
    os.environ.setdefault("LIBRAY_CACHE", java.environment()["LIBRAY_CACHE"])
    return [str(word) for word in java.program("Driver", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")]


@functools.cache
def rust_command():
    """The Rust driver, built by cargo."""
    sys.path.insert(0, str(ROOT / "tools" / "devtool"))
    import rust
    if not rust.is_there():
        raise SystemExit(rust.ABSENT)
    program, env = rust.conformance_program()
    os.environ["LD_LIBRARY_PATH"] = env["LD_LIBRARY_PATH"]
    return [str(program)]


class Settings:
    """What the programs of a group share; their group's number alone says it. `driver`: a language, or two with a comma."""

    def __init__(self, group, faults, driver="c"):
        pick = random.Random(group * 7919 + 1)
        self.cpus = pick.choice((1, 2, 2, 4))
        self.store = pick.choice((64, 64, 32, 16)) << 20
        self.faults, self.driver, self.languages = faults, driver, driver.split(",")
        self.host = self.languages[group % len(self.languages)]  # whose driver it is
        self.node_dies = faults and pick.random() < 0.05  # in the last program
        self.files = 160 if faults and pick.random() < 0.1 else 0  # descriptors that a process may have
        self.fork = 0.0 if self.host == "java" else float(os.environ.get("CONFORMANCE_FORK", "0.3"))  # a JVM has no fork

    def setup(self):
        return f"cpus={self.cpus} store={self.store} resources=disk:2"

    def is_cross(self):
        return len(self.languages) > 1

    def environment(self):
        if not self.is_cross():
            return {}
        env = {"CONFORMANCE_CROSS": "1"}
        for language in self.languages:
            env.update(code_of(language) if language != self.host else {})
        if set(self.languages) == {"c", "cpp"}:  # one language to libray
            env["CONFORMANCE_WORKER"] = env.pop("LIBRAY_NATIVE_CODE")
        return env

    def capacity(self):
        return {"CPU": float(self.cpus), "disk": 2.0}

    def of_program(self):
        return {"cpus": self.cpus, "faults": self.faults, "fork": self.fork, "huge": self.store // 40 * 8,
                "store": self.store, "driver": "" if self.is_cross() else self.driver,
                "languages": self.languages if self.is_cross() else ()}


class Failure(Exception):
    def __init__(self, kind, text, seed=None):
        super().__init__(text)
        self.kind, self.text, self.seed = kind, text, seed


def make(seed, settings):
    one = generate.program(f"p{seed}", seed, settings.of_program())
    if settings.node_dies and seed % GROUP == GROUP - 1:
        one.insert(len(one) // 2, ["fault", "node", "0"])
    return one


def folder():
    base = os.environ.get("LIBRAY_TMPDIR") or tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="lm-", dir=base)


class Group:
    """A session and the model of it."""

    def __init__(self, settings, bound=20.0):
        self.settings, self.folder = settings, Path(folder())
        self.session = Session(command(settings.host), settings.setup(), self.folder, bound, settings.files,
                               settings.environment())
        self.model = Model(settings.capacity(), settings.store, settings.host)
        self.labels = []  # of all programs: what the journal has to show
        self.gave_up = 0
        self.spent = {"run": 0.0, "model": 0.0, "settle": 0.0}

    def run(self, one):
        """Runs a program and compares; raises Failure."""
        self.model.begin()
        self.session.begin()
        began = time.monotonic()
        answers, problem = {}, None
        try:
            answers = self.session.run(programs.text(one))
        except (Hung, Died) as e:
            problem, answers = e, e.answers
        self.spent["run"] += time.monotonic() - began
        began = time.monotonic()
        try:
            driver = Driver(self.model, lambda path: answers.get(path, []))
            driver.run(one)
            driver.over()
        except Mismatch as wrong:
            text = str(wrong)
            if problem is not None and "no answer" in text:
                raise Failure("hung" if isinstance(problem, Hung) else "died", f"{problem}, in {text}") from None
            raise Failure("answer", text) from None
        except GaveUp:
            self.gave_up += 1
            for group in [g for g in self.model.groups if not g.removed]:  # by its driver, which did not come to that
                self.model.remove_group(group)
        finally:
            self.spent["model"] += time.monotonic() - began
        if problem is not None:
            raise Failure("hung" if isinstance(problem, Hung) else "died", str(problem))
        if self.model.node_is_dead:
            return
        self.cleanup()
        self.labels += journal.expected(self.model)
        if self.model.shards:
            self.session.reach_shards()
        began = time.monotonic()
        left = self.session.settle(seconds=20.0 if self.settings.is_cross() else 8.0)  # workers of two kinds have to start
        self.spent["settle"] += time.monotonic() - began
        if left:
            raise Failure("unquiet", left)

    def cleanup(self):
        """Ends what outlives its program on purpose."""
        left = [a for a in self.model.names.values() if a.detached]
        if left:
            self.session.run(";".join(f"find {a.name} a1;kill a1 0;drop a1" for a in left))
        for actor in left:
            self.model.kill_actor(actor, False)
        self.model.names.clear()

    def finish(self):
        """The quiet invariants, the end, and the journal; raises Failure."""
        if self.model.node_is_dead:
            left = self.session.end(None)
            if left:
                raise Failure("end", left)
            return
        left = self.session.settle(leases=True)
        if left:
            raise Failure("unquiet", left)
        left = self.session.end()
        if left:
            raise Failure("end", left)
        wrong = journal.compare(self.session, self.labels, self.settings.driver == "c")
        if wrong:
            raise Failure("journal", wrong)

    def keep(self, failure):
        """CONFORMANCE_KEEP=FOLDER: the session's files of what failed stay there, to look at."""
        to = os.environ.get("CONFORMANCE_KEEP")
        if to:
            for pid, command in marked(self.session.mark):
                with open(self.folder / f"stack-{pid}", "w") as out:
                    print(command, file=out, flush=True)
                    subprocess.run(["timeout", "60", "gdb", "-p", str(pid), "-batch", "-ex", "thread apply all bt 14"],
                                   stdout=out, stderr=subprocess.DEVNULL, check=False)
            shutil.copytree(self.folder, Path(to) / f"{failure.seed}-{os.getpid()}", symlinks=True, dirs_exist_ok=True,
                            ignore=lambda d, names: [n for n in names if n.endswith(".sock")])

    def close(self):
        self.session.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def attempt(group, numbered):
    """Runs (seed, program) pairs; the first Failure, or None."""
    seed = None
    try:
        for seed, one in numbered:
            group.run(one)
        seed = None
        group.session.begin()
        group.finish()
        return None
    except Failure as failure:
        failure.seed = seed
        return failure
    except (Hung, Died) as e:
        return Failure("hung" if isinstance(e, Hung) else "died", f"{'at the end' if seed is None else 'after it'}: {e}", seed)
    except Invalid as e:
        return Failure("invalid", str(e), seed)
    except Exception:  # a fault of the tester itself
        return Failure("tester", traceback.format_exc()[-1500:], seed)


def run_some(numbered, settings, bound=20.0):
    """Runs (seed, program) pairs on a session of their own; the first Failure, or None."""
    try:
        group = Group(settings, bound)
    except (Hung, Died) as e:
        return Failure("start", str(e))
    try:
        failure = attempt(group, numbered)
        if failure is not None:
            failure.text += group.session.story()
            group.keep(failure)
        return failure
    finally:
        group.close()
