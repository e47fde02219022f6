"""`ray._private.ray_option_utils`: where `ray._common.ray_option_utils` was before."""

from ray._common.ray_option_utils import *  # noqa: F401,F403
from ray._common.ray_option_utils import (  # noqa: F401
    actor_options,
    task_options,
    update_options,
    valid_options,
)
