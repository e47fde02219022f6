"""Where placement groups were in libray 0.1: for programs written then."""
from .api.placement import *  # noqa: F401,F403
