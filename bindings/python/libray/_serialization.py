"""Pickle 5 for values, cloudpickle for code. Called from the extension when the fast formats do not
fit."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import sys
import threading
import types
import uuid
import weakref
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import cloudpickle

from . import _libray

_loads = pickle.loads
_custom: Dict[type, Tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {}


def _reduce_code(code: types.CodeType) -> Any:
    made = _plain_reduce_code(code)
    return (made[0], tuple(code.co_filename if a == _NO_FILE else a for a in made[1]), *made[2:])


_NO_FILE = "<dynamic-code>"  # what cloudpickle 3.1.3 and later write for the name of a file
_plain_reduce_code = cloudpickle.Pickler.dispatch_table[types.CodeType]


class _CodePickler(cloudpickle.Pickler):  # type: ignore[misc]
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
            from . import _arrow

            reducers = {**_arrow.reducers(), **reducers}
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


class _Pickler(_CodePickler):
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
        _pickler = _CodePickler


_pickler: Any = _CodePickler


def dumps(
    value: Any, reduce_ref: Optional[Callable[[Any], Any]] = None
) -> Tuple[bytes, List[memoryview]]:
    """The pickle and its out-of-band buffers. `reduce_ref`: see _CodePickler."""
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
        self.lock = threading.Lock()
        self.users = 0

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


def loads(body: Any, buffers: List[Any]) -> Any:
    return _loads(body, buffers=buffers)


def _report(value: Any, name: str) -> str:
    """What in the value cannot be pickled, for people."""
    import importlib.util

    path = os.path.join(os.path.dirname(__file__), "ray", "util", "check_serialize.py")
    spec = importlib.util.spec_from_file_location("libray._check_serialize", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = io.StringIO()
    try:
        module.inspect_serializability(value, name, print_file=text)
    except Exception:  # a value that cannot even be looked at
        pass
    return text.getvalue()


def _not_picklable(what: str, value: Any, name: str, error: BaseException) -> BaseException:
    """The error for something that cannot be pickled: what it is, and what in it is to blame."""
    if not isinstance(error, (TypeError, pickle.PicklingError, AttributeError, ValueError)):
        return error
    made = TypeError(f"Could not serialize {what}: {error}\n{_report(value, name)}".rstrip())
    made.__cause__ = error
    return made


def shown(value: Any) -> str:
    """What a message shows of a value, which may be large or refuse."""
    try:
        text = repr(value)
    except Exception:
        text = object.__repr__(value)
    return text if len(text) <= 400 else f"{text[:400]}... ({len(text)} characters)"


def explain_argument(function: Any, argument: Any, error: BaseException) -> BaseException:
    """The error for an argument that cannot be pickled: names it and the function (None: it is the value of a put)."""
    if function is None:
        return _not_picklable(f"the put value {shown(argument)}", argument, "value", error)
    name = getattr(function, "_function_name", None) or getattr(function, "__name__", None)
    if name is None:  # a method of an actor
        name = getattr(getattr(function, "_spec", None), "method", "?")
    return _not_picklable(
        f"the argument {shown(argument)} for a task or actor {name}", argument, "argument", error
    )


def explain_constructor(
    definition: Any, args: Any, kwargs: Dict[str, Any], error: BaseException
) -> BaseException:
    """The error for an actor's constructor whose arguments cannot be pickled: the first of them that is to blame."""
    for argument in [*args, *kwargs.values()]:
        if isinstance(argument, _libray.ObjectRef):
            continue
        try:
            dumps(argument)
        except Exception as found:
            return _not_picklable(
                f"the argument {shown(argument)} for a task or actor {definition.name}.__init__",
                argument,
                "argument",
                found,
            )
    return error


_FORBID = "RAY_allow_out_of_band_object_ref_serialization"


def check_export() -> None:
    """Refuses to pickle a reference outside of a value when the environment says so: such a pickle
    keeps its object until the job ends."""
    if os.environ.get(_FORBID, "1").lower() in ("0", "false"):
        from .exceptions import OufOfBandObjectRefSerializationException

        raise OufOfBandObjectRefSerializationException(
            f"It is not allowed to serialize ray.ObjectRef outside of a task's arguments, its result "
            f"or a put while {_FORBID}=0: nobody can know when the pickle is used, so the object "
            "would live until the job ends. Pass the reference inside a value instead."
        )


LARGE_DEFINITION, MAX_DEFINITION = 10 << 20, 95 << 20  # bytes: warned of, refused
# Those that somebody has: a definition is as large as what its closure holds.
_registry: "weakref.WeakValueDictionary[str, Definition]" = weakref.WeakValueDictionary()
_lock = threading.RLock()


class Definition:
    """The code of one remote function or actor class: pickled once, published once per runtime.
    Processes that got it with a task publish the same bytes again, so that a definition has one key
    everywhere."""

    __slots__ = (
        "uid",
        "name",
        "target",
        "blob",
        "handle",
        "generation",
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
            if self.blob is None:
                self.busy = threading.get_ident()
                try:
                    file = io.BytesIO()
                    _CodePickler(file).dump(
                        (self.uid, self.name, self.is_class, self.target, self.max_calls)
                    )
                    self.blob = file.getvalue()
                except Exception as e:
                    kind = "actor class" if self.is_class else "function"
                    raise _not_picklable(
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
        if self.blob is None and self.busy != threading.get_ident():
            self.bytes()
        if self.blob is not None:
            return (_from_blob, (self.uid, self.name, self.is_class, self.blob))
        return (_empty, (self.uid, self.name, self.is_class), self.target)  # it refers to itself

    def __setstate__(self, target: Any) -> None:
        if self.target is None:
            self.target = target

    def load(self) -> Any:
        """The function or class itself."""
        if self.target is None and self.blob is not None:
            self.target = _loads(self.blob)[3]
        return self.target


def _empty(uid: str, name: str, is_class: bool) -> Definition:
    return _registry.setdefault(uid, Definition(uid, name, None, is_class))


def _from_blob(uid: str, name: str, is_class: bool, blob: bytes) -> Definition:
    definition = _empty(uid, name, is_class)
    if definition.blob is None:
        definition.blob = blob
    return definition


make_actor: Callable[..., Any] = lambda cls, by_name=False, groups=None: cls  # the worker replaces it


def load_function(blob: bytes) -> Tuple[Any, int]:
    """In a worker: what a published definition means, and its max_calls."""
    if not blob.startswith(b"\x80"):  # no pickle
        from . import _cross

        return _cross.load_named(blob, make_actor), 0
    uid, name, is_class, target, max_calls = _loads(blob)
    definition = _from_blob(uid, name, is_class, blob)
    if definition.target is None:
        definition.target = target
    if is_class:
        return make_actor(target), 0
    for scope in (getattr(target, "__globals__", {}),):
        for key, value in list(scope.items()):  # the function's own name: the real thing, for speed
            if type(value).__name__ == "_LateFunction" and value._state[0] is definition:
                scope[key] = value._real()
    return target, max_calls
