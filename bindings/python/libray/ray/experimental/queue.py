"""`ray.experimental.queue`: the older name of `ray.util.queue`."""

from ray.util.queue import Empty, Full, Queue  # noqa: F401
