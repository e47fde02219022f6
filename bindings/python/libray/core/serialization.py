"""Pickle 5 for values, cloudpickle for code: `dumps` and `loads`, which the extension calls when the fast formats do not
fit, and the serializers that a program registered. Any thread, with the GIL. What cannot be pickled is explained by
serializability.py, code is kept by definition.py."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import sys
import threading
import types
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import cloudpickle

from .. import _libray
from ..exceptions import OufOfBandObjectRefSerializationException

_loads = pickle.loads
_custom: Dict[type, Tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {}


def _reduce_code(code: types.CodeType) -> Any:
    made = _plain_reduce_code(code)
    return (made[0], tuple(code.co_filename if a == _NO_FILE else a for a in made[1]), *made[2:])


_NO_FILE = "<dynamic-code>"  # what cloudpickle 3.1.3 and later write for the name of a file
_plain_reduce_code = cloudpickle.Pickler.dispatch_table[types.CodeType]


class CodePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle that keeps the names of source files, which remote tracebacks show, and finds the submodules that
    nested code uses. `reduce_ref`: what stands for an ObjectRef in this one pickle; without it references are
    exported, and the pickle can be read alone."""

    def __init__(
        self,
        file: Any,
        keep: Optional[Callable[[pickle.PickleBuffer], bool]] = None,
        reduce_ref: Optional[Callable[[Any], Any]] = None,
    ) -> None:
        # One plain dict: it is looked at for every object, and C looks faster than a ChainMap.
        reducers = {
            **copyreg.dispatch_table,
            **cloudpickle.Pickler.dispatch_table.maps[0],
            types.CodeType: _reduce_code,
        }
        if "pyarrow" in sys.modules:
            from . import arrow

            reducers = {**arrow.reducers(), **reducers}
        if reduce_ref is not None:
            reducers[_libray.ObjectRef] = reduce_ref
        self.dispatch_table = reducers
        super().__init__(file, protocol=5, buffer_callback=keep)

    def _dynamic_function_reduce(self, function: Any) -> Any:
        made = super()._dynamic_function_reduce(function)
        found = _submodules_of_nested_code(function)
        try:
            made[2][1]["_cloudpickle_submodules"].extend(found)
        except (TypeError, KeyError, IndexError, AttributeError):  # another release of cloudpickle
            if found:
                made = (_import_first, (found, made[0], *made[1]), *made[2:])
        return made


def _import_first(modules: Any, make: Any, *args: Any) -> Any:
    return make(*args)


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _nested(constant)


def _submodules_of_nested_code(function: Any) -> List[types.ModuleType]:
    """Submodules that comprehensions, lambdas, inner functions and classes of the function name as attributes of
    their packages. cloudpickle looks at the function's own code alone, and a worker has imported little."""
    codes = list(_nested(function.__code__))
    if not codes:
        return []
    used = set(function.__code__.co_names).union(*(code.co_names for code in codes))
    values = [function.__globals__.get(name) for name in used]
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # empty
            pass
    found: Dict[str, types.ModuleType] = {}
    for package in values:
        if not isinstance(package, types.ModuleType) or not getattr(package, "__path__", None):
            continue
        prefix = package.__name__ + "."
        for name, module in list(sys.modules.items()):
            if name.startswith(prefix) and used.issuperset(name[len(prefix) :].split(".")):
                if isinstance(module, types.ModuleType):
                    found[name] = module
    return list(found.values())


class _Pickler(CodePickler):
    """The same with the serializers that this process registered."""

    def reducer_override(self, value: Any) -> Any:
        known = _custom.get(type(value))
        if known is not None:
            serializer, deserializer = known
            return _restore, (deserializer, serializer(value))
        return super().reducer_override(value)


def _restore(deserializer: Callable[[Any], Any], state: Any) -> Any:
    return deserializer(state)


def register_serializer(
    cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]
) -> None:
    """Instances of exactly `cls` are pickled, in this process, as what `serializer` makes of them; whoever gets them
    calls `deserializer` with that."""
    global _pickler
    if not isinstance(cls, type):
        raise TypeError(f"register_serializer needs a class, not {type(cls)}")
    _custom[cls] = (serializer, deserializer)
    _pickler = _Pickler
    _libray._set_custom_types(set(_custom))


def deregister_serializer(cls: type) -> None:
    """Instances of `cls` are pickled as usual again."""
    global _pickler
    _custom.pop(cls, None)
    _libray._set_custom_types(set(_custom))
    if not _custom:
        _pickler = CodePickler


_pickler: Any = CodePickler


def dumps(
    value: Any, reduce_ref: Optional[Callable[[Any], Any]] = None
) -> Tuple[bytes, List[memoryview]]:
    """The pickle and its out-of-band buffers. `reduce_ref`: see CodePickler."""
    buffers: List[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        try:
            buffers.append(buffer.raw())
        except BufferError:  # not contiguous: it stays in the pickle
            return True
        return False

    def dump() -> bytes:
        buffers.clear()
        file = io.BytesIO()
        _pickler(file, keep, reduce_ref).dump(value)
        return file.getvalue()

    try:
        return dump(), buffers
    except pickle.PicklingError as e:
        if not isinstance(e.__cause__, RecursionError):
            raise
    with _deep:
        return dump(), buffers


class _DeepRecursion:
    """Room for what nests deeper than half of the interpreter's limit: before Python 3.12 the pickler counts each level
    twice. What nests without an end still fails, far from the end of the stack."""

    EXTRA = 2000

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a collection may come back here
        self.users = 0

    def forget(self) -> None:
        """In a forked child: a thread that held the lock is not there."""
        self.lock = threading.RLock()

    def __enter__(self) -> None:
        with self.lock:
            self.users += 1
            if self.users == 1:
                self.usual = sys.getrecursionlimit()
                sys.setrecursionlimit(self.usual + self.EXTRA)

    def __exit__(self, *exc: Any) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0 and sys.getrecursionlimit() == self.usual + self.EXTRA:
                sys.setrecursionlimit(self.usual)


_deep = _DeepRecursion()
os.register_at_fork(after_in_child=_deep.forget)


def loads(body: Any, buffers: List[Any]) -> Any:
    return _loads(body, buffers=buffers)


_FORBID = "RAY_allow_out_of_band_object_ref_serialization"


def check_export() -> None:
    """Refuses to pickle a reference outside of a value when the environment says so: such a pickle
    keeps its object until the job ends."""
    if os.environ.get(_FORBID, "1").lower() in ("0", "false"):
        raise OufOfBandObjectRefSerializationException(
            f"It is not allowed to serialize ray.ObjectRef outside of a task's arguments, its result "
            f"or a put while {_FORBID}=0: nobody can know when the pickle is used, so the object "
            "would live until the job ends. Pass the reference inside a value instead."
        )
