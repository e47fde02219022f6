"""`ray._private.serialization`."""

from typing import Any

from libray import ObjectRef
from ray.util.serialization import deregister_serializer, register_serializer


class SerializationContext:
    """Serializers of this process."""

    def _register_cloudpickle_serializer(
        self, cls: type, custom_serializer: Any, custom_deserializer: Any
    ) -> None:
        register_serializer(cls, serializer=custom_serializer, deserializer=custom_deserializer)

    def _unregister_cloudpickle_reducer(self, cls: type) -> None:
        deregister_serializer(cls)

    def serialize(self, value: Any) -> Any:
        from libray.core import serialization

        return serialization.dumps(value)


__all__ = ["ObjectRef", "SerializationContext"]
