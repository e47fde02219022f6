"""docs/languages/rust.md shows the samples as they are, and their lines are told as they print them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "languages" / "rust.md").read_text()
SAMPLES = ROOT / "samples" / "rust"


def test_each_sample_is_on_the_page():
    blocks = re.findall(r"```rust\n(.*?)```", PAGE, re.DOTALL)
    programs = [block for block in blocks if "fn main" in block]
    sources = {path.stem: path.read_text() for path in (SAMPLES / "src" / "bin").glob("*.rs")}
    assert sorted(programs) == sorted(sources.values())


def test_each_sample_has_an_expected_output():
    sources = {path.stem for path in (SAMPLES / "src" / "bin").glob("*.rs")}
    assert sources == {path.stem for path in (SAMPLES / "expected").glob("*.txt")}
    assert len(sources) == 6
