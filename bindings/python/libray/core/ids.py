"""Identifiers as Ray's programs see them: immutable bytes with a class. An object's id is its task's
24 bytes and a 4-byte index, little endian, as in Ray; every other id of libray has 24 bytes, and the
classes take those as well as Ray's sizes. Used by ObjectRef.task_id(), the runtime context, the
errors and `ray._raylet`, not on any hot path."""

from __future__ import annotations

import os
from typing import Any, Tuple, Type, TypeVar

from .. import _libray

_T = TypeVar("_T", bound="BaseID")
SIZE = 24  # of the core's ids


class BaseID:
    """Bytes of a fixed length with hexadecimal digits, comparison and hash."""

    SIZE = 28  # Ray's
    __slots__ = ("_bytes",)

    def __init__(self, id: bytes) -> None:
        if not isinstance(id, bytes):
            raise TypeError(f"Unsupported type: {type(id)}, expected bytes")
        if len(id) not in (self.SIZE, SIZE):
            raise ValueError(f"ID string needs to have length {self.SIZE}, got {len(id)}")
        object.__setattr__(self, "_bytes", id)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"an id cannot change: {name}")

    @classmethod
    def from_binary(cls: Type[_T], id: bytes) -> _T:
        return cls(id)

    @classmethod
    def from_hex(cls: Type[_T], digits: str) -> _T:
        return cls(bytes.fromhex(digits))

    @classmethod
    def from_random(cls: Type[_T]) -> _T:
        return cls(os.urandom(cls.SIZE))

    @classmethod
    def nil(cls: Type[_T]) -> _T:
        return cls(b"\xff" * cls.SIZE)

    @classmethod
    def size(cls) -> int:
        """Number of bytes."""
        return cls.SIZE

    def is_nil(self) -> bool:
        return self._bytes == b"\xff" * len(self._bytes) or not any(self._bytes)

    def binary(self) -> bytes:
        return bytes(self._bytes)

    def hex(self) -> str:
        return str(self._bytes.hex())

    def redis_shard_hash(self) -> int:
        return hash(self._bytes) & 0xFFFFFFFF

    def __bytes__(self) -> bytes:
        return self.binary()

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._bytes == other._bytes  # type: ignore[attr-defined]

    def __lt__(self: _T, other: _T) -> bool:
        return bool(self._bytes < other._bytes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hex()})"

    def __reduce__(self) -> Tuple[Any, ...]:
        return (type(self), (self.binary(),))


class UniqueID(BaseID):
    """28 bytes of no further structure."""

    __slots__ = ()


class JobID(BaseID):
    SIZE = 4
    __slots__ = ()

    @classmethod
    def from_int(cls, value: int) -> "JobID":
        return cls(value.to_bytes(4, "big"))

    def int(self) -> int:
        return int.from_bytes(self._bytes[:4], "big")


class ActorID(BaseID):
    SIZE = 16
    __slots__ = ()

    @property
    def job_id(self) -> JobID:
        return _job()


class TaskID(BaseID):
    SIZE = SIZE
    __slots__ = ()

    @classmethod
    def for_fake_task(cls, job_id: Any = None) -> "TaskID":
        return cls.from_random()

    @classmethod
    def for_driver_task(cls, job_id: Any = None) -> "TaskID":
        return cls.from_random()

    def job_id(self) -> JobID:
        return _job()


def _job() -> JobID:
    return JobID.from_hex(_libray.context()["job"])


class NodeID(UniqueID):
    __slots__ = ()


class ClusterID(UniqueID):
    __slots__ = ()


class WorkerID(UniqueID):
    __slots__ = ()


class FunctionID(UniqueID):
    __slots__ = ()


class ActorClassID(UniqueID):
    __slots__ = ()


class PlacementGroupID(BaseID):
    SIZE = 18
    __slots__ = ()


def worker_id(node: str, index: int) -> str:
    """A worker's id: its node's, and its number there."""
    return f"{node}{index:08x}"
