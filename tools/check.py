#!/usr/bin/env python3
"""Lint as a test: the rules of this repository that a machine can check. Standard library alone.

Each rule is one function that yields complaints `path:line: what`; each rule counts as one test in
the closing line. Run by `./dev check` and as the part `check` of `./dev test`.
"""
import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools" / "devtool"))

import rust  # noqa: E402

PRODUCT = ("libray", "store", "gcs", "include")
CODE = (".cc", ".h", ".c", ".py", ".rs")

# What a folder may include besides itself, lowest first: docs/architecture.md, "Layers".
LAYERS = {
    "libray/base": [],
    "libray/wire": ["libray/base"],
    "libray/session": ["libray/base", "libray/wire"],
    "libray/lineage": ["libray/base", "libray/wire"],
    "libray/task": [],
    "libray/object": ["libray/base", "libray/wire", "libray/lineage"],
    "libray/sched": ["libray/base", "libray/wire", "libray/lineage"],
    "libray/sched_global": ["libray/base", "libray/sched"],
    "libray/actor": ["libray/base", "libray/wire", "libray/lineage"],
    "libray/net": ["libray/base", "libray/wire"],
    "libray/cluster": ["libray/base", "libray/wire"],
    "libray/relay": ["libray/base", "libray/wire", "libray/lineage", "libray/net", "libray/session",
                     "libray/runtime", "store"],
    "libray/transfer": ["libray/base"],
    "libray/node/core": ["libray/base", "libray/wire", "libray/lineage", "libray/object", "libray/sched", "libray/actor",
                         "libray/cluster"],
    "libray/sim": ["libray/base", "libray/wire", "libray/lineage", "libray/object", "libray/sched",
                   "libray/actor", "libray/task", "libray/node/core"],
    "libray/ffi": ["libray/base", "libray/wire"],
    "store": ["libray/base", "libray/wire"],
    "gcs": ["libray/base", "libray/wire", "libray/lineage", "libray/net"],
    "libray/runtime": ["libray/base", "libray/wire", "libray/session", "libray/lineage", "libray/ffi", "libray/task", "store"],
    "libray/capi": ["libray/base", "libray/wire", "libray/ffi", "libray/runtime"],
    "libray/node": ["libray/base", "libray/wire", "libray/session", "libray/lineage", "libray/object",
                    "libray/sched", "libray/sched_global", "libray/actor", "libray/net", "libray/cluster",
                    "libray/node/core", "store", "gcs"],
    "libray/cli": ["libray/base", "libray/wire", "libray/session", "libray/lineage", "store", "gcs"],
    "bindings/python": [],
    "samples": [],
}
# Protocol cores: no clock, no thread, no lock, no I/O.
PURE = ("libray/task", "libray/object", "libray/sched", "libray/sched_global", "libray/actor", "libray/net/core",
        "libray/cluster", "libray/transfer", "libray/node/core")
IMPURE = re.compile(r"(?<!wire::)\b(steady_ns|wall_ns|std::thread|std::mutex|std::condition_variable|"
                    r"clock_gettime|fopen|read|write|send|recv|printf)\s*\("
                    r"|#include <(thread|mutex)>")
BANNED = re.compile(r"(?<![\w.>:])(?:std::)?((?:strcpy|strcat|sprintf|vsprintf|gets|strtok|system"
                    r"|popen|tmpnam|mktemp|rand|srand|alloca|longjmp|atoi|atol|atof)\s*\("
                    r"|abort\s*\(\s*\))")
MACHINE_PATH = re.compile(r"(?<![\w.])/(work|root|home/\w+|tmp/bash_jobs|opt/wheels)/")
COLUMNS = 130  # clang-format wraps code at 100; tables and prose may overhang
LIMITS = {"include/ray.h": 130}  # the header is read as prose


