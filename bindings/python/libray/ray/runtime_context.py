"""`ray.runtime_context`."""

from libray import get_runtime_context
from libray.api.context import RuntimeContext

__all__ = ["RuntimeContext", "get_runtime_context"]
