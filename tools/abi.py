#!/usr/bin/env python3
"""The record of the C ABI: what include/ray.h promises, as lines that can be compared. Standard library and a C compiler.

usage: abi.py show HEADER                 prints the record of a header
       abi.py check RECORDS HEADER        the header is the newest record of that folder, and each record can be used with
                                          every later library of the same major version (docs/abi.md says what that means)
       abi.py write RECORDS HEADER        makes or renews the record of the header's version: HEADER itself and its lines

A record is RECORDS/MAJOR.MINOR/ray.h and RECORDS/MAJOR.MINOR/ray.abi. Run as the part `abi` of `./dev test`.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def without_comments(source):
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", source, flags=re.DOTALL)


def one_line(text):
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"\s*\*\s*", " *", text).replace("( ", "(").replace("* *", "**").replace("( *", "(*")


def functions(source):
    """(name, result and parameters) of everything that is exported."""
    for result, name, parameters in re.findall(r"\bRAY_API\b\s+([^;{}()]*?)\b(ray_\w+)\s*\(([^;{}]*?)\)\s*;", source):
        yield name, f"{one_line(result)} ({one_line(parameters)})"


def callbacks(source):
    for result, name, parameters in re.findall(r"\btypedef\s+([^;{}()]*?)\(\s*\*\s*(\w+)\s*\)\s*\(([^;{}]*?)\)\s*;",
                                               source):
        yield name, f"{one_line(result)} ({one_line(parameters)})"


def structs(source):
    """(name, [(field, type)])."""
    for name, body in re.findall(r"\btypedef\s+struct\s+(\w+)\s*\{(.*?)\}\s*\w+\s*;", source, re.DOTALL):
        yield name, list(fields(body))


def fields(body):
    for declaration in filter(None, (one_line(d) for d in body.split(";"))):
        pointer = re.fullmatch(r"(.*?)\(\*(\w+)\)\s*\((.*)\)", declaration)
        if pointer:
            yield pointer.group(2), f"{pointer.group(1).strip()} (*)({pointer.group(3)})"
            continue
        first, *more = declaration.split(",")
        kind, name = re.fullmatch(r"(.*?)(\w+(?:\[\w+\])?)", first.strip()).groups()
        for one in [name, *(m.strip() for m in more)]:
            plain, _, array = one.partition("[")
            stars = "*" * plain.count("*")
            yield plain.replace("*", "").strip(), one_line(kind) + stars + (f" [{array}" if array else "")


def enumerators(source):
    for body in re.findall(r"\benum\s*\{(.*?)\}", source, re.DOTALL):
        for one in body.split(","):
            name = one.split("=")[0].strip()
            if name:
                yield name


def numbers(source):
    """Macros that stand for a number."""
    for name, value in re.findall(r"^#define\s+(RAY_\w+)[ \t]+(\S[^\n]*)$", source, re.MULTILINE):
        if name != "RAY_API_VERSION" and re.fullmatch(r"[-()\w\s*+]+", value) and re.search(r"\d|SIZE_MAX|_MAX", value):
            yield name


def measured(header, source):
    """Lines with what a compiler makes of the header: sizes, offsets, values."""
    program = ["#define RAY_ALLOW_UNSTABLE", "#include <ray.h>", "#include <stdio.h>", "int main(void) {"]
    say = program.append
    say('printf("version %u.%u.%u\\n", RAY_API_VERSION >> 16, RAY_API_VERSION >> 8 & 255, RAY_API_VERSION & 255);')
    for name in numbers(source):
        say(f'printf("number {name} %lld\\n", (long long)({name}));')
    for name in enumerators(source):
        say(f'printf("number {name} %lld\\n", (long long)({name}));')
    for name, members in structs(source):
        say(f'printf("struct {name} size %zu\\n", sizeof({name}));')
        for field, kind in members:
            say(f'printf("field {name}.{field} offset %zu size %zu type {kind}\\n", offsetof({name}, {field}), '
                f'sizeof((({name} *)0)->{field}));')
    say("return 0; }")
    compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        shutil.copy(header, path / "ray.h")
        (path / "sizes.c").write_text("\n".join(program))
        subprocess.run([compiler, "-std=c99", "-w", "-I", folder, path / "sizes.c", "-o", path / "sizes"], check=True)
        return subprocess.run([path / "sizes"], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def record(header):
    source = without_comments(Path(header).read_text())
    lines = measured(header, source)
    lines += [f"function {name} {signature}" for name, signature in functions(source)]
    lines += [f"callback {name} {signature}" for name, signature in callbacks(source)]
    return [lines[0], *sorted(set(lines[1:]))]


# ---- a second opinion


def stub(header, folder):
    """A library that defines every function of a header, with debug information: what abidiff reads in a moment, where the
    real library takes it minutes."""
    source = without_comments(Path(header).read_text())
    program = ["#include <ray.h>", "#include <stdlib.h>"]
    for name, signature in functions(source):
        if not name.startswith("ray_test_"):
            result, parameters = signature.split(" (", 1)
            program.append(f"{result} {name}({parameters} {{ abort(); }}")
    folder.mkdir()
    shutil.copy(header, folder / "ray.h")
    (folder / "stub.c").write_text("\n".join(program) + "\n")
    compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
    subprocess.run([compiler, "-std=c99", "-w", "-g", "-fno-eliminate-unused-debug-types", "-shared", "-fPIC", "-I", folder,
                    folder / "stub.c", "-o", folder / "libray.so"], check=True)
    return folder / "libray.so"


INCOMPATIBLE = 8  # bit of abidiff's exit status; 4: a change, 1 and 2: it could not look


def abidiff(old, new):
    """What libabigail finds that breaks programs of the old header; None: it is not installed (Debian: abigail-tools)."""
    if shutil.which("abidiff") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        before, after = stub(old, Path(folder) / "old"), stub(new, Path(folder) / "new")
        done = subprocess.run(["abidiff", before, after], stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines() if done.returncode & (INCOMPATIBLE | 3) else []


# ---- what may change


def entries(lines):
    """What a record says of each name: ("field", "ray_value.data") -> the rest of its line."""
    out = {}
    for line in lines[1:]:
        kind, name, rest = line.split(" ", 2)
        out[kind, name] = rest
    return out


# May get further enumerators, so their counts change; struct_size tells a library how much of a struct its caller has.
COUNTS = {"RAY_LANG_COUNT"}


def breaks(old, new):
    """What a program that was built with `old` would meet in a library of `new`."""
    before, after = entries(old), entries(new)
    grows = {name.split(".")[0] for kind, name in before if kind == "field" and name.endswith(".struct_size")}
    for (kind, name), said in before.items():
        if name.startswith("ray_test_"):  # RAY_ALLOW_UNSTABLE
            continue
        now = after.get((kind, name))
        if now is None:
            yield f"{kind} {name} is gone"
        elif now != said and kind == "struct" and name in grows:
            if int(now.split()[1]) < int(said.split()[1]):
                yield f"struct {name} has shrunk from {said} to {now}"
        elif now != said and name not in COUNTS:
            yield f"{kind} {name} was '{said}' and is '{now}'"
    yield from misplaced(before, after, grows)


def misplaced(before, after, grows):
    """New fields lie behind the old end of their struct."""
    for (kind, name), said in after.items():
        owner = name.split(".")[0]
        if kind != "field" or (kind, name) in before or ("struct", owner) not in before:
            continue
        end = int(before["struct", owner].split()[1])
        if owner not in grows or int(said.split()[1]) < end:
            yield f"field {name} lies inside of what older programs have"


def version_of(lines):
    return tuple(int(part) for part in lines[0].split()[1].split("."))


def records(folder):
    """(version, lines) of each, oldest first."""
    found = [(path, path.read_text().splitlines()) for path in sorted(Path(folder).glob("*/ray.abi"))]
    return sorted((version_of(lines), path.parent, lines) for path, lines in found)


def check(folder, header):
    counts = [0, 0]

    def result(complaints):
        complaints = list(complaints)
        for complaint in complaints:
            print(complaint)
        counts[bool(complaints)] += 1

    now = record(header)
    known = records(folder)
    for _, path, lines in known:
        same = record(path / "ray.h") == lines
        result([] if same else [f"{path}/ray.abi is not the record of {path}/ray.h"])
    newest = known[-1][2] if known else []
    differs = [f"the header says '{line}', the record does not" for line in now if line not in newest]
    differs += [f"the record says '{line}', the header does not" for line in newest if line not in now]
    if differs:
        differs.append(f"a change of the ABI: look at docs/abi.md, then: tools/abi.py write {folder} {header}")
    result(differs)
    skipped = 0
    for version, path, lines in known[:-1]:
        if version[0] == known[-1][0][0]:
            result(f"{'.'.join(map(str, version))}: {b}" for b in breaks(lines, now))
            found = abidiff(path / "ray.h", header)
            skipped += found is None
            if found is not None:
                result(found)
    print(f"{counts[0]} passed, {counts[1]} failed, {skipped} skipped")
    return 1 if counts[1] else 0


def write(folder, header):
    lines = record(header)
    major, minor, _ = version_of(lines)
    place = Path(folder) / f"{major}.{minor}"
    place.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(header, place / "ray.h")
    (place / "ray.abi").write_text("\n".join(lines) + "\n")
    print(f"wrote {place}")
    return 0


def main():
    command, *arguments = sys.argv[1:] or ["help"]
    if command == "show" and len(arguments) == 1:
        print("\n".join(record(arguments[0])))
        return 0
    if command in ("check", "write") and len(arguments) == 2:
        return {"check": check, "write": write}[command](*arguments)
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main())