def files(*suffixes):
    # What git knows: whatever lies beside it, a build for example, is nobody's fault.
    done = subprocess.run(["git", "-C", ROOT, "ls-files", "-c"], stdout=subprocess.PIPE, text=True)
    names = done.stdout.splitlines() if done.returncode == 0 else [
        str(p.relative_to(ROOT)) for p in ROOT.rglob("*")
        if p.is_file() and "build" not in p.relative_to(ROOT).parts]
    return sorted(n for n in names if (ROOT / n).is_file()
                  and (n.endswith(suffixes) or (not suffixes and not is_binary(n))))


def is_binary(name):
    return "/corpus/" in name or name.endswith((".png", ".zst", ".sqlite", ".gz", ".bin", ".svg"))


def text(name):
    return (ROOT / name).read_text(encoding="utf-8", errors="replace")


def lines(name):
    return enumerate(text(name).split("\n"), 1)


def blank(source):
    """C or C++ source with comments and literals replaced by spaces; line numbers stay."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"'
                         r"|'(?:\\.|[^'\\\n])+'", re.DOTALL)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), source)


# ---- rules -----------------------------------------------------------------------------------------

def line_length():
    for name in files(".cc", ".h", ".c", ".py", ".rs", ".txt", ".cmake", ".md"):
        limit = LIMITS.get(name, 160 if name.endswith(".md") else COLUMNS)
        in_code = False
        for number, line in lines(name):
            in_code ^= line.startswith("```")
            if name.endswith(".md") and (line.startswith("|") or "](" in line):
                continue
            if len(line) > limit:
                yield f"{name}:{number}: {len(line)} columns, more than {limit}"


def whitespace():
    for name in files():
        content = text(name)
        for number, line in lines(name):
            if line != line.rstrip():
                yield f"{name}:{number}: white space at the end of the line"
            if re.match(r"(<{7}|>{7}) ", line):
                yield f"{name}:{number}: a conflict that was not resolved"
            if "\t" in line and not name.endswith((".mk", ".tsv", "Makefile")):
                yield f"{name}:{number}: tab"
        if content and not content.endswith("\n"):
            yield f"{name}: no newline at the end"


def file_length():
    for name in files(*CODE):
        count = text(name).count("\n")
        if count > 1000:
            yield f"{name}: {count} lines, more than 1000: where does the second thing begin?"


NOT_A_FUNCTION = re.compile(r"^\s*(namespace|class|struct|enum|union|extern|if|for|while|switch|do|"
                            r"else|try|catch|return|typedef|using|static_assert)\b")


def c_functions(source):
    """(first line, length) of every outermost function body."""
    clean = re.sub(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", lambda m: re.sub(r"[^\n]", " ", m.group(0)),
                   blank(source), flags=re.MULTILINE)  # without directives
    stack, start, line = [], 0, 1
    for at, char in enumerate(clean):
        if char == "\n":
            line += 1
        elif char == "{":
            head = clean[start:at].strip()
            head = re.sub(r"^template\s*<[^{};]*?>\s*(?=\w)", "", head)
            callable_ = "(" in head and not NOT_A_FUNCTION.match(head) and not head.endswith("=")
            stack.append((callable_ and not any(s[0] for s in stack), line))
            start = at + 1
        elif char == "}" and stack:
            is_function, first = stack.pop()
            if is_function:
                yield first, line - first + 1
            start = at + 1
        elif char == ";":
            start = at + 1


def function_length():
    for name in files(".cc", ".h", ".c"):
        for first, length in c_functions(text(name)):
            if length > 70:
                yield f"{name}:{first}: a function of {length} lines, more than 70"
    for name in files(".py"):
        for node in ast.walk(ast.parse(text(name))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = node.end_lineno - node.lineno + 1
                if length > 70:
                    yield f"{name}:{node.lineno}: {node.name} has {length} lines, more than 70"


def layer_of(name):
    return max((layer for layer in LAYERS if name.startswith(layer + "/")), key=len, default=None)


def layering():
    for name in files(".cc", ".h", ".c"):
        own = layer_of(name)
        if own is None:
            continue
        for number, line in lines(name):
            found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            other = layer_of(found.group(1)) if found else None
            if other and other != own and other not in LAYERS[own]:
                yield f"{name}:{number}: {own} may not include {other}"


# The Python package, lowest layer first: docs/architecture.md, "The Python package". A name stands for a module or for a
# folder with all that is in it; "" is `libray` itself.
PYTHON = "bindings/python/libray/"
PYTHON_LAYERS = [["_libray"], ["core", "exceptions"], ["api"], ["driver"], ["worker"],
                 ["", "testing", "cluster_utils", "as_ray", "_cli", "_zygote", "_typing", "_placement", "_serialization"],
                 ["ray", "_shim"]]
# What a module loads because the program said so, whatever the layers: install_as_ray() returns the module `ray`.
LOADED_FOR_PROGRAMS = {("core.import_ray", "ray")}


def python_layer(module):
    """Index of the layer; None: in none."""
    parts = module.split(".")
    for rank, names in enumerate(PYTHON_LAYERS):
        if module in names or parts[0] in names:
            return rank
    return None


def python_modules():
    """Name below libray -> (file, names of the packages around what it says, its syntax tree)."""
    found = {}
    for name in files(".py", ".pyi"):
        if name.startswith(PYTHON):
            parts = re.sub(r"\.pyi?$", "", name[len(PYTHON):]).split("/")
            package = parts[:-1]
            module = ".".join(package if parts[-1] == "__init__" else parts)
            found[module] = (name, package, ast.parse(text(name)))
    return found


def python_imports(package, tree, modules):
    """(line, module below libray) for each import of the package's own, at whatever depth of the code. None instead of a
    module: it is not there, and is no name that its package knows."""
    def own(base):  # the same tree is `ray` to programs
        for head in ("libray", "ray"):
            if base == head or base.startswith(head + "."):
                return base[7:] if head == "libray" else base
        return None

    for node in ast.walk(tree):
        named = []
        if isinstance(node, ast.Import):
            named = [own(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = own(node.module or "")
            if node.level:
                base = ".".join(package[:len(package) - node.level + 1] + ([node.module] if node.module else []))
            if base is not None:
                inner = [f"{base}.{alias.name}".lstrip(".") for alias in node.names]
                named = [name if name in modules else base for name in inner]
                known = text(modules[base][0]) if base in modules else ""
                for alias, name in zip(node.names, inner):
                    if name not in modules and base != "_libray" and not (
                            alias.name == "*" or re.search(rf"\b{alias.name}\b", known)):
                        yield node.lineno, None
        elif (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
              and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__")):
            named = [own(str(node.args[0].value))]
        for name in named:
            if name is not None:
                yield node.lineno, name if name in modules else None


def python_layering():
    """Imports of the Python package lead down, or sideways without a way back; those inside functions count."""
    modules = python_modules()
    edges = {}
    for module, (name, package, tree) in modules.items():
        rank = python_layer(module)
        if rank is None:
            yield f"{name}:1: is in no layer of the package"
            continue
        edges[module] = {}
        for line, other in python_imports(package, tree, modules):
            target = python_layer(other) if other is not None else None
            if other is None:
                yield f"{name}:{line}: imports what is not there"
            elif target is None:
                yield f"{name}:{line}: imports {other or 'libray'}, which is in no layer of the package"
            elif target > rank and (module, other) not in LOADED_FOR_PROGRAMS:
                yield f"{name}:{line}: imports {other or 'libray'}, which is of a higher layer"
            elif target == rank and target < len(PYTHON_LAYERS) - 1 and other != module:
                edges[module].setdefault(other, line)  # the tree `ray` has the shape of Ray's own
    for way in cycles(edges):
        at = f"{modules[way[0]][0]}:{edges[way[0]][way[1]]}"
        yield f"{at}: imports in a circle: {' -> '.join(way)}"


def cycles(edges):
    """One way round for each node that leads back to itself and has not been on an earlier one."""
    told = set()
    for start in sorted(edges):
        ways = [[start]]
        seen = set()
        while ways and start not in told:
            way = ways.pop(0)
            for other in edges.get(way[-1], ()):
                if other == start:
                    told.update(way)
                    yield [*way, start]
                    ways = []
                    break
                if other not in seen:
                    seen.add(other)
                    ways.append([*way, other])


EXTENSION = "bindings/python/src/"


def extension_layering():
    """The files of Python's extension, x.cc and x.h as one, do not include each other."""
    edges, place = {}, {}
    for name in files(".cc", ".h"):
        if name.startswith(EXTENSION):
            own = edges.setdefault(Path(name).stem, {})
            for number, line in lines(name):
                found = re.match(r'\s*#\s*include\s+"(\w+)\.h"', line)
                if found and (ROOT / EXTENSION / (found.group(1) + ".h")).exists() and found.group(1) != Path(name).stem:
                    own.setdefault(found.group(1), number)
                    place[Path(name).stem, found.group(1)] = f"{name}:{number}"
    for way in cycles(edges):
        yield f"{place[way[0], way[1]]}: includes in a circle: {' -> '.join(way)}"


