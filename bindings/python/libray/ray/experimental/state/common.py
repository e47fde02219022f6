"""`ray.experimental.state.common`: the older name of `ray.util.state.common`."""

from ray.util.state.common import *  # noqa: F401,F403
