"""Random programs against a model: `./dev model --seeds N [--faults] [--seed S] [--driver LANGUAGE[,LANGUAGE]]`.

Runs N programs from the first seed on, some dozens on each session, two sessions side by side; compares each answer with what
the sequential model allows, then looks at what is left. A program that fails is run alone and made small; the report has the
command that runs it again.
"""
import argparse
import collections
import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

import program as programs
import run
import shrink


LANGUAGES = ("c", "cpp", "java", "python", "rust")


def drivers(text):
    names = text.split(",")
    if not all(n in LANGUAGES for n in names) or len(names) > 2 or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"one or two of {', '.join(LANGUAGES)}")
    return text


def arguments():
    p = argparse.ArgumentParser(prog="./dev model", description=__doc__.splitlines()[0])
    p.add_argument("--seeds", type=int, default=1000, help="how many programs")
    p.add_argument("--seed", type=int, default=1, help="of the first program")
    p.add_argument("--faults", action="store_true", help="kill, stop and slow down processes meanwhile")
    p.add_argument("--driver", type=drivers, default="c",
                   help="c, cpp, java, python or rust; two with a comma: programs of which each part runs in one of both")
    p.add_argument("--minutes", type=float, default=0, help="stop after so long; 0 = after all programs")
    p.add_argument("--jobs", type=int, default=5, help="sessions side by side")
    p.add_argument("--stop", type=int, default=5, help="stop after so many failures")
    p.add_argument("--keep-going", action="store_true",
                   help="do not stop: list the failures, make the first --stop of them small")
    p.add_argument("--bound", type=float, default=20, help="seconds in which what has to come must come")
    p.add_argument("--program", help="run the program in this file instead, alone")
    p.add_argument("--show", action="store_true", help="print the programs, run nothing")
    p.add_argument("--no-shrink", action="store_true")
    p.add_argument("--times", type=int, default=1, help="with --program: so often")
    return p.parse_args()


