"""`ray.experimental.internal_kv`: the key-value table of the control store, as bytes."""

from typing import List, Optional, Union

from libray import _libray
from libray.exceptions import ConflictError

Text = Union[str, bytes]


def _bytes(value: Text) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _namespace(given: Optional[Text]) -> str:
    if given is None:
        return ""
    return given.decode() if isinstance(given, bytes) else given


def _key(value: Text) -> bytes:
    """The key, which must not look like one of those that Ray made of a namespace and a key."""
    key = _bytes(value)
    if key.startswith(b"@namespace_"):
        raise RuntimeError("a key must not start with '@namespace_': name the namespace apart")
    return key


def _internal_kv_initialized() -> bool:
    return bool(_libray.is_initialized())


def _initialize_internal_kv(gcs_client=None) -> None:
    _libray.ensure()


def _internal_kv_reset() -> None:
    """Nothing is kept here."""


def internal_kv_get_gcs_client():
    from ray._private.gcs_utils import GcsClient

    return GcsClient()


def _internal_kv_get(key: Text, *, namespace: Optional[Text] = None) -> Optional[bytes]:
    """The value, or None."""
    _libray.ensure()
    found = _libray.kv_get(_namespace(namespace), _key(key))
    return None if found is None else found[0]


def _internal_kv_exists(key: Text, *, namespace: Optional[Text] = None) -> bool:
    return _internal_kv_get(key, namespace=namespace) is not None


def _internal_kv_put(
    key: Text, value: Text, overwrite: bool = True, *, namespace: Optional[Text] = None
) -> bool:
    """Stores the value; returns whether the key was there already (it stays as it was if not `overwrite`)."""
    _libray.ensure()
    space, name, data = _namespace(namespace), _key(key), _bytes(value)
    try:
        _libray.kv_put(space, name, data, 0)  # only a key that does not exist has version 0
        return False
    except ConflictError:
        if overwrite:
            _libray.kv_put(space, name, data, None)
        return True


def _internal_kv_del(
    key: Text, *, del_by_prefix: bool = False, namespace: Optional[Text] = None
) -> int:
    """Removes the key, or all that start with it; returns how many there were."""
    _libray.ensure()
    space = _namespace(namespace)
    keys = _libray.kv_list(space, _key(key)) if del_by_prefix else [_key(key)]
    removed = 0
    for each in keys:
        if _libray.kv_get(space, each) is not None:
            _libray.kv_delete(space, each, None)
            removed += 1
    return removed


def _internal_kv_list(prefix: Text, *, namespace: Optional[Text] = None) -> List[bytes]:
    """The keys that start with the prefix."""
    _libray.ensure()
    return list(_libray.kv_list(_namespace(namespace), _key(prefix)))


def _pin_runtime_env_uri(uri: str, *, expiration_s: int) -> None:
    """libray has no cache of environments."""
