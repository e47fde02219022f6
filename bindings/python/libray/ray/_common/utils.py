"""`ray._common.utils`."""

import asyncio
import importlib
import inspect
import os
import random
import string
from typing import Any, Coroutine

from ray._private.ray_constants import env_bool, env_float, env_integer  # noqa: F401


def import_attr(full_path: str, *, reload_module: bool = False) -> Any:
    """The object at "module.attribute" or "module:attribute"."""
    if full_path is None:
        raise TypeError("import path cannot be None")
    module_name, _, name = (
        full_path.partition(":") if ":" in full_path else full_path.rpartition(".")
    )
    module = importlib.import_module(module_name)
    if reload_module:
        importlib.reload(module)
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part)
    return value


def load_class(path: str) -> Any:
    if "." not in path:
        raise ValueError("The path must be of the form 'module.Class'")
    return import_attr(path)


def get_or_create_event_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    try:
        return asyncio.get_event_loop_policy().get_event_loop()
    except RuntimeError:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        return loop


_background: set = set()


def run_background_task(coroutine: Coroutine) -> "asyncio.Task":
    """A task that is kept until it is done."""
    task = get_or_create_event_loop().create_task(coroutine)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task


def get_random_alphanumeric_string(length: int) -> str:
    return "".join(random.choices(string.ascii_letters + string.digits, k=length))


def get_call_location(back: int = 1) -> str:
    try:
        frame = inspect.stack()[back + 1]
    except IndexError:
        return "UNKNOWN"
    return f"{frame.filename}:{frame.lineno}"


def get_default_system_temp_dir() -> str:
    return os.environ.get("TMPDIR", "/tmp")


def get_default_ray_temp_dir() -> str:
    from libray.core import sessions

    return sessions.base_path()


get_user_temp_dir, get_ray_temp_dir = get_default_system_temp_dir, get_default_ray_temp_dir


def reset_ray_address(temp_dir: Any = None) -> None:
    os.environ.pop("RAY_ADDRESS", None)


def get_system_memory(*args: Any) -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def binary_to_hex(identifier: bytes) -> str:
    return identifier.hex()


def hex_to_binary(hex_identifier: str) -> bytes:
    return bytes.fromhex(hex_identifier)


def try_to_create_directory(directory_path: str) -> None:
    os.makedirs(os.path.expanduser(directory_path), exist_ok=True)


def get_function_args(callable: Any) -> list:
    return list(inspect.signature(callable).parameters)


def decode(byte_str: Any, allow_none: bool = False, encode_type: str = "utf-8") -> str:
    if byte_str is None and allow_none:
        return ""
    if not isinstance(byte_str, bytes):
        raise ValueError(f"The argument {byte_str} must be a bytes object.")
    return byte_str.decode(encode_type)
