"""Running commands: progress on one line, output in build/logs, nothing left behind.

Every command runs in a process group of its own, so that a timeout or Ctrl-C ends it with all its
children. Used by the rest of devtool, from the main thread and from the test runner's threads.
"""
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
LOGS = BUILD / "logs"
CPUS = len(os.sched_getaffinity(0))

_groups = {}  # pid -> Popen of every command that runs
_lock = threading.Lock()
_tty = sys.stdout.isatty()


class Failure(Exception):
    """Ends ./dev with this message and exit status 1."""


def say(text=""):
    """One whole line; wipes the status line first."""
    with _lock:
        sys.stdout.write(("\r\033[K" if _tty else "") + text + "\n")
        sys.stdout.flush()


def status(text):
    """The line at the bottom of a terminal that is overwritten; nothing in a log."""
    if _tty:
        with _lock:
            columns = os.get_terminal_size().columns if _tty else 100
            sys.stdout.write("\r\033[K" + text[: max(20, columns - 1)])
            sys.stdout.flush()


def seconds(since):
    passed = time.monotonic() - since
    return f"{passed:.1f} s" if passed < 100 else f"{passed / 60:.1f} min"


def start(command, **kwargs):
    """Popen in a process group of its own, known to stop_all."""
    kwargs.setdefault("cwd", ROOT)
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    process = subprocess.Popen([str(c) for c in command], start_new_session=True, **kwargs)
    with _lock:
        _groups[process.pid] = process
    return process


def end_group(process, sig=signal.SIGKILL):
    try:
        os.killpg(process.pid, sig)
    except ProcessLookupError:
        pass


def forget(process):
    with _lock:
        _groups.pop(process.pid, None)


def stop_all():
    """Ctrl-C: asks every group to end, then insists."""
    with _lock:
        running = list(_groups.values())
    for process in running:
        end_group(process, signal.SIGTERM)
    deadline = time.monotonic() + 3
    for process in running:
        try:
            process.wait(max(0.05, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        end_group(process)


def run(command, title, env=None, cwd=ROOT, log=None, tail=60):
    """Runs a command to its end; output goes to build/logs. Raises Failure with the end of it."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = log or LOGS / (re.sub(r"[^a-z0-9+]+", "-", title.lower()).strip("-") + ".log")
    began = time.monotonic()
    last_said = began
    if not _tty:
        say(f"{title} ...")
    lines = []
    process = start(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    text=True, errors="replace")
    with open(log, "w") as out:
        for line in process.stdout:
            out.write(line)
            lines.append(line)
            del lines[:-tail]
            text = line.strip()
            step = re.match(r"\[(\d+)/(\d+)\]", text)
            status(f"{title}: {text}  ({seconds(began)})" if text else title)
            if not _tty and step and time.monotonic() - last_said > 20:
                last_said = time.monotonic()
                say(f"  {title}: {step.group(0)} after {seconds(began)}")
    code = process.wait()
    forget(process)
    if code != 0:
        say(f"{title}: failed (exit status {code})")
        sys.stdout.write("".join(lines))
        raise Failure(f"{title} failed; the whole output is in {log.relative_to(ROOT)}")
    say(f"{title}: {seconds(began)}")


def output(command, **kwargs):
    """The standard output of a short command, or None when it fails or does not exist."""
    try:
        done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True,
                              **kwargs)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


# ---- stamps: a step whose inputs have not changed is not done again ----------------------------

def digest(*parts):
    """Hash of strings and of the contents of files."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            state.update(str(part).encode())
            state.update(part.read_bytes() if part.is_file() else b"absent")
        else:
            state.update(str(part).encode())
        state.update(b"\0")
    return state.hexdigest()


def is_stamped(name, value):
    stamp = BUILD / "stamps" / name
    return stamp.is_file() and stamp.read_text() == value


def set_stamp(name, value):
    stamp = BUILD / "stamps" / name
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(value)
