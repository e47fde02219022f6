"""`ray._private.ray_constants`: names that programs read."""

import os


def env_integer(key: str, default: int) -> int:
    value = os.environ.get(key)
    return int(value) if value and value.lstrip("-").isdigit() else default


def env_float(key: str, default: float) -> float:
    return float(os.environ.get(key, default))


def env_bool(key: str, default: bool) -> bool:
    value = os.environ.get(key)
    return default if value is None else value.lower() in ("1", "true")


ID_SIZE = 28
RAY_ADDRESS_ENVIRONMENT_VARIABLE = "RAY_ADDRESS"
RAY_NAMESPACE_ENVIRONMENT_VARIABLE = "RAY_NAMESPACE"
RAY_RUNTIME_ENV_ENVIRONMENT_VARIABLE = "RAY_RUNTIME_ENV"
RAY_ADDRESS_AUTO = "auto"
NODE_DEFAULT_IP = "127.0.0.1"
DEFAULT_PORT = 6379
DEFAULT_DASHBOARD_IP = "127.0.0.1"
DEFAULT_DASHBOARD_PORT = 8265
LOGGER_LEVEL = "info"
LOGGER_FORMAT = "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s"
LOG_PREFIX_ACTOR_NAME = ":actor_name:"
LOG_PREFIX_TASK_NAME = ":task_name:"
LOG_PREFIX_JOB_ID = ":job_id:"
MEMORY_RESOURCE_UNIT_BYTES = 1
RESOURCE_CONSTRAINT_PREFIX = "accelerator_type:"
NODE_ID_PREFIX = "node:"
HEAD_NODE_RESOURCE_NAME = "node:__internal_head__"
OBJECT_STORE_MINIMUM_MEMORY_BYTES = 75 * 1024 * 1024
DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES = 200 * 10**9
DEFAULT_OBJECT_STORE_MEMORY_PROPORTION = 0.3
DEFAULT_TASK_MAX_RETRIES = 3
DEFAULT_ACTOR_METHOD_CPU_SIMPLE = DEFAULT_ACTOR_CREATION_CPU_SPECIFIED = 1
DEFAULT_ACTOR_CREATION_CPU_SIMPLE = DEFAULT_ACTOR_METHOD_CPU_SPECIFIED = 0
DEFAULT_ACTOR_METHOD_NUM_RETURN_VALS = 1
TASK_ENABLE_EVENTS_DEFAULT = True
ENABLE_RAY_CLUSTER = True
WORKER_PROCESS_SETUP_HOOK_ENV_VAR = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"
RAY_WORKER_NICENESS = "RAY_worker_niceness"
DEBUG_AUTOSCALING_ERROR = "__autoscaling_error"
DEBUG_AUTOSCALING_STATUS = "__autoscaling_status"
WORKER_CRASH_PUSH_ERROR = WORKER_DIED_PUSH_ERROR = "worker_died"
ACTOR_DIED_PUSH_ERROR = "actor_died"
