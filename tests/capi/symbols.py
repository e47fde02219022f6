#!/usr/bin/env python3
"""The exported symbols of libray.so are the checked-in list, the list is what ray.h declares, and every
one of them is called by a C test. Those that concern a runtime are called in a forked child too (forks.c).

usage: symbols.py LIBRAY_SO RAY_H RAY_SYMBOLS OBJECT...      (--write rewrites the list from the header)
"""
import re
import subprocess
import sys
from pathlib import Path


# Of no runtime: a forked child may call them as well as anybody.
PURE = {"ray_api_version", "ray_build_info", "ray_code_name", "ray_code_is_retryable", "ray_id_to_hex",
        "ray_ref_id", "ray_test_fault",
        "ray_init"}  # called, by kit.c


def nm(*arguments):
    return subprocess.run(["nm", *arguments], check=True, stdout=subprocess.PIPE,
                          text=True).stdout.splitlines()


def declared(header):
    source = re.sub(r"/\*.*?\*/", " ", Path(header).read_text(), flags=re.DOTALL)
    return sorted(set(re.findall(r"\bRAY_API\s[^;(]*?\b(ray_\w+)\s*\(", source)))


def compare(title, left, right, counts):
    """One test: two sets are the same."""
    missing, surplus = sorted(set(right) - set(left)), sorted(set(left) - set(right))
    for name in missing:
        print(f"{title}: {name} is missing")
    for name in surplus:
        print(f"{title}: {name} is too much")
    counts[bool(missing or surplus)] += 1


def main():
    arguments = [a for a in sys.argv[1:] if a != "--write"]
    library, header, listed_in, *objects = arguments
    names = declared(header)
    if "--write" in sys.argv:
        Path(listed_in).write_text("".join(name + "\n" for name in names))
        return 0
    counts = [0, 0]
    listed = Path(listed_in).read_text().split()
    compare("ray.symbols against ray.h", listed, names, counts)
    exported = [line.split()[-1].split("@")[0] for line in nm("-D", "--defined-only", library)]
    exported = [name for name in exported if not re.match(r"^(LIBRAY|RAY)_[\d.]+$", name)]
    compare("libray.so against ray.symbols", exported, listed, counts)
    called = {line.split()[-1] for path in objects for line in nm("-u", path)}
    uncalled = [name for name in listed if name not in called]
    for name in uncalled:
        print(f"no C test calls {name}")
    counts[bool(uncalled)] += 1
    in_child = {line.split()[-1] for path in objects if "capi_forks" in path for line in nm("-u", path)}
    forgotten = [name for name in listed if name not in in_child | PURE]
    for name in forgotten:
        print(f"forks.c does not call {name}")
    counts[bool(forgotten)] += 1
    print(f"{counts[0]} passed, {counts[1]} failed, 0 skipped")
    return 1 if counts[1] else 0


if __name__ == "__main__":
    sys.exit(main())
