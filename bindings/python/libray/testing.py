"""What a test needs to know. May change in any release."""

from __future__ import annotations

from typing import Any

from . import _libray


def ref_count(ref: Any) -> int:
    """References that this process holds to the object."""
    return int(_libray.ref_count(ref))


def fault(point: str, action: str = "") -> None:
    """Arms a fault point of this process ("kill", "stop", "delay:5ms", "fail", "@N"); empty
    disarms."""
    _libray.test_fault(point, action)


def encode(value: Any) -> Any:
    """(format, bytes, number of out-of-band buffers, number of references) of a value."""
    return _libray.encode(value, True)
