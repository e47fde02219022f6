"""`ray.util.placement_group`: reserved bundles of resources."""

from typing import Any, Optional

from libray.api.placement import (
    PlacementGroup,
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from libray.api.placement import _check_bundles as _validate_bundles
from libray.api.placement import _check_request, check_selector

VALID_PLACEMENT_GROUP_STRATEGIES = {"PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"}



def validate_placement_group(
    bundles: Any,
    strategy: str = "PACK",
    lifetime: Optional[str] = None,
    _soft_target_node_id: Optional[str] = None,
    bundle_label_selector: Any = None,
) -> bool:
    """ValueError when `placement_group` would refuse these arguments."""
    _check_request(bundles, strategy, lifetime)
    if bundle_label_selector:
        _validate_bundle_label_selector(bundle_label_selector)
    return True


def _validate_bundle_label_selector(bundle_label_selector: Any) -> None:
    if not isinstance(bundle_label_selector, list):
        raise ValueError(f"bundle_label_selector must be a list, got {type(bundle_label_selector)}.")
    for selector in bundle_label_selector:
        if not isinstance(selector, dict) or not all(
            isinstance(k, str) and isinstance(v, str) for k, v in selector.items()
        ):
            raise ValueError(
                f"bundle_label_selector must be a list of string dictionary, one per bundle; got {selector!r}."
            )
        check_selector("bundle_label_selector", selector)


__all__ = [
    "PlacementGroup",
    "get_current_placement_group",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
    "validate_placement_group",
]
