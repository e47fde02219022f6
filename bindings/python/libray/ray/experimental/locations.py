"""`ray.experimental.get_object_locations`."""

from typing import Any, Dict, List

import libray


def get_object_locations(obj_refs: List[Any], timeout_ms: int = -1) -> Dict[Any, Dict[str, Any]]:
    """Where each object is: on the one node, once it is there."""
    if timeout_ms == 0:
        raise ValueError("timeout_ms must not be 0")
    node = libray.get_runtime_context().get_node_id()
    ready = set(libray.wait(list(obj_refs), num_returns=len(obj_refs), timeout=0)[0]) if obj_refs else ()
    from libray import _state

    sizes = {_state.object_text(row["object"]): row["size"] for row in _state.rows("objects")}
    return {
        ref: {
            "node_ids": [node] if ref in ready else [],
            "object_size": sizes.get(ref.hex()) if ref in ready else None,
            "did_spill": False,
        }
        for ref in obj_refs
    }


get_local_object_locations = get_object_locations
