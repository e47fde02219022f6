"""GPUs: how many the node has, which of them are this task's or actor's, and CUDA_VISIBLE_DEVICES.

The node gives out numbers from 0. Where CUDA_VISIBLE_DEVICES was set for the driver, number i means its
i-th entry. Variables with Ray's names and meaning: RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES=1 leaves
CUDA_VISIBLE_DEVICES alone; RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1 empties it for tasks and actors that
have no GPUs, which else see all of them.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

VISIBLE = "CUDA_VISIBLE_DEVICES"
_RESOURCES = ("GPU", "neuron_cores", "TPU", "NPU", "HPU", "RBLN", "FURIOSA")

_assigned: List[int] = []  # numbers, in a worker whose task or actor has GPUs
_base: Optional[str] = None  # CUDA_VISIBLE_DEVICES between tasks
_names: Optional[List[str]] = None  # what the driver's CUDA_VISIBLE_DEVICES named


def _flag(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true")


def visible() -> Optional[List[str]]:
    """Entries of CUDA_VISIBLE_DEVICES; None when it is not set."""
    value = os.environ.get(VISIBLE)
    if value is None:
        return None
    return value.split(",") if value not in ("", "NoDevFiles") else []


def _listed(folder: str) -> List[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def of_this_machine() -> int:
    """How many GPUs a node that starts here has: those of the machine, as far as they are visible."""
    number = len(_listed("/proc/driver/nvidia/gpus"))
    if number == 0:  # containers may show the devices alone
        number = sum(name[:6] == "nvidia" and name[6:].isdigit() for name in _listed("/dev"))
    seen = visible()
    return number if seen is None else min(number, len(seen))


def check(number: float) -> None:
    """What init(num_gpus=...) asks for must be visible."""
    seen = visible()
    if seen is not None and number > len(seen):
        raise ValueError(
            f"Attempting to start raylet with {number} GPU, but {VISIBLE} contains {seen}."
        )


def _set(value: Optional[str]) -> None:
    if _flag("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"):
        return
    if value is None:
        os.environ.pop(VISIBLE, None)
    else:
        os.environ[VISIBLE] = value


def prepare_worker() -> None:
    """In a new worker, before it runs anything."""
    global _base, _names
    _names = visible()
    if _flag("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        _set("")
    _base = os.environ.get(VISIBLE)


def enter(ids: Optional[List[int]]) -> None:
    """Called by the extension before a task with GPUs, or the constructor of such an actor, and after
    the task (None)."""
    global _assigned
    if ids is None:
        _assigned = []
        _set(_base)
    else:
        _assigned = ids
        _set(",".join(str(i) for i in get_gpu_ids()))


def get_gpu_ids() -> List[Any]:
    """The GPUs assigned to the running task or actor: numbers, or what the driver's
    CUDA_VISIBLE_DEVICES called them. Empty in a driver."""
    if _names is None:
        return list(_assigned)
    if all(i < len(_names) for i in _assigned):
        return [_names[i] for i in _assigned]
    return list(_names)


def accelerator_ids() -> Dict[str, List[str]]:
    """See RuntimeContext.get_accelerator_ids."""
    ids: Dict[str, List[str]] = {name: [] for name in _RESOURCES}
    ids["GPU"] = [str(i) for i in get_gpu_ids()]
    return ids
