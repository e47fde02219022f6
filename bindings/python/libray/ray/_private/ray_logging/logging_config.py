"""`ray.LoggingConfig`."""

from libray._logging import LoggingConfig

__all__ = ["LoggingConfig"]
