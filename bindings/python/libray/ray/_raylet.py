"""`ray._raylet`: the identifiers (libray/core/ids.py), and names that programs import from here."""

from libray import DynamicObjectRefGenerator, ObjectRef, ObjectRefGenerator
from libray.core.ids import (
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
    "JavaFunctionDescriptor",
    "JobID",
    "Language",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "PythonFunctionDescriptor",
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


class _Descriptor:
    """Names a function or a class; equal when all parts are."""

    def __init__(self, *parts):
        self._parts = parts

    @property
    def function_id(self):
        """An id made of the parts."""
        import hashlib

        text = repr((type(self).__name__, self._parts)).encode()
        return FunctionID(hashlib.sha256(text).digest()[:_SIZE])

    def __eq__(self, other):
        return type(self) is type(other) and self._parts == other._parts

    def __hash__(self):
        return hash((type(self).__name__, self._parts))

    def __reduce__(self):
        return (type(self), self._parts)

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(map(str, self._parts))})"


class PythonFunctionDescriptor(_Descriptor):
    """Module, function, class (or ""), and a hash of the code."""

    def __init__(self, module_name, function_name, class_name="", function_hash=""):
        super().__init__(module_name, function_name, class_name, function_hash)
        self.module_name, self.function_name = module_name, function_name
        self.class_name, self.function_hash = class_name, function_hash


class JavaFunctionDescriptor(_Descriptor):
    """Class, method and signature."""

    def __init__(self, class_name, function_name, signature):
        super().__init__(class_name, function_name, signature)
        self.class_name, self.function_name, self.signature = class_name, function_name, signature


StreamingObjectRefGenerator = ObjectRefGenerator
ObjectID = ObjectRef
