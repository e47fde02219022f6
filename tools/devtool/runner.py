"""./dev test: runs every part, shows what failed, ends with `N passed, N failed, N skipped`.

A part is one entry of ctest (a GoogleTest binary, a C program with subtests, a script), the lint, or
a pytest folder. Parts run side by side where they do not measure or kill (ctest property RUN_SERIAL).
Each gets a directory of its own for sessions and a mark in its environment; a process that still
carries the mark after the part has ended was left behind, and fails the part.

Labels of ctest that mean something here (a pytest file says "libray-test: slow" and the like in its first words):
  slow      not in --quick
  long      only with --all, or by name
  tsan      also run under ThreadSanitizer (the lock-free parts)
  nosan     not under sanitizers (it measures memory, or single-steps)
"""
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
import uuid
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import build
import java
import machine
from shell import (BUILD, CPUS, LOGS, ROOT, Failure, end_group, forget, output, run, say, seconds,
                   start, status, stop_all)

SUMMARY = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.MULTILINE)
GRACE = 20  # seconds for the processes of an ended part to notice
interrupted = threading.Event()


class Part:
    """Something with a name that can be run by itself."""

    def __init__(self, name, command, preset="release", env=None, timeout=300, labels=(),
                 serial=False, cwd=None, kind="ctest", skip_code=None):
        self.name, self.command, self.preset = name, command, preset
        self.env, self.timeout, self.labels = env or {}, timeout, set(labels)
        self.serial, self.cwd, self.kind, self.skip_code = serial, cwd, kind, skip_code
        self.passed = self.failed = self.skipped = 0
        self.took = 0.0

    def reset(self):
        self.passed = self.failed = self.skipped = 0

    def title(self):
        return self.name if self.preset == "release" else f"{self.name} [{self.preset}]"


# ---- what there is -----------------------------------------------------------------------------

def ctest_parts(preset):
    """The tests that the build of this preset knows."""
    text = output(["ctest", "--test-dir", build.folder(preset), "--show-only=json-v1"])
    if text is None:
        raise Failure(f"ctest cannot list the tests of {preset}")
    parts = []
    for test in json.loads(text)["tests"]:
        properties = {p["name"]: p["value"] for p in test.get("properties", [])}
        env = dict(item.split("=", 1) for item in properties.get("ENVIRONMENT", []))
        skip = properties.get("SKIP_RETURN_CODE")
        parts.append(Part(test["name"], test.get("command", [test["name"]]), preset, env,
                          float(properties.get("TIMEOUT", 300)), properties.get("LABELS", []),
                          bool(properties.get("RUN_SERIAL", False)),
                          properties.get("WORKING_DIRECTORY"), skip_code=skip))
    return parts


def check_part():
    return Part("check", [sys.executable, ROOT / "tools" / "check.py"], kind="check")


def python_parts():
    """One part per test file, so that one can be named; the package's and the repository's own."""
    found = sorted((build.PACKAGE / "tests").glob("test_*.py"))
    found += sorted((ROOT / "tests").glob("*/test_*.py"))
    parts = []
    for path in found:
        text = path.read_text()
        labels = {label for label in ("slow", "long") if f"libray-test: {label}" in text}
        limit = re.search(r"^libray-test: timeout (\d+)$", text, re.MULTILINE)
        parts.append(Part("py_" + path.stem[5:], [path], kind="pytest",
                          timeout=int(limit.group(1)) if limit else 600, labels=labels,
                          serial="libray-test: serial" in text))
    return parts


def java_parts():
    """What Maven tests. Without a JDK or Maven they say so and count as skipped."""
    script = ROOT / "tools" / "devtool" / "java.py"
    limits = {"test": 900, "jni": 1200, "package": 900, "model": 900}
    return [Part("java" if name == "test" else f"java_{name}", [sys.executable, script, name], kind="java", timeout=limit,
                 serial=name != "test",  # one at a time in build/java
                 labels={"test": set(), "jni": {"long"}}.get(name, {"slow"})) for name, limit in limits.items()]


def rust_parts():
    """What cargo tests. Without cargo they say so and count as skipped."""
    script = ROOT / "tools" / "devtool" / "rust.py"
    limits = {"test": 900, "samples": 600, "package": 900, "msrv": 900, "model": 900}
    return [Part("rust" if name == "test" else f"rust_{name}", [sys.executable, script, name], kind="rust", timeout=limit,
                 serial=name == "model",
                 labels={"rust"} | ({"slow"} if name in ("package", "msrv", "model") else set()))
            for name, limit in limits.items()]


