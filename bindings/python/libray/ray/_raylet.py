"""`ray._raylet`: the identifiers (libray/_ids.py), and names that programs import from here."""

from libray import DynamicObjectRefGenerator, ObjectRef, ObjectRefGenerator
from libray._ids import (
    ActorClassID,
    ActorID,
    BaseID,
    ClusterID,
    FunctionID,
    JobID,
    NodeID,
    PlacementGroupID,
    TaskID,
    UniqueID,
    WorkerID,
)

_SIZE = 24  # an id of libray

__all__ = [
    "ActorClassID",
    "ActorID",
    "BaseID",
    "ClusterID",
    "Config",
    "CoreWorker",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "JobID",
    "Language",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "StreamingObjectRefGenerator",
    "TaskID",
    "UniqueID",
    "WorkerID",
    "check_id",
]


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

    @staticmethod
    def initialize(settings):
        """There is nothing to set."""

    def __getattr__(self, name):
        constants = {"max_direct_call_object_size": 100 * 1024, "ray_cookie": 0}
        if name in constants:
            return lambda: constants[name]
        raise AttributeError(f"libray has no internal setting {name!r}")


class CoreWorker:
    """A type to annotate with; libray's core has no Python object."""


StreamingObjectRefGenerator = ObjectRefGenerator
ObjectID = ObjectRef
