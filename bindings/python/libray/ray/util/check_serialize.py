"""`ray.util.check_serialize`: the search for what in a value cannot be pickled."""

from libray.core.serializability import FailureTuple, inspect_serializability

__all__ = ["FailureTuple", "inspect_serializability"]