# ---- running one -------------------------------------------------------------------------------

def left_behind(mark):
    """Processes that carry this part's mark in their environment."""
    needle = f"LIBRAY_TEST_MARK={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                if state != "Z":
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found.append((int(entry.name), command.strip()))
        except (OSError, IndexError):
            continue
    return found


def wait_for_end(mark):
    """Gives the part's processes a moment to end; kills and returns those that stay."""
    deadline = time.monotonic() + (0 if interrupted.is_set() else GRACE)
    while True:
        found = left_behind(mark)
        if not found or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for pid, _ in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return found


def environment(part, mark, scratch, report):
    env = build.environment()
    env.update({"LIBRAY_TEST_MARK": mark, "LIBRAY_TMPDIR": str(scratch), "TMPDIR": str(scratch),
                "GTEST_OUTPUT": f"xml:{report}", "GTEST_COLOR": "no",
                "LIBRAY_CHECKS": "1",  # the daemon looks at its invariants after every decision
                "LIBRAY_TEST_PYTHON": str(machine.python()),  # for a test that runs ./dev
                "LIBRAY_ROOT": str(ROOT), "LIBRAY_BUILD": str(build.folder(part.preset))})
    if part.preset != "release":
        env["LIBRAY_TEST_SLOW"] = "5"
    if part.preset == "asan+ubsan":
        env["ASAN_OPTIONS"] = "detect_leaks=1:abort_on_error=0:detect_stack_use_after_return=0"
        env["UBSAN_OPTIONS"] = "print_stacktrace=1"
        suppressions = ROOT / "tools" / "lsan.supp"
        if suppressions.exists():
            env["LSAN_OPTIONS"] = f"suppressions={suppressions}:print_suppressions=0"
    if part.preset == "tsan":
        suppressions = ROOT / "tools" / "tsan.supp"
        extra = f" suppressions={suppressions}" if suppressions.exists() else ""
        env["TSAN_OPTIONS"] = "halt_on_error=1 second_deadlock_stack=1" + extra
    env.update(part.env)
    return env


def count_xml(part, report):
    """Counts of a junit-style report; False when there is none."""
    try:
        root = ElementTree.parse(report).getroot()
    except (OSError, ElementTree.ParseError):
        return False
    for case in root.iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            part.failed += 1
        elif case.find("skipped") is not None or case.get("status") == "notrun" \
                or case.get("result") == "skipped":
            part.skipped += 1
        else:
            part.passed += 1
    return part.passed + part.failed + part.skipped > 0


def count(part, code, report, text):
    """Fills in the counts from the part's report, its own summary line, or its exit status."""
    summaries = SUMMARY.findall(text)
    if count_xml(part, report):
        pass
    elif summaries:
        part.passed, part.failed, part.skipped = (int(n) for n in summaries[-1])
    elif part.skip_code is not None and code == int(part.skip_code):
        part.skipped = 1
        return
    else:
        part.passed = 1 if code == 0 else 0
    if code != 0 and part.failed == 0:
        part.failed = 1


def command_of(part, report):
    if part.kind != "pytest":
        return part.command
    return [build.venv_python(), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no",
            f"--junitxml={report}", *part.command]


def run_part(part, keep):
    mark = uuid.uuid4().hex
    name = re.sub(r"[^A-Za-z0-9_.+-]", "_", part.title().replace(" ", "-"))
    scratch = Path("/tmp") / f"libray-test-{mark[:8]}"  # short: socket paths hold 107 characters
    scratch.mkdir(mode=0o700)
    log, report = LOGS / f"test-{name}.log", LOGS / f"test-{name}.xml"
    report.unlink(missing_ok=True)
    began = time.monotonic()
    with open(log, "w") as out:
        process = start(command_of(part, report), env=environment(part, mark, scratch, report),
                        cwd=part.cwd or ROOT, stdout=out, stderr=out)
        try:
            code = process.wait(part.timeout * (1 if part.preset == "release" else 3))
        except Exception:
            end_group(process, signal.SIGABRT)
            time.sleep(0.5)
            end_group(process)
            process.wait()
            code = -1
            out.write(f"\nended: it took longer than its {part.timeout:.0f} s\n")
        forget(process)
        rest = wait_for_end(mark)
    if rest:
        with open(log, "a") as out:
            out.write("\nleft behind, killed by the test runner:\n")
            out.writelines(f"  {pid} {command}\n" for pid, command in rest)
    text = log.read_text(errors="replace")
    count(part, code, report, text)
    if rest:
        part.failed += 1
    part.took = time.monotonic() - began
    if part.failed == 0 and not keep:
        shutil.rmtree(scratch, ignore_errors=True)
    else:
        with open(log, "a") as out:
            out.write(f"\nsessions kept in {scratch}\n")
    return part


