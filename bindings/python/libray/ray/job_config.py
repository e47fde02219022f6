"""`ray.job_config`."""

from libray.driver.job_config import JobConfig

__all__ = ["JobConfig"]
