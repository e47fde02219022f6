"""References of a generator task. A module of its own, so that asyncio is imported only by those
who use it."""

from __future__ import annotations

from typing import Any

from . import _libray


class ObjectRefGenerator(_libray.StreamBase):  # type: ignore[misc]
    """References of a generator task, in order, as they come: `for`, `async for`, `next`."""

    __slots__ = ()

    def __aiter__(self) -> "ObjectRefGenerator":
        return self

    def __anext__(self) -> Any:
        from . import _async

        return _async.next_of(self)

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self.task_id()})"
