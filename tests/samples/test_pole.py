"""samples/pole: one program in five languages, and one that is written in all of them, print the same lines.

libray-test: slow
libray-test: serial
libray-test: timeout 1800
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "devtool"))
import languages  # noqa: E402

EXPECTED = (ROOT / "samples" / "pole" / "expected.txt").read_text()


def skip_unless_there(*wanted):
    for name, tool in (("rust", languages.rust), ("java", languages.java)):
        if name in wanted and not tool.is_there():
            pytest.skip(tool.ABSENT)


def output_of(command, env):
    done = subprocess.run([str(word) for word in command], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("language", languages.NAMES)
def test_each_language_prints_the_same(language):
    skip_unless_there(language)
    assert output_of(*languages.command(language)) == EXPECTED


def test_all_languages_in_one_program():
    skip_unless_there(*languages.NAMES)
    assert output_of(*languages.command_of_all()) == EXPECTED


def test_every_sample_has_a_name():
    """`./dev run --lang X` takes the six that these have, by the same names, and the one that all have."""
    six = {"hello", "parallel_map", "actor_counter", "zero_copy", "streaming", "fault_tolerance"}
    for language in ("cpp", "java", "rust"):
        assert set(languages.samples(language)) == six | {"pole"}
    for language in languages.NAMES:
        assert "pole" in languages.samples(language)
    with pytest.raises(languages.Failure, match="no sample 'nix' for c, but hello, pole"):
        languages.command("c", "nix")
