"""`ray._private.gcs_utils`: the key-value part of Ray's GCS client."""

from libray import _libray
from libray.core import process
from ray.experimental import internal_kv


class GcsClient:
    def __init__(self, address=None, **ignored) -> None:
        _libray.ensure()
        self.address = address or process.session

    def internal_kv_get(self, key, namespace=None, timeout=None):
        return internal_kv._internal_kv_get(key, namespace=namespace)

    def internal_kv_put(self, key, value, overwrite=True, namespace=None, timeout=None):
        return int(not internal_kv._internal_kv_put(key, value, overwrite, namespace=namespace))

    def internal_kv_del(self, key, del_by_prefix=False, namespace=None, timeout=None):
        return internal_kv._internal_kv_del(key, del_by_prefix=del_by_prefix, namespace=namespace)

    def internal_kv_keys(self, prefix, namespace=None, timeout=None):
        return internal_kv._internal_kv_list(prefix, namespace=namespace)

    def internal_kv_exists(self, key, namespace=None, timeout=None):
        return internal_kv._internal_kv_exists(key, namespace=namespace)

    def get_all_node_info(self, *args, **kwargs):
        import libray

        return {bytes.fromhex(node["NodeID"]): node for node in libray.nodes()}


class ActorTableData:
    """States of actors, by Ray's numbers."""

    DEPENDENCIES_UNREADY, PENDING_CREATION, ALIVE, RESTARTING, DEAD = range(5)
    names = ("DEPENDENCIES_UNREADY", "PENDING_CREATION", "ALIVE", "RESTARTING", "DEAD")


__all__ = ["ActorTableData", "GcsClient"]
