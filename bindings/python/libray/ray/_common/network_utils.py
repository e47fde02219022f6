"""`ray._common.network_utils`."""

import socket


def build_address(host, port) -> str:
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def parse_address(address: str):
    host, found, port = address.rpartition(":")
    return (host.strip("[]"), port) if found else None


def is_localhost(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")


def get_localhost_ip() -> str:
    return "127.0.0.1"


def find_free_port(family=socket.AF_INET) -> int:
    with socket.socket(family) as s:
        s.bind(("", 0))
        return s.getsockname()[1]
