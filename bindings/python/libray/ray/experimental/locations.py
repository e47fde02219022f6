"""`ray.experimental.get_object_locations`."""

from typing import Any, Dict, List

import libray.testing
from libray import _libray
from libray.api import tables


def get_object_locations(obj_refs: List[Any], timeout_ms: int = -1) -> Dict[Any, Dict[str, Any]]:
    """Where each object is: on the one node, once it is there."""
    if timeout_ms == 0:
        raise ValueError("timeout_ms must not be 0")
    node = libray.get_runtime_context().get_node_id()
    refs = list(dict.fromkeys(obj_refs))
    ready = set(libray.wait(refs, num_returns=len(refs), timeout=0)[0]) if refs else ()
    sizes = {tables.object_text(row["object"]): row["size"] for row in _libray.query("references", b"")}
    spilled = {row["id"] for row in libray.testing.store() if row.get("spilled")} if refs else ()
    return {
        ref: {
            "node_ids": [node] if ref in ready else [],
            "object_size": sizes.get(ref.hex()) if ref in ready else None,
            "did_spill": ref.hex() in spilled,
        }
        for ref in refs
    }


get_local_object_locations = get_object_locations