# ---- running many ------------------------------------------------------------------------------

class Progress:
    def __init__(self, total):
        self.total, self.done, self.running = total, 0, []
        self.lock = threading.Lock()

    def show(self):
        status(f"[{self.done}/{self.total}] " + ", ".join(self.running))

    def begin(self, part):
        with self.lock:
            self.running.append(part.title())
            self.show()

    def end(self, part):
        with self.lock:
            self.running.remove(part.title())
            self.done += 1
            counts = f"{part.passed} passed"
            counts += f", {part.failed} failed" if part.failed else ""
            counts += f", {part.skipped} skipped" if part.skipped else ""
            verdict = "FAILED" if part.failed else "ok"
            say(f"[{self.done}/{self.total}] {part.title():<36} {verdict:<6} {counts}"
                f"  ({part.took:.1f} s)")
            if part.failed:
                name = re.sub(r"[^A-Za-z0-9_.+-]", "_", part.title().replace(" ", "-"))
                lines = (LOGS / f"test-{name}.log").read_text(errors="replace").splitlines()
                say("\n".join("    " + line for line in lines[-120:]))
            self.show()


def run_parts(parts, keep):
    """Side by side first, then those that want the machine for themselves."""
    LOGS.mkdir(parents=True, exist_ok=True)
    progress = Progress(len(parts))

    def one(part):
        if interrupted.is_set():
            return part
        progress.begin(part)
        run_part(part, keep)
        if not interrupted.is_set():
            progress.end(part)
        return part

    together = [p for p in parts if not p.serial]
    with ThreadPoolExecutor(max_workers=max(1, CPUS)) as pool:
        futures = [pool.submit(one, part) for part in together]
        try:
            for future in futures:
                future.result()
        except KeyboardInterrupt:
            interrupted.set()
            for future in futures:
                future.cancel()
            stop_all()
            raise
    for part in parts:
        if part.serial:
            one(part)


def try_again(parts, keep):
    """Runs what failed once more, alone; returns the titles of parts that pass then. They are named at
    the end: a part that needs this has a fault or a wait that is too short."""
    passed_now = []
    for part in [p for p in parts if p.failed]:
        say(f"once more, alone: {part.title()}")
        part.reset()
        run_part(part, keep)
        say(f"  {part.passed} passed, {part.failed} failed ({part.took:.1f} s)")
        if not part.failed:
            passed_now.append(part.title())
    return passed_now


def matches(part, names):
    for name in names:
        if part.name == name or part.title() == name:
            return True
        if name == "python" and part.kind == "pytest":
            return True
        if name in part.labels:
            return True
    return False


def sanitizer_parts(args):
    names, parts = args.names, []
    build.build("asan+ubsan")
    parts += [p for p in ctest_parts("asan+ubsan") if "nosan" not in p.labels]
    build.configure("tsan")
    chosen = [p for p in ctest_parts("tsan") if "tsan" in p.labels]
    targets = [p.name for p in chosen if build.has_target("tsan", p.name)]
    if targets:
        build.build("tsan", targets)
        chosen = [p for p in ctest_parts("tsan") if "tsan" in p.labels]  # built: with their paths
    parts += chosen
    if not args.all and not names:
        parts = [p for p in parts if "long" not in p.labels]
    return [p for p in parts if not names or matches(p, names)]


FUZZ_SECONDS = 15  # per target in a test run; ./dev fuzz searches longer
FUZZ_SECONDS_OF_ALL = 60


def fuzz_targets():
    """All of them; "planted" has a bug, which its part expects to be found."""
    return sorted(path.stem for path in (ROOT / "fuzz").glob("*.cc"))