def banned_calls():
    for name in files(".cc", ".h", ".c"):
        if name.startswith(PRODUCT):
            for number, line in enumerate(blank(text(name)).split("\n"), 1):
                found = BANNED.search(line)
                if found:
                    yield f"{name}:{number}: {found.group(1)}...) is banned in product code"


def pure_cores():
    for name in files(".cc", ".h"):
        if name.startswith(PURE):
            for number, line in enumerate(blank(text(name)).split("\n"), 1):
                found = IMPURE.search(line)
                if found:
                    yield f"{name}:{number}: a protocol core must not use {found.group(0)}"


def owners():
    word = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b(?!\([a-z][\w.-]*\))")
    for name in files(*CODE):
        for number, line in lines(name):
            if word.search(line):
                yield f"{name}:{number}: {word.search(line).group(0)} without (owner)"


def machine_paths():
    for name in files():
        for number, line in lines(name):
            if MACHINE_PATH.search(line) and name != "tools/check.py":
                yield f"{name}:{number}: a path of somebody's machine: {line.strip()[:60]}"


def file_comments():
    """Every source file begins by saying what it is."""
    for name in files(*CODE):
        content = text(name)
        if content.strip() and not re.match(
                r'(#![^\n]*\n)?(//|/\*|#[^i!]|"""|r""")', content):
            yield f"{name}:1: does not begin with a comment that says what the file is"


