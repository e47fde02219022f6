"""`ray._common`: what libraries and tests reach for in Ray's insides, as far as it has a meaning in libray."""