def fuzz_parts(args):
    """One part per fuzz target: libFuzzer searches for a few seconds. Builds them if any is chosen."""
    script = ROOT / "tools" / "fuzz.sh"
    seconds_each = FUZZ_SECONDS_OF_ALL if args.all else FUZZ_SECONDS
    parts = []
    for name in fuzz_targets():
        command = [script, name, seconds_each]
        if name == "planted":
            found = f'"{script}" planted 60 2>&1 | grep -q "heap-buffer-overflow"'
            command = ["bash", "-c", found]
        parts.append(Part(f"fuzz_{name}", command, labels={"slow", "fuzz"}, kind="fuzz"))
    parts = [p for p in parts if not args.names or matches(p, args.names)]
    if not parts or args.quick:
        return []
    build.require("build", "fuzz")
    run([script, "build"], "build the fuzz targets", env=build.environment())
    return parts


def build_for(preset, names):
    """Everything; for parts that were named, the product and what those parts run."""
    build.configure(preset)
    parts = ctest_parts(preset) if names else []
    chosen = {part.name for part in parts if matches(part, names)}
    if "capi_symbols" in chosen:  # a script over the product and the objects of all tests in C
        chosen.remove("capi_symbols")
        chosen |= {part.name for part in parts if "capi" in part.labels} - {"capi_symbols"}
    if any(name in ("python", "slow", "long") or name.startswith("py_kill") for name in names):
        chosen |= {"kill_program", "kill_program_cpp"}
    if any(name in ("python", "slow", "long") or name.startswith("py_steady") for name in names):
        chosen.add("steady_program")
    if any(name in ("python", "slow", "long") or name.startswith("py_model") for name in names):
        chosen |= {"conformance_driver", "conformance_driver_cpp"}  # cargo and Maven build the others when they are used
    if any(name in ("python", "cross") or name.startswith("py_cross") for name in names):
        chosen.add("cross_program")
    if not names or not all(build.has_target(preset, name) for name in chosen):
        return build.build(preset)
    return build.build(preset, (build.PRODUCT if preset == "release" else []) + sorted(chosen))


def release_parts(args):
    machine_parts = [check_part()]
    build_for("release", args.names)
    machine_parts += ctest_parts("release")
    python = python_parts()
    wanted = [p for p in machine_parts + python + java_parts() + rust_parts() if not args.names or matches(p, args.names)]
    if any(p.kind == "pytest" or "python" in p.labels for p in wanted):
        build.install_package()
        sample = ROOT / "samples" / "python" / "requirements.txt"
        if sample.exists():
            build.install_requirements(sample)
    if any(p.kind == "java" for p in wanted):
        java.install()
        if java.is_there():
            java.build_native()
    if args.quick:
        wanted = [p for p in wanted if "slow" not in p.labels]
    if not args.all:
        wanted = [p for p in wanted if "long" not in p.labels or args.names]
    return wanted + fuzz_parts(args)


def print_list():
    build.require("build")
    build.configure("release")
    say("parts (name one or more; a label names all parts that carry it):")
    for part in [check_part(), *ctest_parts("release"), *python_parts(), *java_parts(), *rust_parts()]:
        say(f"  {part.name:<32} {' '.join(sorted(part.labels))}")
    for name in fuzz_targets():
        say(f"  fuzz_{name:<27} fuzz slow")
    say("  python                           all pytest parts")
    return 0


def do_test(args):
    if args.list:
        return print_list()
    build.require("build")
    began = time.monotonic()
    parts, second = [], []
    for repetition in range(args.repeat):
        chosen = [] if args.sanitize else release_parts(args)
        run_parts(chosen, args.keep)
        if args.sanitize or not (args.quick or args.names or args.no_sanitize):
            under = sanitizer_parts(args)
            run_parts(under, args.keep)
            chosen = chosen + under
        if args.again:
            second += try_again(chosen, args.keep)
        parts += chosen
        if any(p.failed for p in chosen):
            break
    passed, failed, skipped = (sum(getattr(p, field) for p in parts)
                               for field in ("passed", "failed", "skipped"))
    if not parts:
        raise Failure(f"no part is called {' or '.join(args.names)}; see ./dev test --list")
    bad = [p.title() for p in parts if p.failed]
    say(f"\n{len(parts)} parts in {seconds(began)}; logs in build/logs")
    if second:
        say("passed only when run again: " + ", ".join(second))
    if bad:
        say("failed: " + ", ".join(bad))
    say(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or passed == 0 else 0
