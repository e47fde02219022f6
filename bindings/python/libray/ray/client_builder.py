"""`ray.client_builder`: libray has no thin client; a driver joins a session by its path."""

from typing import Any, Optional


class ClientBuilder:
    """`ray.client(...)`: collects options for `connect`, which calls `ray.init`."""

    def __init__(self, address: Optional[str] = None) -> None:
        self._address = address
        self._options: dict = {}

    def namespace(self, namespace: str) -> "ClientBuilder":
        self._options["namespace"] = namespace
        return self

    def env(self, env: dict) -> "ClientBuilder":
        self._options["runtime_env"] = env
        return self

    def connect(self) -> Any:
        import ray

        return ray.init(self._address, **self._options)


def client(address: Optional[str] = None, **kwargs: Any) -> ClientBuilder:
    return ClientBuilder(address)
