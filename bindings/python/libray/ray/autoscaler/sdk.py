"""`ray.autoscaler.sdk`: requests to an autoscaler, which a cluster of one node does not have."""

from typing import Any, Dict, List, Optional

import libray


def request_resources(
    num_cpus: Optional[int] = None,
    bundles: Optional[List[Dict[str, float]]] = None,
    bundle_label_selectors: Optional[List[Dict[str, str]]] = None,
) -> None:
    """Asks for a cluster of at least this size. Checked, then without effect, as on every cluster of Ray that does not
    scale."""
    if num_cpus is not None and (not isinstance(num_cpus, int) or num_cpus < 0):
        raise TypeError(f"num_cpus should be a non-negative int, got {num_cpus!r}.")
    if bundles is not None and not (
        isinstance(bundles, list) and all(isinstance(bundle, dict) for bundle in bundles)
    ):
        raise TypeError(f"bundles should be of type List[Dict[str, float]], got {bundles!r}.")
    if bundle_label_selectors is not None and len(bundle_label_selectors) != len(bundles or ()):
        raise ValueError("bundle_label_selectors must have one entry for every bundle.")
    if not libray.is_initialized():
        raise RuntimeError("Ray has not been initialized: call ray.init() first.")


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    raise NotImplementedError(f"libray has no ray.autoscaler.sdk.{name}: a cluster has one node")
