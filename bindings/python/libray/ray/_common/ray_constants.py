"""`ray._common.ray_constants`."""

from ray._private.ray_constants import *  # noqa: F401,F403
