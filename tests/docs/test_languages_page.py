"""docs/languages/README.md shows what samples/pole prints, and its program in all languages as it is."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "languages" / "README.md").read_text()


def test_the_output_is_the_expected_one():
    assert f"```\n{(ROOT / 'samples' / 'pole' / 'expected.txt').read_text()}```" in PAGE


def test_the_program_is_the_one_that_runs():
    (shown,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert "def main():" in shown and shown in (ROOT / "samples" / "pole" / "all.py").read_text()
