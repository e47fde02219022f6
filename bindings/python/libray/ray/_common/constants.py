"""`ray._common.constants`."""

from ray._private.ray_constants import (  # noqa: F401
    HEAD_NODE_RESOURCE_NAME,
    RAY_WORKER_NICENESS,
)
