"""Command line of ./dev: parses, installs what is missing, hands over. See ./dev --help."""
import argparse
import signal
import sys
import time

import bench
import build
import java
import languages
import machine
import programs
import runner
import rust
from shell import ROOT, Failure, forget, output, run, say, seconds, start, stop_all

BENCH = """Measures every row and prints it beside its targets. Most of these are factors of a yardstick that the same run
measures on the same machine (OpenMP tasks, bare rings, memcpy, a process pool), since hosts differ threefold:
"≥ 0.8 × OpenMP: 0.56  missed" is a row that reaches 0.56 of the yardstick and should reach 0.8. Nothing fails because
a target is missed. Five minutes of a whole run are a driver that never pauses; docs/performance.md says what the rows mean."""

EPILOG = """examples:
  ./dev run                    install what is missing, build, train the sample policy
  ./dev run --lang java        a sample that is there in every language; all: in all at once
  ./dev test                   everything, sanitizers included; ends with the counts
  ./dev test --quick           what takes a minute
  ./dev test --all             the long versions too
  ./dev test --list            the parts that can be named
  ./dev test capi_tasks        one part
  ./dev programs --peer ray    programs for Ray, on libray and on Ray
  ./dev bench --json out.json  the figures, beside their targets

Outputs go to build/: logs in build/logs, the Python environment in build/venv.
"""


def add_test(commands):
    test = commands.add_parser("test", help="run the tests; the last line holds the counts")
    test.add_argument("names", nargs="*", metavar="NAME", help="parts to run: see --list")
    test.add_argument("--list", action="store_true", help="print the names of all parts")
    test.add_argument("--quick", action="store_true", help="what takes a minute, no sanitizers")
    test.add_argument("--all", action="store_true",
                      help="the long versions too: parts labelled long, a minute of fuzzing per target")
    test.add_argument("--sanitize", action="store_true",
                      help="only asan+ubsan over the C and C++ tests, tsan over lock-free parts")
    test.add_argument("--repeat", type=int, default=1, metavar="N",
                      help="run the chosen parts N times, stop at the first failure")
    test.add_argument("--no-sanitize", action="store_true", help="all but the sanitized builds")
    test.add_argument("--again", action="store_true",
                      help="run parts that failed once more, alone; those that pass then are named")
    test.add_argument("--keep", action="store_true", help="keep the sessions of passed tests")


