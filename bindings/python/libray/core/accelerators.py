"""Accelerators: how many GPUs the node has, which units are this task's or actor's, and the variables by which
libraries see those alone: CUDA_VISIBLE_DEVICES for GPUs, TPU_VISIBLE_CHIPS, NEURON_RT_VISIBLE_CORES and so on.

The node gives out numbers from 0. Where a variable was set for the driver, number i means its i-th entry. Variables
with Ray's names and meaning: RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES=1 (and so for each of the others) leaves the
variable alone; RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1 empties CUDA_VISIBLE_DEVICES for tasks and actors that have no
GPUs, which else see all of them.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

VISIBLE = "CUDA_VISIBLE_DEVICES"
_VARIABLES = {  # resource -> the variable that libraries go by
    "GPU": VISIBLE,
    "neuron_cores": "NEURON_RT_VISIBLE_CORES",
    "TPU": "TPU_VISIBLE_CHIPS",
    "NPU": "ASCEND_RT_VISIBLE_DEVICES",
    "HPU": "HABANA_VISIBLE_MODULES",
    "RBLN": "RBLN_DEVICES",
    "FURIOSA": "FURIOSA_VISIBLE_DEVICES",
}
# How a part of a host's chips is laid out, for libtpu; all of them need no word.
_TPU_BOUNDS = ("TPU_CHIPS_PER_HOST_BOUNDS", "TPU_HOST_BOUNDS")
_TPU_LAYOUTS = {1: "1,1,1", 2: "1,2,1"}

_assigned: Dict[str, List[int]] = {}  # numbers, in a worker whose task or actor has some
_base: Dict[str, Optional[str]] = {}  # the variables between tasks
_names: Dict[str, Optional[List[str]]] = {}  # what the driver's variables named


def _flag(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true")


def visible(variable: str = VISIBLE) -> Optional[List[str]]:
    """Entries of the variable; None when it is not set."""
    value = os.environ.get(variable)
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


def _set(variable: str, value: Optional[str]) -> None:
    if _flag(f"RAY_EXPERIMENTAL_NOSET_{variable}"):
        return
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value


def prepare_worker() -> None:
    """In a new worker, before it runs anything."""
    for resource, variable in _VARIABLES.items():
        _names[resource] = visible(variable)
    if _flag("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        _set(VISIBLE, "")
    for variable in (*_VARIABLES.values(), *_TPU_BOUNDS):
        _base[variable] = os.environ.get(variable)


def enter(ids: Optional[Dict[str, List[int]]]) -> None:
    """Called by the extension before a task with accelerators, or the constructor of such an actor, and after the task
    (None)."""
    global _assigned
    before, _assigned = _assigned, ids or {}
    for resource in {*before, *_assigned}:
        variable = _VARIABLES[resource]
        here = resource in _assigned
        _set(variable, ",".join(map(str, _ids_of(resource))) if here else _base.get(variable))
        if resource == "TPU" and not _flag(f"RAY_EXPERIMENTAL_NOSET_{variable}"):
            layout = _TPU_LAYOUTS.get(len(_assigned["TPU"])) if here else None
            for name, value in zip(_TPU_BOUNDS, (layout, "1,1,1")):
                _set(name, value if layout else _base.get(name))


def _ids_of(resource: str) -> List[Any]:
    numbers, names = _assigned.get(resource, []), _names.get(resource)
    if names is None:
        return list(numbers)
    if all(i < len(names) for i in numbers):
        return [names[i] for i in numbers]
    return list(names)


def get_gpu_ids() -> List[Any]:
    """The GPUs assigned to the running task or actor: numbers, or what the driver's CUDA_VISIBLE_DEVICES called them.
    Empty in a driver."""
    return _ids_of("GPU")


def accelerator_ids() -> Dict[str, List[str]]:
    """See RuntimeContext.get_accelerator_ids."""
    return {resource: [str(i) for i in _ids_of(resource)] for resource in _VARIABLES}
