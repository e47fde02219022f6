"""`ray.job_config`."""

from libray._job_config import JobConfig

__all__ = ["JobConfig"]
