"""`ray.util.queue.Queue`: a first-in-first-out queue in an actor, shared by passing the object around."""

import asyncio
import queue
from typing import Any, Dict, Iterable, List, Optional

import ray


class Empty(queue.Empty):
    pass


class Full(queue.Full):
    pass


class Queue:
    """`maxsize` 0 means no limit. `actor_options` are those of the actor that holds the items."""

    def __init__(self, maxsize: int = 0, actor_options: Optional[Dict[str, Any]] = None) -> None:
        self.maxsize = maxsize
        self.actor = ray.remote(_QueueActor).options(**(actor_options or {})).remote(maxsize)

    def __reduce__(self) -> Any:
        return (_rebuild, (type(self), self.actor, self.maxsize))

    def _living(self) -> Any:
        if self.actor is None:
            raise ray.exceptions.ActorDiedError("The queue was shut down.")
        return self.actor

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        return ray.get(self._living().qsize.remote())

    def qsize(self) -> int:
        """The number of items."""
        return self.size()

    def empty(self) -> bool:
        return ray.get(self._living().empty.remote())

    def full(self) -> bool:
        return ray.get(self._living().full.remote())

    def put(self, item: Any, block: bool = True, timeout: Optional[float] = None) -> None:
        """Adds an item. `Full` when it does not fit at once (`block=False`) or within `timeout` seconds."""
        if not block:
            timeout = None
            done = ray.get(self._living().put_nowait.remote(item))
        else:
            _check_timeout(timeout)
            done = ray.get(self._living().put.remote(item, timeout))
        if not done:
            raise Full

    async def put_async(
        self, item: Any, block: bool = True, timeout: Optional[float] = None
    ) -> None:
        if not block:
            done = await self._living().put_nowait.remote(item)
        else:
            _check_timeout(timeout)
            done = await self._living().put.remote(item, timeout)
        if not done:
            raise Full

    def get(self, block: bool = True, timeout: Optional[float] = None) -> Any:
        """Takes the first item. `Empty` when there is none at once (`block=False`) or within `timeout` seconds."""
        if not block:
            return _item(ray.get(self._living().get_nowait.remote()))
        _check_timeout(timeout)
        return _item(ray.get(self._living().get.remote(timeout)))

    async def get_async(self, block: bool = True, timeout: Optional[float] = None) -> Any:
        if not block:
            return _item(await self._living().get_nowait.remote())
        _check_timeout(timeout)
        return _item(await self._living().get.remote(timeout))

    def put_nowait(self, item: Any) -> None:
        self.put(item, block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Adds all the items or, with `Full`, none."""
        if not isinstance(items, Iterable):
            raise TypeError("Argument 'items' must be an Iterable")
        items = list(items)
        if not ray.get(self._living().put_nowait_batch.remote(items)):
            raise Full(f"Cannot add {len(items)} items to queue of size {self.qsize()} and maxsize {self.maxsize}.")

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def get_nowait_batch(self, num_items: int) -> List[Any]:
        """Takes that many items or, with `Empty`, none."""
        if not isinstance(num_items, int):
            raise TypeError("Argument 'num_items' must be an int")
        if num_items < 0:
            raise ValueError("'num_items' must be nonnegative")
        found = ray.get(self._living().get_nowait_batch.remote(num_items))
        if found is None:
            raise Empty(f"Cannot get {num_items} items from queue of size {self.qsize()}.")
        return found

    def shutdown(self, force: bool = False, grace_period_s: int = 5) -> None:
        """Ends the actor: with `force` at once, else after the calls under way, for `grace_period_s` at most."""
        if self.actor is not None:
            if not force:
                ended = self.actor.__ray_terminate__.remote()
                ray.wait([ended], num_returns=1, timeout=grace_period_s)
            ray.kill(self.actor, no_restart=True)
        self.actor = None


def _check_timeout(timeout: Optional[float]) -> None:
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")


def _item(found: Any) -> Any:
    if found is None:
        raise Empty
    return found[0]


def _rebuild(cls: type, actor: Any, maxsize: int) -> Queue:
    made = cls.__new__(cls)
    made.actor, made.maxsize = actor, maxsize
    return made


class _QueueActor:
    """The items. Methods that may fail say so by what they return: an exception would carry a traceback."""

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self.queue: asyncio.Queue = asyncio.Queue(maxsize)

    def qsize(self) -> int:
        return self.queue.qsize()

    def empty(self) -> bool:
        return self.queue.empty()

    def full(self) -> bool:
        return self.queue.full()

    async def put(self, item: Any, timeout: Optional[float] = None) -> bool:
        try:
            await asyncio.wait_for(self.queue.put(item), timeout)
        except asyncio.TimeoutError:
            return False
        return True

    async def get(self, timeout: Optional[float] = None) -> Any:
        try:
            return (await asyncio.wait_for(self.queue.get(), timeout),)
        except asyncio.TimeoutError:
            return None

    def put_nowait(self, item: Any) -> bool:
        return self.put_nowait_batch([item])

    def put_nowait_batch(self, items: List[Any]) -> bool:
        if self.maxsize > 0 and len(items) + self.qsize() > self.maxsize:
            return False
        for item in items:
            self.queue.put_nowait(item)
        return True

    def get_nowait(self) -> Any:
        return None if self.queue.empty() else (self.queue.get_nowait(),)

    def get_nowait_batch(self, num_items: int) -> Optional[List[Any]]:
        if num_items > self.qsize():
            return None
        return [self.queue.get_nowait() for _ in range(num_items)]
