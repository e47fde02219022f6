"""`ray.widgets`: libray draws nothing in notebooks."""
