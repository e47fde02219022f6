"""`ray._private.workers.default_worker`: libray's workers are forked from a warm process (libray/_zygote.py); this
module only stands where programs that check what Ray imports look for it."""

import ray  # noqa: F401
