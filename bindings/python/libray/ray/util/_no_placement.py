"""Stands in until libray has placement groups."""


def _absent(*args, **kwargs):
    raise NotImplementedError("libray has no placement groups yet")


def get_current_placement_group():
    """There is none."""
    return None


class PlacementGroup:
    __init__ = _absent


class PlacementGroupSchedulingStrategy:
    __init__ = _absent


class NodeAffinitySchedulingStrategy:
    __init__ = _absent


get_placement_group = placement_group = placement_group_table = remove_placement_group = _absent
