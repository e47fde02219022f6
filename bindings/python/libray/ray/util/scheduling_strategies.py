"""`ray.util.scheduling_strategies`."""

try:
    from libray import _placement
except ImportError:
    from ray.util import _no_placement as _placement

for _name in (
    "PlacementGroupSchedulingStrategy NodeAffinitySchedulingStrategy NodeLabelSchedulingStrategy In NotIn Exists "
    "DoesNotExist"
).split():
    if hasattr(_placement, _name):
        globals()[_name] = getattr(_placement, _name)

SchedulingStrategyT = object
