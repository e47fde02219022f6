"""The tables of docs/api/python.md: every row has a state, every supported one a test, and the tests exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECTION = (ROOT / "docs" / "api" / "python.md").read_text().split("## The surface\n")[1].split("\n## ")[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in SECTION.splitlines()
    if line.startswith("|") and not line.startswith("|--") and not line.endswith("| shown by |")
]


def functions_in(name):
    """Names of the test functions of a file; the name may begin with a folder of tests/."""
    path = ROOT / "tests" / (f"{name}.py" if "/" in name else f"python/{name}.py")
    assert path.exists(), f"docs/api/python.md names {name}, which does not exist"
    return set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.M))


def test_every_named_test_exists():
    named = re.findall(r"`([\w/]*test_\w+)(?:::(\w+))?`", SECTION)
    assert len(named) > 60
    missing = [f"{file}::{test}" for file, test in named if test and test not in functions_in(file)]
    assert not missing
    assert all(functions_in(file) for file, _ in named)


def test_every_row_has_a_state_and_a_test():
    assert len(ROWS) > 50
    for what, state, shown in ROWS:
        assert re.match(r"(supported|differs|not yet|not there)\b", state), f"{what}: {state!r} is no state"
        assert "::" in shown, f"{what} is {state}: which test shows it?"
