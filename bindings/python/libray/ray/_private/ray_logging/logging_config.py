"""`ray.LoggingConfig`."""

from libray.core.logging_setup import LoggingConfig

__all__ = ["LoggingConfig"]
