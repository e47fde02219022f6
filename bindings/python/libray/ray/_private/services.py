"""`ray._private.services`."""


def get_node_ip_address(address: str = "8.8.8.8:53") -> str:
    """libray's node listens on no network: it is this machine."""
    return "127.0.0.1"


def get_node_instance_id() -> str:
    import os

    return os.environ.get("RAY_CLOUD_INSTANCE_ID", "")


def find_gcs_addresses() -> set:
    from libray.core import sessions

    found = sessions.running()
    return {found} if found else set()


def canonicalize_bootstrap_address(addr: str, temp_dir=None):
    return addr
