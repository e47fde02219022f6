"""`ray.internal.free`."""

from typing import Any, List, Union

import libray


def free(object_refs: Union[Any, List[Any]], local_only: bool = False) -> None:
    """Accepts references whose objects the program needs no more. libray counts references exactly, so an object
    goes, at once, with the last of them: nothing is taken away from others who still hold one."""
    refs = [object_refs] if isinstance(object_refs, libray.ObjectRef) else object_refs
    if not isinstance(refs, list):
        raise TypeError(f"free() expects a list of ObjectRef, got {type(refs)}")
    for ref in refs:
        if not isinstance(ref, libray.ObjectRef):
            raise TypeError(f"Attempting to call `free` on the value {ref}, which is not an ObjectRef.")
