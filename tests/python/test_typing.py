"""What a type checker says of programs: the types of results are followed through tasks, references and
get; the package is `py.typed`, and its own annotations hold under mypy --strict."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import libray

pytest.importorskip("mypy")

PROGRAM = '''
from typing import Any, AsyncIterator, Dict, Iterator, List, Tuple
import asyncio
import concurrent.futures
import libray
from libray import ActorHandle, ObjectRef

libray.init(num_cpus=1)

@libray.remote
def square(x: int) -> int:
    return x * x

@libray.remote(num_cpus=2, max_retries=0)
def name(x: int, *, loud: bool = False) -> str:
    return str(x)

@libray.remote
def items(n: int) -> Iterator[bytes]:
    yield b""

@libray.remote(num_returns=2)
def two() -> Tuple[int, str]:
    return 1, "a"

class Counter:
    def __init__(self, start: int = 0) -> None:
        self.n = start
    def add(self, k: int) -> int:
        return self.n + k

reveal_type(square.remote(1))  # type: ObjectRef[int]
reveal_type(square.remote(libray.put(1)))  # type: ObjectRef[int]
reveal_type(libray.get(square.remote(1)))  # type: int
reveal_type(libray.get([square.remote(1)]))  # type: list[int]
reveal_type(libray.get(name.options(num_cpus=1).remote(1)))  # type: str
reveal_type(libray.put({"a": 1}))  # type: ObjectRef[dict[str, int]]
reveal_type([libray.get(ref) for ref in items.remote(3)])  # type: list[bytes]
reveal_type(libray.get(two.remote()))  # type: Any
ready, rest = libray.wait([square.remote(1)])
reveal_type(ready)  # type: list[ObjectRef[int]]
reveal_type(square.remote(1).future())  # type: concurrent.futures.Future[int]

Actor = libray.remote(Counter)  # mypy takes a decorated class for the class itself
counter = Actor.remote(start=1)
reveal_type(counter)  # type: ActorHandle[Counter]
reveal_type(Actor.options(name="c", max_restarts=1).remote())  # type: ActorHandle[Counter]
libray.get(counter.add.remote(1))

def passed(handle: "ActorHandle[Counter]", ref: "ObjectRef[int]") -> None:
    libray.kill(handle)
    libray.cancel(ref, force=True)

passed(counter, square.remote(1))

async def main() -> int:
    reveal_type(await name.remote(1))  # type: str
    async for ref in items.remote(3):
        reveal_type(await ref)  # type: bytes
    values: List[int] = await asyncio.gather(*[square.remote(i) for i in range(3)])
    return sum(values)

wrong: str = libray.get(square.remote(1))  # error: [assignment]
passed(counter, name.remote(1))  # error: [arg-type]
square(1)  # error: [operator]
libray.get(square.remote(1), timeout="1")  # error: [call-overload]
libray.init(num_cpus="two")  # error: [arg-type]
square.remotes(1)  # error: [attr-defined]
name.remote(1).nothing()  # error: [attr-defined]
'''


def mypy(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--no-color-output", "--no-error-summary", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
    )


def test_a_program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = mypy("--strict", "program.py", cwd=tmp_path)
    assert done.stderr == ""
    said = {}
    for line in done.stdout.splitlines():
        number = int(re.match(r"program.py:(\d+):", line).group(1))
        said.setdefault(number, []).append(line)
    for number, line in enumerate(PROGRAM.splitlines(), 1):
        about = " ".join(said.pop(number, []))
        kind = re.search(r"# (type|error): (.*)$", line)
        if kind is None:
            assert about == "", line
        elif kind.group(1) == "error":
            assert f"error: " in about and kind.group(2) in about, (line, about)
        else:
            shown = re.search(r'Revealed type is "(.*)"', about).group(1)
            plain = re.sub(r"builtins\.|libray\.(\w+\.)?|program\.|concurrent\.futures\._base\.", "", shown)
            expected = kind.group(2).replace("concurrent.futures.", "")
            assert plain.replace("*", "") == expected, (line, shown)
    assert not said


def test_the_types_are_part_of_the_package():
    package = Path(libray.__file__).parent
    assert (package / "py.typed").exists()
    assert libray.ActorHandle["Counter"] is libray.ActorHandle  # also outside of quotes
    assert libray.ObjectRef[int] is not None


def test_the_stub_of_the_extension():
    """Every function that it lists is there, and every one that is there without an underscore is listed."""
    stub = (Path(libray.__file__).parent / "_libray.pyi").read_text()
    listed = set(re.findall(r"^def (\w+)", stub, re.MULTILINE)) - {"__getattr__"}
    there = {name for name, value in vars(libray._libray).items() if callable(value)}
    assert listed <= there, listed - there
    functions = {n for n in there if not n.startswith("_") and not isinstance(getattr(libray._libray, n), type)}
    assert functions <= listed, functions - listed
