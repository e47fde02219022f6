"""`ray.experimental`."""

from ray.experimental import internal_kv, tqdm_ray
from ray.experimental.locations import get_local_object_locations, get_object_locations

__all__ = ["get_local_object_locations", "get_object_locations", "internal_kv", "tqdm_ray"]
