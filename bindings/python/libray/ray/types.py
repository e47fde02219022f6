"""`ray.types`."""

from typing import Generic, TypeVar

T = TypeVar("T")


class ObjectRef(Generic[T]):
    """For annotations of functions that take the value of a reference: `def f(x: ray.types.ObjectRef[int])`."""


__all__ = ["ObjectRef"]
