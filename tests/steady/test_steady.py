"""A hundred thousand tasks and calls in each language: memory and descriptors stay where they are.

libray-test: slow
libray-test: serial
libray-test: timeout 1200
"""

import os

import pytest
import steady


def skip_what_is_not_here(language):
    for name, tool in (("rust", steady.rust), ("java", steady.java)):
        if language == name and not tool.is_there():
            pytest.skip(tool.ABSENT)


@pytest.mark.parametrize("language", ["cpp", "java", "python", "rust"])
def test_a_hundred_thousand(language):
    skip_what_is_not_here(language)
    steady.check(language, 200_000, 100_000)


def test_growth_is_seen():
    """The measure is one of this process: what it holds, it sees."""
    def measure():
        pid = os.getpid()
        return {"driver": [steady.status_kb(pid, "RssAnon"), 0, len(os.listdir(f"/proc/{pid}/fd")), 1]}

    before = measure()
    assert steady.growth(before, measure(), 2048) == []
    held = bytearray(16 << 20)
    files = [open(os.devnull) for _ in range(10)]
    told = steady.growth(before, measure(), 2048)
    assert len(told) == 2 and "kB" in told[0] and "descriptors" in told[1], told
    assert len(held) == 16 << 20
    for file in files:
        file.close()
    assert "processes" in steady.growth({}, before, 1 << 30)[0]
