"""`ray._private`: what libraries and tests reach for in Ray's insides, as far as it has a meaning in libray."""
