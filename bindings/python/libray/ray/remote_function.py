"""`ray.remote_function`."""

from libray import RemoteFunction

__all__ = ["RemoteFunction"]
