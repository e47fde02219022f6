"""`ray.actor`."""

from libray import ActorClass, ActorHandle, exit_actor, method
from libray._libray import ActorMethod
from libray.exceptions import ActorClassInheritanceException

__all__ = [
    "ActorClass",
    "ActorClassInheritanceException",
    "ActorHandle",
    "ActorMethod",
    "exit_actor",
    "method",
]
