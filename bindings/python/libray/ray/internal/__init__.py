"""`ray.internal`."""

from ray.internal.internal_api import free

__all__ = ["free"]