def include_guards():
    for name in files(".h"):
        if "#pragma once" not in text(name) and "#ifndef" not in text(name):
            yield f"{name}:1: no include guard"


def links():
    """Relative links in the documents lead somewhere."""
    for name in files(".md"):
        for number, line in lines(name):
            for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", line):
                if not ((ROOT / name).parent / target).exists():
                    yield f"{name}:{number}: link to {target}, which does not exist"


def shell_scripts():
    for name in ["dev", ".ci/run", *files(".sh")]:
        done = subprocess.run(["bash", "-n", ROOT / name], stderr=subprocess.PIPE, text=True)
        if done.returncode:
            yield f"{name}: {done.stderr.strip()}"


def clang_format_config():
    if shutil.which("clang-format") is None:
        return None
    done = subprocess.run(["clang-format", "--style=file", "--dump-config"], cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return [] if done.returncode == 0 else [f".clang-format: {done.stderr.strip()}"]


def rust_format():
    """rustfmt, where it is there."""
    return rust.lint_format()


def rust_clippy():
    """clippy, where it and the built library are there."""
    return rust.lint_clippy()


RULES = [line_length, whitespace, file_length, function_length, layering, python_layering, extension_layering,
         banned_calls, pure_cores, owners, machine_paths, file_comments, include_guards, links, shell_scripts,
         clang_format_config, rust_format, rust_clippy]


def main():
    passed = failed = skipped = 0
    for rule in RULES:
        complaints = rule()
        if complaints is None:
            skipped += 1
            continue
        complaints = list(complaints)
        if complaints:
            failed += 1
            print(f"{rule.__name__}: {len(complaints)}")
            print("\n".join("  " + complaint for complaint in complaints[:40]))
        else:
            passed += 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
