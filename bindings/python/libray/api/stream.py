"""References of a generator task. Made by the extension for each call of a generator, used on any thread; awaiting.py,
and with it asyncio, is imported only by those who await one."""

from __future__ import annotations

from typing import Any, Iterator, List, Optional, Tuple

from .. import _libray
from ..core import ids as _ids


class ObjectRefGenerator(_libray.StreamBase):  # type: ignore[misc]
    """References of a generator task, in order, as they come: `for`, `async for`, `next`.

    An exception of the generator is the last reference; then StopIteration, for ever. Dropping the
    generator frees what was not taken and ends the task (in programs that import ray it runs to its end). It belongs to
    the process that called.
    """

    __slots__ = ()
    __module__ = "libray"  # also for pickles: where programs find it

    def __aiter__(self) -> "ObjectRefGenerator":
        return self

    def __anext__(self) -> Any:
        from . import awaiting

        return awaiting.next_of(self)

    def next_ready(self) -> bool:
        """Whether `next` would return at once."""
        return bool(self._peek(0))

    def is_finished(self) -> bool:
        """Whether the task is over and all its references were taken."""
        return bool(self._is_over())

    def task_id(self) -> _ids.TaskID:
        """Id of the generator's task."""
        return _ids.TaskID.from_hex(self._task_hex())

    @property
    def _generator_ref(self) -> Any:
        return self.completed()

    def _next_sync(self, timeout_s: Optional[float] = None) -> Any:
        """The next reference; a nil one when it is not there in time."""
        if not self._peek(-1 if timeout_s is None else timeout_s):
            return _libray.ObjectRef.nil()
        return self._next(0)

    async def _next_async(self, timeout_s: Optional[float] = None) -> Any:
        import asyncio

        from . import awaiting

        try:
            if timeout_s is None:
                return await awaiting.next_of(self)
            return await asyncio.wait_for(awaiting.next_of(self), timeout_s)
        except asyncio.TimeoutError:
            return _libray.ObjectRef.nil()

    def send(self, value: Any) -> Any:
        raise NotImplementedError("`gen.send` is not supported: a remote generator only gives")

    def throw(self, value: Any) -> Any:
        raise NotImplementedError("`gen.throw` is not supported: use libray.cancel(gen)")

    def close(self) -> None:
        raise NotImplementedError("`gen.close` is not supported: use libray.cancel(gen), or drop it")

    async def asend(self, value: Any) -> Any:
        raise NotImplementedError("`gen.asend` is not supported: a remote generator only gives")

    async def athrow(self, value: Any) -> Any:
        raise NotImplementedError("`gen.athrow` is not supported: use libray.cancel(gen)")

    async def aclose(self) -> None:
        raise NotImplementedError("`gen.aclose` is not supported: use libray.cancel(gen)")

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._task_hex()})"


class DynamicObjectRefGenerator:
    """What a task with num_returns="dynamic" returns: the references of its generator's items."""

    __module__ = "libray"

    def __init__(self, refs: List[Any]) -> None:
        self._refs = list(refs)

    def __iter__(self) -> Iterator[Any]:
        while self._refs:
            yield self._refs.pop(0)

    def __len__(self) -> int:
        return len(self._refs)

    def __reduce__(self) -> Tuple[Any, ...]:
        return (DynamicObjectRefGenerator, (self._refs,))
