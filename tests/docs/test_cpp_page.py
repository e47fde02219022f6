"""The code of docs/languages/cpp.md is that of samples/cpp, and every sample is in it."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```cpp\n(.*?)```", (ROOT / "docs" / "languages" / "cpp.md").read_text(), re.DOTALL)
SAMPLES = {p.stem: p.read_text() for p in (ROOT / "samples" / "cpp").glob("*.cc")}


def test_there_are_six():
    assert set(SAMPLES) == {"hello", "parallel_map", "actor_counter", "zero_copy", "streaming", "fault_tolerance"}


def test_every_block_is_a_part_of_a_sample():
    for block in BLOCKS:
        assert any(block in sample for sample in SAMPLES.values()), block


def test_every_sample_is_shown():
    for name, sample in SAMPLES.items():
        assert any(block in sample for block in BLOCKS), name


def test_the_command_of_the_page_is_the_one_that_works():
    """The sample hello is built and run as the page says."""
    page = (ROOT / "docs" / "languages" / "cpp.md").read_text()
    command = re.search(r"^c\+\+ .*$", page, re.MULTILINE).group(0)
    build = Path(os.environ.get("LIBRAY_BUILD", ROOT / "build" / "release"))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hello.cc").write_text(SAMPLES["hello"])
        (Path(folder) / "include").symlink_to(ROOT / "include")
        (Path(folder) / "build").mkdir()
        (Path(folder) / "build" / "release").symlink_to(build)
        done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "9 81\n"
