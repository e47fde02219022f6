"""`ray.util.serialization`."""

from libray.core.serialization import deregister_serializer, register_serializer

__all__ = ["deregister_serializer", "register_serializer"]
