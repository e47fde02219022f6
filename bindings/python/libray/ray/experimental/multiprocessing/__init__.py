"""`ray.experimental.multiprocessing`: the older name of `ray.util.multiprocessing`."""

from ray.util.multiprocessing import Pool  # noqa: F401
