"""`ray.experimental.state.exception`: the older name of `ray.util.state.exception`."""

from ray.util.state.exception import *  # noqa: F401,F403
