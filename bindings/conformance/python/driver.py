"""The Python driver: reads programs from standard input, one line each, and answers on standard output (../SPEC.md)."""
import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import libray  # noqa: E402
from libray import _libray  # noqa: E402
from libray.core import process  # noqa: E402
from machine import Machine, body_text, drive, options  # noqa: E402

asking = threading.Lock()


def say(text):
    data = text.encode() + b"\n"
    while data:
        data = data[os.write(1, data):]


class Driver(Machine):
    async def op_driver(self, words):
        done = subprocess.run([sys.executable, "-u", __file__, "--join", _session(), words[1], self.path + ".",
                               body_text(words[2])], stdin=subprocess.DEVNULL, check=False)
        self.tell(f"x {done.returncode if done.returncode >= 0 else 1000 - done.returncode}")

    async def op_fault(self, words):
        with asking:
            say(f"f {words[1]} {words[2]}")
            line = sys.stdin.readline()
        if not line:
            os._exit(3)
        self.tell("ok" if line.startswith("ok") else "no")


def _session():
    return str(process.session_dir())


def run(text, bound, prefix=""):
    machine = Driver(say=say, bound=bound)
    for _ in drive(machine.steps(text, prefix)):
        pass
    for thread in machine.threads.values():
        thread.join()
    machine.remove_groups()
    machine.slots.clear()


def start(line):
    given = options(line.split())
    resources = {k: float(v) for k, v in (p.rsplit(":", 1) for p in given.get("resources", "").split(",") if p)}
    libray.init(num_cpus=float(given.get("cpus", 2)), object_store_memory=int(given.get("store", 1 << 26)),
                resources=resources, log_to_driver=False, namespace="model")
    say(f"started {os.getpid()} {_session()}")
    return float(given.get("bound", 20000)) / 1000


def query(what):
    gc.collect()
    value = _libray.query(what, b"")
    say("q " + _libray.encode(value, False)[1].hex())


def serve():
    bound = 20.0
    for line in iter(sys.stdin.readline, ""):
        line = line.rstrip("\n")
        if line.startswith("init"):
            bound = start(line[4:])
        elif line.startswith("run "):
            run(line[4:], bound)
            say("done")
        elif line.startswith("query "):
            query(line[6:])
        elif line == "count":
            say(f"n {len(os.listdir('/proc/self/fd')) - 1} {threading.active_count()}")
        elif line == "end":
            libray.shutdown()
            say("bye RAY_OK")
            return


def join(session, mode, prefix, text):
    libray.init(address=session, log_to_driver=False, namespace="model")
    run(text, 20.0, prefix)
    if mode == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "leave":
        os._exit(0)
    libray.shutdown()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--join"]:
        join(*sys.argv[2:])
    else:
        serve()
