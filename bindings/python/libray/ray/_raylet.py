"""`ray._raylet`: the identifiers. In libray every id has the same size; those of Ray's sizes are accepted too."""

import os

from libray import ObjectRef, ObjectRefGenerator
from libray import _libray

_SIZE = 24  # an id of libray


class BaseID:
    """An id: compared, hashed and printed by its bytes."""

    SIZE = 28  # Ray's
    __slots__ = ("_bytes",)

    def __init__(self, id: bytes) -> None:
        if not isinstance(id, bytes):
            raise TypeError(f"Unsupported type: {type(id)}")
        if len(id) not in (self.SIZE, _SIZE):
            raise ValueError(f"ID string needs to have length {self.SIZE}, got {len(id)}")
        self._bytes = id

    @classmethod
    def from_hex(cls, text):
        return cls(bytes.fromhex(text))

    @classmethod
    def from_binary(cls, data):
        return cls(data)

    @classmethod
    def from_random(cls):
        return cls(os.urandom(cls.SIZE))

    @classmethod
    def nil(cls):
        return cls(b"\xff" * cls.SIZE)

    @classmethod
    def size(cls):
        return cls.SIZE

    def binary(self):
        return self._bytes

    def hex(self):
        return self._bytes.hex()

    def is_nil(self):
        return self._bytes.count(b"\xff") == len(self._bytes)

    def __eq__(self, other):
        return type(other) is type(self) and other._bytes == self._bytes

    def __ne__(self, other):
        return not self == other

    def __lt__(self, other):
        return self._bytes < other._bytes

    def __hash__(self):
        return hash(self._bytes)

    def __bytes__(self):
        return self._bytes

    def __repr__(self):
        return f"{type(self).__name__}({self.hex()})"

    def __reduce__(self):
        return (type(self), (self._bytes,))

    def redis_shard_hash(self):
        return hash(self._bytes) & 0xFFFFFFFF


class UniqueID(BaseID):
    __slots__ = ()


class TaskID(BaseID):
    SIZE = 24
    __slots__ = ()

    @classmethod
    def for_fake_task(cls, job_id=None):
        return cls.from_random()

    @classmethod
    def for_driver_task(cls, job_id=None):
        return cls.from_random()


class NodeID(UniqueID):
    __slots__ = ()


class WorkerID(UniqueID):
    __slots__ = ()


class ClusterID(UniqueID):
    __slots__ = ()


class FunctionID(UniqueID):
    __slots__ = ()


class ActorClassID(UniqueID):
    __slots__ = ()


class JobID(BaseID):
    SIZE = 4
    __slots__ = ()

    @classmethod
    def from_int(cls, value):
        return cls(value.to_bytes(4, "big"))

    def int(self):
        return int.from_bytes(self._bytes, "big")


class ActorID(BaseID):
    SIZE = 16
    __slots__ = ()

    @property
    def job_id(self):
        return JobID(bytes.fromhex(_libray.context()["job"]))


class PlacementGroupID(BaseID):
    SIZE = 18
    __slots__ = ()


def check_id(b, size=28):
    if not isinstance(b, bytes):
        raise TypeError(f"Unsupported type: {type(b)}")
    if len(b) not in (size, _SIZE):
        raise ValueError(f"ID string needs to have length {size}")


class Language:
    """Languages of functions."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name

    def __eq__(self, other):
        return isinstance(other, Language) and other.name == self.name

    def __hash__(self):
        return hash(self.name)


Language.PYTHON, Language.JAVA, Language.CPP = Language("PYTHON"), Language("JAVA"), Language("CPP")


class Config:
    """Ray's internal settings. libray has none of them; numbers that programs read are constants."""

    def __getattr__(self, name):
        constants = {"max_direct_call_object_size": 100 * 1024, "ray_cookie": 0}
        if name in constants:
            return lambda: constants[name]
        raise AttributeError(f"libray has no internal setting {name!r}")


class CoreWorker:
    """A type to annotate with; libray's core has no Python object."""


StreamingObjectRefGenerator = ObjectRefGenerator
DynamicObjectRefGenerator = ObjectRefGenerator
ObjectID = ObjectRef
