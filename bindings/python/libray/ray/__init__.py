"""libray under the name `ray`. This tree is the package that `import ray` gives after `libray.install_as_ray()`:
one file per public module of Ray, each a thin map onto `libray` or the thing itself where it stands above the core
(pools, queues, metrics, the state lists). Submodules that programs use after a plain `import ray` are imported at the
end of this file; the others when they are asked for.

Nothing here is on the path of a call: `ray.get` is `libray.get`.
"""

import logging as _logging

import libray as _libray
from libray import (
    ObjectRef,
    ObjectRefGenerator,
    available_resources,
    cancel,
    cluster_resources,
    get,
    get_actor,
    get_runtime_context,
    is_initialized,
    kill,
    method,
    nodes,
    put,
    remote,
    shutdown,
    wait,
)

from ray._type_names import name_types as _name_types
from ray._version import commit as __commit__
from ray._version import version as __version__
from ray._raylet import (
    ActorClassID,
    ActorID,
    ClusterID,
    Config as _Config,
    DynamicObjectRefGenerator,
    FunctionID,
    JobID,
    Language,
    NodeID,
    PlacementGroupID,
    TaskID,
    UniqueID,
    WorkerID,
)

logger = _logging.getLogger("ray")
ObjectID = ObjectRef
SCRIPT_MODE, WORKER_MODE, LOCAL_MODE, SPILL_WORKER_MODE, RESTORE_WORKER_MODE = 0, 1, 2, 3, 4
_config = _Config()

from ray._private.worker import init, get_gpu_ids
from ray._private.ray_logging.logging_config import LoggingConfig
from ray._private.state import timeline
from ray import actor, exceptions, internal, remote_function, runtime_context, types, util
from ray import _common, _private, cross_language, experimental, job_config, runtime_env
from ray._private import ray_constants, serialization, state, worker
from ray.client_builder import ClientBuilder, client
from ray.cross_language import cpp_function, java_actor_class, java_function

__all__ = [
    "__version__",
    "_config",
    "ActorClassID",
    "ActorID",
    "ClientBuilder",
    "ClusterID",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "JobID",
    "Language",
    "LoggingConfig",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "SCRIPT_MODE",
    "TaskID",
    "UniqueID",
    "WORKER_MODE",
    "WorkerID",
    "actor",
    "available_resources",
    "cancel",
    "client",
    "cluster_resources",
    "cpp_function",
    "exceptions",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "internal",
    "is_initialized",
    "java_actor_class",
    "java_function",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "timeline",
    "util",
    "wait",
]

_name_types()

_LATE = ("cloudpickle", "cluster_utils", "data", "widgets")


def __getattr__(name: str):
    import importlib

    from libray.core.import_ray import why_absent

    if name in _LATE:
        return importlib.import_module(f"ray.{name}")
    why = why_absent(f"ray.{name}")
    if why:
        raise ImportError(why, name=f"ray.{name}")
    if name in _libray.__all__:  # what libray adds: c_function, ...
        return getattr(_libray, name)
    raise AttributeError(f"module 'ray' has no attribute {name!r}")