def parser():
    top = argparse.ArgumentParser(
        prog="./dev", description="Build, run, test and measure libray.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("setup", help="install what is missing, make the Python environment, get Maven's plugins and crates")
    one = commands.add_parser("build", help="build the library, the daemon and the Python package")
    one.add_argument("--preset", default="release", choices=sorted(build.FOLDERS))
    one.add_argument("targets", nargs="*", help="CMake targets, or all; default: what users get")
    one.add_argument("--lang", choices=languages.NAMES, help="what programs of one language need, with its tools alone")
    commands.add_parser("wheel", help="build the Python wheel into build/packages, with the manylinux tag that auditwheel finds")
    one = commands.add_parser("run", help="run the main job: train a policy, then serve it")
    one.add_argument("--peer", choices=["ray"], help="run it on the real Ray instead, from PyPI")
    one.add_argument("--lang", choices=[*languages.NAMES, "all"],
                     help="a sample in this language instead: samples/pole, which all have, or the one that is named")
    one.add_argument("arguments", nargs=argparse.REMAINDER,
                     help="with --lang: SAMPLE and its arguments; else passed on to samples/python/evolve.py")
    add_test(commands)
    one = commands.add_parser("bench", help="measure and print one table", description=BENCH)
    one.add_argument("--json", metavar="FILE", help="also write the rows to FILE")
    one.add_argument("--filter", default="", metavar="TEXT",
                     help="only rows whose name holds TEXT, and the limits that they are compared with")
    one.add_argument("--quick", action="store_true",
                     help="short rounds; without what takes long, and 15 s instead of 300 of a driver that never pauses")
    one.add_argument("--only", choices=["c", "cpp", "java", "python", "rust"], help="one language")
    one.add_argument("--peer", action="append", choices=sorted(bench.PEERS),
                     help="also on this system, in turns; may be repeated; with ray the main job too, from start to end")
    one.add_argument("--growth", action="store_true",
                     help="also how costs grow with tasks, queue, references and workers, from C, and with the queue "
                          "from Python; minutes")
    one.add_argument("--report", action="store_true", help="write table and charts into docs/")
    one.add_argument("--report-from", metavar="FILE", help="the same from an earlier --json FILE")
    one = commands.add_parser("programs", help="run the programs of samples/ray, compare outputs")
    one.add_argument("names", nargs="*", metavar="NAME", help="programs; default: all")
    one.add_argument("--peer", choices=["ray"], help="run each on the real Ray too, and compare")
    one.add_argument("--write", action="store_true", help="make the outputs the expected ones")
    commands.add_parser("check", help="lint: style, layering, banned calls, exported symbols")
    one = commands.add_parser("fmt", help="format changed C and C++ sources with clang-format")
    one.add_argument("--all", action="store_true", help="all sources, not only changed ones")
    one.add_argument("--since", default="HEAD", metavar="COMMIT",
                     help="changed since this commit (HEAD: what is not committed)")
    one = commands.add_parser("fuzz", help="run the fuzz targets")
    one.add_argument("targets", nargs="*")
    one.add_argument("--seconds", type=int, default=60, help="per target")
    one = commands.add_parser("sim", help="random runs of the scheduler in a world without processes")
    one.add_argument("--seeds", type=int, default=1000, metavar="N", help="runs, each with a seed of its own")
    one.add_argument("--seed", type=int, default=1, help="of the first run; the next has the next one")
    one.add_argument("--trace", action="store_true", help="print all that happens")
    one = commands.add_parser(
        "soak", help="kill parts of running clusters, many times (tests/kill/matrix.py)")
    one.add_argument("--runs", type=int, default=1000)
    one.add_argument("--minutes", type=float, default=0, help="stop after so long; 0 = after all runs")
    one.add_argument("--seed", type=int, default=1, help="of the first run; the next has the next one")
    one.add_argument("--program", choices=languages.NAMES, help="only this one")
    one.add_argument("--jobs", type=int, default=1, help="runs side by side")
    one.add_argument("--verbose", action="store_true", help="a line for every run")
    one = commands.add_parser("model", help="random programs against a model (bindings/conformance/SPEC.md)",
                              add_help=False)
    one.add_argument("arguments", nargs=argparse.REMAINDER, help="--help shows them")
    one = commands.add_parser("clean", help="remove build products; the Python environment stays")
    one.add_argument("--all", action="store_true", help="remove the whole build folder")
    return top


def do_setup(_):
    machine.require("build", "python")
    build.make_venv()
    build.install_dependencies()
    sample = ROOT / "samples" / "python" / "requirements.txt"
    if sample.exists():
        build.install_requirements(sample)
    java.setup()
    rust.setup()


def do_build(args):
    if args.lang:
        return languages.build_one(args.lang)
    build.build(args.preset, args.targets or (build.PRODUCT if args.preset == "release" else ()))
    if args.preset == "release" and not args.targets:
        build.install_package()


def do_wheel(_):
    build.install_package()
    say(f"made {build.make_wheel(build.BUILD / 'packages').relative_to(ROOT)}")


def do_run(args):
    if args.lang:
        return languages.run_sample(args.lang, *args.arguments)
    build.install_package()
    build.install_requirements(ROOT / "samples" / "python" / "requirements.txt")
    script = ROOT / "samples" / "python" / "evolve.py"
    env, python = build.environment(), build.venv_python()
    if args.peer:
        python = bench.peer_python(args.peer)
        build.install_requirements(ROOT / "samples" / "python" / "requirements.txt", python, "peer-ray")
        env = dict(env, LIBRAY_SAMPLE_MODULE=args.peer)
    process = start([python, "-u", script, *args.arguments], env=env)
    code = process.wait()
    forget(process)
    if code:
        raise Failure(f"samples/python/evolve.py ended with status {code}")


def do_check(_):
    run_check = [sys.executable, ROOT / "tools" / "check.py"]
    process = start(run_check)
    code = process.wait()
    forget(process)
    return code


def do_fmt(args):
    machine.require("fmt")
    files = [p for p in build.sources("libray", "store", "gcs", "tests", "samples", "bench", "fuzz",
                                      "bindings") if p.suffix in (".cc", ".h", ".c") and p.exists()]
    if not args.all:
        listed = output(["git", "-C", ROOT, "diff", "--name-only", "--relative", args.since]) or ""
        fresh = output(["git", "-C", ROOT, "ls-files", "-o", "--exclude-standard"]) or ""
        changed = {ROOT / line for line in (listed + fresh).splitlines()}
        files = [p for p in files if p in changed]
    if files:
        run(["clang-format", "-i", "--style=file", *files], f"format {len(files)} files")


def do_fuzz(args):
    script = ROOT / "tools" / "fuzz.sh"
    targets = args.targets or (output([script, "list"]) or "").split()
    machine.require("build", "fuzz")
    for target in targets:
        run([script, target, args.seconds], f"fuzz {target}", env=build.environment())


def do_sim(args):
    build.build("release", ["libray-sim"])
    command = [build.folder("release") / "bin" / "libray-sim", "--seeds", args.seeds, "--seed", args.seed]
    process = start(command + (["--trace"] if args.trace else []))
    code = process.wait()
    forget(process)
    return code


def do_soak(args):
    build.build("release")
    build.install_package()
    command = [build.venv_python(), "-u", ROOT / "tests" / "kill" / "matrix.py"]
    for name in ("runs", "minutes", "seed", "jobs"):
        command += [f"--{name}", getattr(args, name)]
    command += ["--program", args.program] if args.program else []
    command += ["--verbose"] if args.verbose else []
    process = start(command, env=build.environment())
    code = process.wait()
    forget(process)
    return code


def do_model(args):
    tester = ROOT / "bindings" / "conformance" / "tester"
    if {"-h", "--help", "--show"} & set(args.arguments):  # nothing runs
        return start([sys.executable, tester, *args.arguments]).wait()
    build.build("release")
    build.install_package()
    process = start([build.venv_python(), "-u", tester, *args.arguments], env=build.environment())
    code = process.wait()
    forget(process)
    return code


def main():
    args, rest = parser().parse_known_args()
    if rest and args.command != "model":
        parser().error("unrecognized arguments: " + " ".join(rest))
    if args.command == "model":
        args.arguments = rest + args.arguments
    if args.command is None:
        parser().print_help()
        return 2
    began = time.monotonic()
    actions = {"setup": do_setup, "build": do_build, "wheel": do_wheel, "run": do_run, "check": do_check,
               "test": runner.do_test, "programs": programs.do_programs, "bench": bench.do_bench,
               "fmt": do_fmt, "fuzz": do_fuzz, "sim": do_sim, "soak": do_soak, "model": do_model,
               "clean": lambda a: build.clean(a.all)}
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in the background: the tests send it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        code = actions[args.command](args) or 0
        if args.command not in ("test", "check", "sim", "soak", "model"):
            say(f"done in {seconds(began)}")
        return code
    except Failure as failure:
        say()
        print(f"./dev {args.command}: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say()
        say("interrupted: stopping what runs")
        stop_all()
        return 130
    finally:
        stop_all()


if __name__ == "__main__":
    sys.exit(main())
