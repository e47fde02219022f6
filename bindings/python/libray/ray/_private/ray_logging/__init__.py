"""`ray._private.ray_logging`."""

from ray._private.ray_logging.logging_config import LoggingConfig

__all__ = ["LoggingConfig"]
