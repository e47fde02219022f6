"""The code of remote functions and actor classes, as it is pickled, published and read again.

Made by the decorators, on any thread; a worker reads one back for the extension (worker/calls.py). A definition has one
key everywhere: whoever got it with a task publishes the same bytes again. The process that made it pickles it once per
runtime, under a new key: what its code refers to may be of the runtime before, or have another value by now."""

from __future__ import annotations

import io
import os
import pickle
import threading
import uuid
import weakref
from typing import Any, Optional, Tuple

from .. import _libray
from .serialization import CodePickler

LARGE_DEFINITION, MAX_DEFINITION = 10 << 20, 95 << 20  # bytes: warned of, refused
# Those that somebody has: a definition is as large as what its closure holds.
_registry: "weakref.WeakValueDictionary[str, Definition]" = weakref.WeakValueDictionary()
_lock = threading.RLock()


def _forget() -> None:
    """In a forked child: a thread that held the lock is not there."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_forget)


class Definition:
    """The code of one remote function or actor class: pickled once and published once per runtime."""

    __slots__ = (
        "uid",
        "name",
        "target",
        "blob",
        "handle",
        "generation",
        "pickled",
        "busy",
        "is_class",
        "max_calls",
        "__weakref__",
    )

    def __init__(self, uid: str, name: str, target: Any, is_class: bool) -> None:
        self.uid = uid
        self.name = name
        self.target = target
        self.blob: Optional[bytes] = None
        self.handle: Any = None
        self.generation = -1
        self.pickled = -1  # the runtime that it was pickled in; -1: not by this process
        self.busy = 0  # the thread that pickles it now
        self.is_class = is_class
        self.max_calls = 0  # a worker ends after so many calls; 0: never

    @classmethod
    def of(cls, target: Any, is_class: bool) -> "Definition":
        name = getattr(target, "__qualname__", None) or getattr(target, "__name__", "function")
        return cls(
            uuid.uuid4().hex,
            f"{getattr(target, '__module__', '')}.{name}".lstrip("."),
            target,
            is_class,
        )

    def function(self) -> Any:
        """The Function of the running runtime."""
        if self.handle is None or self.generation != _libray.generation():
            self.handle = _libray.define_function(self.name, self.bytes())
            self.generation = _libray.generation()
        return self.handle

    def bytes(self) -> bytes:
        with _lock:
            now = _libray.generation()
            if self.blob is not None and self.pickled not in (-1, now) and not self.busy:
                self.blob = None
                self.uid = uuid.uuid4().hex
            if self.blob is None:
                self.busy = threading.get_ident()
                try:
                    file = io.BytesIO()
                    CodePickler(file).dump(
                        (self.uid, self.name, self.is_class, self.target, self.max_calls)
                    )
                    self.blob = file.getvalue()
                    self.pickled = now
                except Exception as e:
                    kind = "actor class" if self.is_class else "function"
                    from .serializability import not_picklable

                    raise not_picklable(
                        f"the {kind} {self.name}", self.target, self.name, e
                    ) from None
                finally:
                    self.busy = 0
                if len(self.blob) > LARGE_DEFINITION:
                    self.check_size()
            return self.blob

    def check_size(self) -> None:
        """Refuses a definition that is too large for the control store, warns of one that is large."""
        assert self.blob is not None
        size, what = len(self.blob), f"remote function {self.name}"
        if self.is_class:
            what = f"actor {self.name.rpartition('.')[2]}"
        advice = (
            "Check that its definition does not capture a large array or another object of its scope. "
            "Tip: put large objects into the store with ray.put() and pass the reference."
        )
        if size > MAX_DEFINITION:
            self.blob = None
            raise ValueError(f"The {what} is too large ({size >> 20} MiB). {advice}")
        import logging

        logging.getLogger("ray").warning(f"The {what} is very large ({size >> 20} MiB). {advice}")

    def __reduce__(self) -> Tuple[Any, ...]:
        if self.busy != threading.get_ident():
            self.bytes()
        if self.blob is not None:
            return (from_blob, (self.uid, self.name, self.is_class, self.blob))
        return (_empty, (self.uid, self.name, self.is_class), self.target)  # it refers to itself

    def __setstate__(self, target: Any) -> None:
        if self.target is None:
            self.target = target

    def load(self) -> Any:
        """The function or class itself."""
        if self.target is None and self.blob is not None:
            self.target = pickle.loads(self.blob)[3]
        return self.target


def _empty(uid: str, name: str, is_class: bool) -> Definition:
    return _registry.setdefault(uid, Definition(uid, name, None, is_class))


def from_blob(uid: str, name: str, is_class: bool, blob: bytes) -> Definition:
    """The definition of that key: the one that this process knows, else a new one that is read when it is used."""
    definition = _empty(uid, name, is_class)
    if definition.blob is None:
        definition.blob = blob
    return definition
