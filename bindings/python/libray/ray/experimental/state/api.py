"""`ray.experimental.state.api`: the older name of `ray.util.state.api`."""

from ray.util.state.api import *  # noqa: F401,F403
