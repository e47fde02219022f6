"""What goes wrong in a function of any language is an error at a caller in Python that names the function, and where it can
the language and the place; the node and everybody else live on. Each language's own tests have more ways to fail.

libray-test: slow
libray-test: serial
"""

import subprocess
import sys
from pathlib import Path

import pytest

import libray
from libray import exceptions

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "steady"))
import steady  # noqa: E402

WAYS = ["exit", "segfault", "overflow"]  # of ending a process
ENDS_IN_C = """
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
static int64_t descend(volatile char *page) {
  volatile char next[4096];
  next[7] = (char)(page[7] + 1);
  return 1 + descend(next) + next[7];
}
int64_t ends(const char *how) {
  volatile char first[4096] = {0};
  if (!strcmp(how, "exit")) exit(3);
  if (!strcmp(how, "segfault")) return *(volatile int64_t *)8;
  return descend(first);
}
int64_t add_one(int64_t x) { return x + 1; }
"""


@pytest.fixture(scope="module")
def c_library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("c")
    (folder / "ends.c").write_text(ENDS_IN_C)
    subprocess.run(["cc", "-O0", "-w", "-shared", "-fPIC", "ends.c", "-o", "libends.so"], cwd=folder, check=True)
    return str(folder / "libends.so")


@libray.remote
def ends(how):
    import ctypes
    import os

    if how == "throw":
        raise ValueError("no way on")
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(8)
    sys.setrecursionlimit(1 << 30)

    class Deep:  # compares itself in C, frame after frame
        def __eq__(self, other):
            return [Deep()] == [Deep()]

    return Deep() == Deep()


@libray.remote
def add_one(x):
    return x + 1


def functions(language, request, monkeypatch, folder):
    """(ends, add_one) of a language, in a cluster of its own."""
    monkeypatch.chdir(folder)  # workers are there too, and a JVM that crashes writes its report
    options = {}
    if language in ("rust", "java"):
        tool = getattr(steady, language)
        if not tool.is_there():
            pytest.skip(tool.ABSENT)
        command, additions = steady.command_of(language)
        for name, value in additions.items():
            monkeypatch.setenv(name, str(value))
        options = {"rust_binary": str(command[0])} if language == "rust" else {"java_classpath": command[-2]}
    libray.init(num_cpus=2, **options)
    request.addfinalizer(libray.shutdown)
    if language == "c":
        library = request.getfixturevalue("c_library")
        return (libray.c_function(library, "ends", "i64(str)"), libray.c_function(library, "add_one", "i64(i64)"))
    if language == "python":
        return ends, add_one
    names = {"rust": [("ends",), ("add_one",)], "java": [("SteadyProgram", "ends"), ("SteadyProgram", "addOne")]}[language]
    return tuple(libray.function(language, *name) for name in names)


@pytest.mark.parametrize("language", ["c", "java", "python", "rust"])
def test_processes_that_end(language, request, monkeypatch, tmp_path):
    bad, good = functions(language, request, monkeypatch, tmp_path)
    beside = good.remote(40)
    for how in WAYS:
        with pytest.raises((exceptions.WorkerCrashedError, exceptions.RayTaskError)) as caught:
            libray.get(bad.options(max_retries=0).remote(how), timeout=60)
        assert "ends" in str(caught.value), (how, str(caught.value))
        assert libray.get(good.remote(1), timeout=60) == 2
    assert libray.get(beside) == 41


@pytest.mark.parametrize("language, kind, place", [
    ("java", "IllegalStateException", "SteadyProgram.java:"), ("python", "ValueError", "test_user_code.py"),
    ("rust", "panic", "program.rs:")])
def test_errors_name_language_function_and_place(language, kind, place, request, monkeypatch, tmp_path):
    bad, good = functions(language, request, monkeypatch, tmp_path)
    with pytest.raises(exceptions.RayTaskError) as caught:
        libray.get(bad.remote("throw"), timeout=60)
    text = str(caught.value)
    assert all(word in text for word in ("ends", "no way on", kind, place)), text
    assert language == "python" or language in text.lower(), text
    assert libray.get(good.remote(1), timeout=60) == 2
