"""Where serialisation was in libray 0.1: for programs written then."""
from .core.serialization import *  # noqa: F401,F403
from .core.serialization import register_serializer  # noqa: F401