def one_group(first, last, faults, driver, bound):
    """Runs the programs from first to last; (how many ran, failures [(seed or None, kind, text)], seconds)."""
    settings = run.Settings(first // run.GROUP, faults, driver)
    began, failures, seed, count = time.monotonic(), [], first, 0
    while seed <= last:
        numbered = [(s, run.make(s, settings)) for s in range(seed, last + 1)]
        failure = run.run_some(numbered, settings, bound)
        if failure is None:
            count += len(numbered)
            break
        if failure.seed is None:  # at the end: of which program?
            failures.append((None, failure.kind, failure.text, seed, last))
            count += len(numbered)
            break
        count += failure.seed - seed + 1
        failures.append((failure.seed, failure.kind, failure.text, seed, failure.seed))
        seed = failure.seed + 1
    return count, failures, time.monotonic() - began


def culprit(settings, seed, first, last, kind, bound, budget):
    """Programs that fail so when they run on a session of their own: one if one is enough."""
    if seed is not None:
        candidates = [[seed]] * 3 + [list(range(first, last + 1))] * 2
    else:
        candidates = [[s] for s in range(first, last + 1)] + [list(range(first, last + 1))] * 2
    for seeds in candidates:
        if not budget():
            break
        found = run.run_some([(s, run.make(s, settings)) for s in seeds], settings, bound)
        if found is not None and found.kind == kind:
            return seeds
    return None


def save(out, name, seed, one, faults, driver):
    """A file with the program, for --program."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.txt"
    path.write_text(f"# setup group={seed // run.GROUP} faults={int(faults)} driver={driver}\n{programs.text(one)}\n")
    return path


def explain(failure, faults, driver, bound, out, no_shrink):
    """Replays and shrinks; returns the text of the report."""
    seed, kind, text, first, last = failure
    settings = run.Settings((seed or first) // run.GROUP, faults, driver)
    end = time.monotonic() + 240
    budget = lambda: time.monotonic() < end  # noqa: E731
    again = f"./dev model --driver {driver}{' --faults' if faults else ''} --seeds {last - first + 1} --seed {first}"
    report = [f"seed {seed if seed is not None else f'{first}..{last}'}: {kind}: {text}", f"  again: {again}"]
    if no_shrink:
        return "\n".join(report)
    seeds = culprit(settings, seed, first, last, kind, bound, budget)
    if seeds is None:
        return "\n".join(report + ["  it did not fail alone"])
    whole = []
    for s in seeds:
        whole += run.make(s, settings)
    if len(seeds) > 1:
        return "\n".join(report + [f"  it fails with the programs before it ({len(seeds)})"])

    def fails(candidate):
        found = run.run_some([(seeds[0], candidate)], settings, bound)
        return found is not None and found.kind == kind

    small = shrink.shrink(whole, fails, budget)
    path = save(out, f"{driver}-{seeds[0]}-small", seeds[0], small, faults, driver)
    final = run.run_some([(seeds[0], small)], settings, bound)
    says = final.text if final else "nothing, this time"
    return "\n".join(report + [f"  small: {programs.text(small)}", f"  which says: {says}",
                               f"  again: ./dev model --program {path}"])


def run_file(args):
    lines = Path(args.program).read_text().splitlines()
    setup = dict(w.split("=") for w in lines[0].split()[2:])
    settings = run.Settings(int(setup["group"]), setup["faults"] == "1", setup["driver"])
    one = programs.parse("".join(line for line in lines if not line.startswith("#")))
    bad = 0
    for i in range(args.times):
        found = run.run_some([(0, one)], settings, args.bound)
        if found is not None:
            bad += 1
            print(f"{found.kind}: {found.text}")
    print(f"{args.times - bad} passed, {bad} failed, 0 skipped")
    return bool(bad)


def ranges(args):
    at, end = args.seed, args.seed + args.seeds
    while at < end:
        last = min(end, (at // run.GROUP + 1) * run.GROUP) - 1
        yield at, last
        at = last + 1


def main():
    args = arguments()
    if args.program:
        return run_file(args)
    if args.show:
        for s in range(args.seed, args.seed + args.seeds):
            print(programs.text(run.make(s, run.Settings(s // run.GROUP, args.faults, args.driver))))
        return 0
    began, done, failures = time.monotonic(), 0, []
    out = Path(os.environ.get("CONFORMANCE_OUT", run.ROOT / "build" / "model"))
    kinds = collections.Counter()
    todo, running = ranges(args), set()
    for language in args.driver.split(","):
        run.command(language)  # what is to be built for it is built once, before there are several processes
    with ProcessPoolExecutor(args.jobs) as pool:
        told = began
        while True:
            late = args.minutes and time.monotonic() - began > 60 * args.minutes
            over = late or (len(failures) >= args.stop and not args.keep_going)
            while not over and len(running) < args.jobs and (next_ := next(todo, None)):
                running.add(pool.submit(one_group, *next_, args.faults, args.driver, args.bound))
            if not running:
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for f in finished:
                count, found, _ = f.result()
                done += count
                for failure in found:
                    kinds[failure[1]] += 1
                    failures.append(failure)
                    which = failure[0] if failure[0] is not None else f"{failure[3]}..{failure[4]}"
                    print(f"FAILED after {done} programs, {time.monotonic() - began:.0f} s: seed {which}: "
                          f"{failure[1]}: {failure[2]}", flush=True)
                    if failure[0] is not None:
                        whole = run.make(failure[0], run.Settings(failure[0] // run.GROUP, args.faults, args.driver))
                        print("    its program:", save(out, f"{args.driver}-{failure[0]}", failure[0], whole, args.faults,
                                                       args.driver), flush=True)
            if time.monotonic() - told > 30:
                told = time.monotonic()
                print(f"  {done} programs, {len(failures)} failures, {told - began:.0f} s", flush=True)
    seconds = time.monotonic() - began
    print(f"{done} programs in {seconds:.0f} s ({done / seconds:.1f}/s); failures: {dict(kinds)}", flush=True)
    if not args.no_shrink:
        for failure in failures[:args.stop]:
            print(explain(failure, args.faults, args.driver, args.bound, out, args.no_shrink), flush=True)
    print(f"{done - len(failures)} passed, {len(failures)} failed, 0 skipped")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
