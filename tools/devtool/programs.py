"""./dev programs: runs the programs of samples/ray on libray, and with `--peer ray` on the real Ray, and compares what
they print with samples/ray/expected."""
import difflib
import subprocess
import time

import build
from shell import BUILD, ROOT, Failure, say, status

FOLDER = ROOT / "samples" / "ray"
EXPECTED = FOLDER / "expected"
PEER = BUILD / "peers" / "ray"
TIMEOUT = 120
# On the real Ray: without the lines of its daemons and workers, which go among what the program prints.
QUIET = """
import runpy, sys
import ray
init = ray.init
ray._private.worker.listen_error_messages = lambda *args, **options: None
ray.init = lambda *args, **options: init(*args, **{"log_to_driver": False, **options})
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def peer_python():
    """The Python of a virtual environment of its own with the real Ray, which is installed on first use."""
    python = PEER / "bin" / "python"
    if not python.exists():
        status("installing the real Ray ...")
        subprocess.run([build.venv_python(), "-m", "venv", PEER], check=True)
    found = subprocess.run([python, "-c", "import ray"], capture_output=True)
    if found.returncode:
        subprocess.run([python, "-m", "pip", "install", "-q", "ray", "numpy"], check=True)
    return python


def run(command, program, env):
    """(what it printed, seconds); Failure when it fails."""
    began = time.monotonic()
    try:
        done = subprocess.run([*command, program], capture_output=True, text=True, env=env,
                              timeout=TIMEOUT, cwd=FOLDER)
    except subprocess.TimeoutExpired:
        return f"(no end within {TIMEOUT} s)\n", TIMEOUT
    text = done.stdout
    if done.returncode:
        text += f"(status {done.returncode})\n" + done.stderr[-3000:]
    return text, time.monotonic() - began


def difference(expected, text, name):
    return "".join(difflib.unified_diff(expected.splitlines(True), text.splitlines(True),
                                        f"expected/{name}.txt", name))


def do_programs(args):
    build.install_package()
    known = sorted(p for p in FOLDER.glob("*.py"))
    chosen = [p for p in known if not args.names or p.stem in args.names]
    missing = set(args.names) - {p.stem for p in known}
    if missing:
        raise Failure(f"no such program: {', '.join(sorted(missing))}")
    sides = {"libray": [build.venv_python(), "-m", "libray.as_ray"]}
    if args.peer:
        sides["ray"] = [peer_python(), "-c", QUIET]
    different = []
    for program in chosen:
        path = EXPECTED / f"{program.stem}.txt"
        line = f"{program.stem:<24}"
        for side, command in sides.items():
            text, seconds = run(command, program, build.environment())
            if args.write and side == "libray":
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
            expected = path.read_text() if path.exists() else ""
            if text != expected:
                different.append(difference(expected, text, f"{program.stem} on {side}"))
            line += f"  {side} {'as expected' if text == expected else 'DIFFERS'} {seconds:5.1f} s"
        say(line)
    for each in different:
        say(each)
    if different:
        raise Failure(f"{len(different)} outputs differ")
