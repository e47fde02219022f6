"""`ray.util.serialization`."""

from libray._serialization import deregister_serializer, register_serializer

__all__ = ["deregister_serializer", "register_serializer"]
