"""`./dev build --lang X` needs the tools of X alone: it is run where no program of another language is to be found.

libray-test: slow
libray-test: serial
libray-test: timeout 1800
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "devtool"))
import java  # noqa: E402
import rust  # noqa: E402

TOOLS = {"rust": r"cargo.*|rustc|rustup|rustfmt", "java": r"java|javac|jar|mvn.*", "python": r"pip[\d.]*"}
ELSEWHERE = {"rust": "CARGO_HOME", "java": "JAVA_HOME"}  # what finds them without a path


def path_without(folder, languages):
    """A folder of links to every program of PATH but those of these languages."""
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).glob("*"):
            link = folder / program.name
            if not link.is_symlink() and not any(re.fullmatch(TOOLS[name], program.name) for name in languages):
                link.symlink_to(program)
    return str(folder)


def dev(tmp_path, without, *arguments):
    env = {k: v for k, v in os.environ.items() if k not in {ELSEWHERE.get(name) for name in without}}
    env["PATH"] = path_without(tmp_path, without)
    env["LIBRAY_PYTHON"] = os.environ.get("LIBRAY_TEST_PYTHON", "/usr/bin/python3")  # what ./dev was started with
    return subprocess.run([str(ROOT / "dev"), *arguments], env=env, capture_output=True, text=True, timeout=1700)


@pytest.mark.parametrize("language", ["c", "cpp", "java", "python", "rust"])
def test_the_tools_of_one_language_are_enough(language, tmp_path):
    if (language == "java" and not java.is_there()) or (language == "rust" and not rust.is_there()):
        pytest.skip(f"no tools for {language}")
    done = dev(tmp_path, set(TOOLS) - {language}, "build", "--lang", language)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    steps = {line.split(":")[0] for line in done.stdout.splitlines() if re.search(r": [\d.]+ (s|min)$", line)}
    assert "build release" in steps
    assert ("build the crates" in steps) == (language == "rust")
    assert ("build the jar" in steps) == (language == "java")
    assert not any("python" in step for step in steps)


def test_what_is_missing_is_said_first(tmp_path):
    done = dev(tmp_path, {"rust"}, "build", "--lang", "rust")
    assert done.returncode == 1 and "cargo is not installed" in done.stderr and "release" not in done.stdout
