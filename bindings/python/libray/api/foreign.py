"""Functions and actor classes that are known by their names, of any language (`function`, `actor_class`), handles of
actors that are no Python objects here, and where the code of other languages lies. Called by programs and by `init`, on
any thread. How a worker gets from a name to a Python object: worker/definitions.py."""

from __future__ import annotations

import functools
from typing import Any, Dict, List, Tuple

from .. import _libray
from ..core import ids as _ids
from . import options as _options
from .function import NativeFunction

NATIVE, PYTHON, JAVA, RUST = range(4)  # RAY_LANG_*
_LANGUAGES = {
    "native": NATIVE, "c": NATIVE, "cpp": NATIVE, "c++": NATIVE, "python": PYTHON, "java": JAVA, "rust": RUST,
}
_NAMES = ("native", "python", "java", "rust")


def language_of(name: Any) -> int:
    if not isinstance(name, str) or name.lower() not in _LANGUAGES:
        raise ValueError(f"the language must be one of {', '.join(_LANGUAGES)}, not {name!r}")
    return _LANGUAGES[name.lower()]


def language_name(language: int) -> str:
    return _NAMES[language] if 0 <= language < len(_NAMES) else str(language)


def _container_and_member(language: int, names: Tuple[Any, ...], is_class: bool) -> Tuple[str, str]:
    """As ray_function_named wants them. One name: "module:f" of Python, a class of Java, what is registered elsewhere."""
    if not names or len(names) > 2 or not all(isinstance(n, str) and n for n in names):
        raise ValueError(
            'name it by one or two non-empty strings: ("python", "module", "f"), ("java", "pkg.Class", "method"), '
            '("rust", "f"), ("cpp", "f")'
        )
    if len(names) == 2:
        return names[0], names[1]
    if language == PYTHON:
        module, _, member = names[0].partition(":")
        if not member:
            raise ValueError(f"{names[0]!r} names no Python function: write it as 'module:function'")
        return module, member
    if language == JAVA:
        if not is_class:
            raise ValueError("a Java function is named by its class and its static method: two names")
        return names[0], ""
    return "", names[0]


class NamedFunction(NativeFunction):
    """A function of any language by its name. Arguments and result are values that every language knows."""

    def __new__(cls, language: int, container: str, member: str, options: Dict[str, Any]) -> "NamedFunction":
        return _libray.RemoteBase.__new__(cls)  # type: ignore[no-any-return]

    def __init__(self, language: int, container: str, member: str, options: Dict[str, Any]) -> None:
        self._named = (language, container, member)
        label = (f"{container}.{member}" if container else member).rstrip(".")
        super().__init__(label, functools.partial(_libray.named_function, *self._named), options)

    def _native(self) -> int:
        return 2 if self._named[0] == PYTHON else 1  # Python's take keywords

    def options(self, **options: Any) -> "NamedFunction":
        _options.validate("remote functions", _options.TASK, options, in_options=True)
        return NamedFunction(*self._named, {**self._options, **options})

    def __repr__(self) -> str:
        return f"NamedFunction({language_name(self._named[0])}: {self.__name__})"

    def __reduce__(self) -> Tuple[Any, ...]:
        return (NamedFunction, (*self._named, self._options))


def function(language: str, *names: str, **options: Any) -> NamedFunction:
    """A function of another language by its name, with `.remote(...)` and `.options(...)`:
    `function("java", "pkg.Class", "method")`, `function("rust", "area")`, `function("cpp", "area")`,
    `function("python", "module", "f")`. A generator needs `num_returns="streaming"`."""
    _options.validate("remote functions", _options.TASK, options)
    number = language_of(language)
    return NamedFunction(number, *_container_and_member(number, names, False), options)


# ---- actors


class ForeignInfo:
    """What a handle knows of an actor that was made by name: no table of methods, any name may be called."""

    is_async = False
    groups: Dict[str, int] = {}
    parameters: Dict[str, Any] = {}

    def __init__(self, language: int, class_name: str, metadata: bytes = b"") -> None:
        self.language = language
        self.class_name = class_name
        self.metadata = metadata
        self.methods: Dict[str, Any] = {}

    def spec(self, name: str, options: Dict[str, Any]) -> Any:
        if options.get("concurrency_group"):
            raise ValueError(f"{self.class_name}.{name}: concurrency groups have no names across languages")
        num_returns = _options.returns_by_name(options)
        return _libray.CallSpec(
            name,
            options.get("name") or "",
            b"",
            num_returns=num_returns,
            max_retries=_options.retries_of(options.get("max_task_retries")),
            window=_options.window_of(options),
            flags=_options.flags_of(options),
            native=2 if self.language == PYTHON else 1,
            extra=options,
            note=_options.note_by_name(options, num_returns, self.language == PYTHON),
        )


class ForeignActorHandle(_libray.ActorBase):  # type: ignore[misc]
    """A handle of an actor of another language: `handle.method.remote(...)` calls the method of that name, if the
    actor has one. It can be passed to tasks and actors of every language."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        info: ForeignInfo = self._info
        spec = info.methods.get(name)
        if spec is None:
            spec = info.methods[name] = info.spec(name, {})
        return _libray._method(self, spec)

    @property
    def _actor_id(self) -> _ids.ActorID:
        return _ids.ActorID.from_hex(self._actor_id_hex)

    @property
    def _ray_actor_id(self) -> _ids.ActorID:
        return self._actor_id

    def __repr__(self) -> str:
        return f"Actor({language_name(self._info.language)}: {self._info.class_name}, {self._actor_id_hex})"

    def __reduce__(self) -> Tuple[Any, ...]:
        named = (self._info.language, self._info.class_name)
        if self._weak:
            return (_rebuild_weak_handle, (bytes.fromhex(self._actor_id_hex), *named))
        return (_rebuild_handle, (self._as_ref(), *named))


def _rebuild_handle(ref: Any, language: int, class_name: str) -> Any:
    info = ForeignInfo(language, class_name)
    return _libray.actor_from_ref(ref, ForeignActorHandle, info.methods, info)


def _rebuild_weak_handle(id: bytes, language: int, class_name: str) -> Any:
    info = ForeignInfo(language, class_name)
    return _libray.actor_from_id(id, ForeignActorHandle, info.methods, info)


def describe(metadata: bytes, language: int) -> Tuple[type, Dict[str, Any], ForeignInfo]:
    """Of an actor that was found by name or in a value, and that no Python class was decorated for."""
    info = ForeignInfo(language, _class_in(metadata) or "?", metadata)
    return ForeignActorHandle, info.methods, info


def _class_in(metadata: bytes) -> str:
    """The class that bindings of other languages write there, as a MessagePack map."""
    try:
        said = _libray.decode(metadata, 1) if metadata else None
    except ValueError:
        return ""
    return str(said.get("class", "")) if isinstance(said, dict) else ""


class ForeignActorClass:
    """An actor class by its name: `.remote(...)` starts an actor."""

    def __init__(self, language: int, container: str, member: str, options: Dict[str, Any]) -> None:
        self._named = (language, container, member)
        self._options = options
        self.__name__ = (f"{container}.{member}" if container else member).rstrip(".")

    def options(self, **options: Any) -> "ForeignActorClass":
        """The same class with other options."""
        _options.validate("actors", _options.ACTOR, options, in_options=True)
        return ForeignActorClass(*self._named, _options.merged(self._options, options))

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Starts an actor; returns its handle at once."""
        language = self._named[0]
        if kwargs and language != PYTHON:
            raise TypeError("classes of another language take no keyword arguments")
        _libray.ensure()
        o = self._options
        pending = o.get("max_pending_calls")
        if o.get("concurrency_groups"):
            raise ValueError(f"{self.__name__}: concurrency groups belong to the class, where it is written")
        info = ForeignInfo(language, self.__name__)
        return _libray.actor_create(
            _libray.named_function(*self._named),
            args,
            kwargs,
            {
                "exact": False,
                "name": o.get("name") or "",
                "namespace": o.get("namespace") or "",
                "resources": _options.pack_resources(o, None, self.__name__),
                "metadata": _metadata(language, self.__name__),
                "max_restarts": o.get("max_restarts") or 0,
                "max_concurrency": o.get("max_concurrency") or 1,
                "max_task_retries": _options.retries_of(o.get("max_task_retries")),
                "max_pending_calls": 0 if pending in (None, -1) else pending,
                "detached": o.get("lifetime") == "detached",
                "get_if_exists": bool(o.get("get_if_exists")),
                "out_of_order": bool(o.get("allow_out_of_order_execution")),
            },
            ForeignActorHandle,
            info.methods,
            info,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"Actors cannot be instantiated directly: use '{self.__name__}.remote()'.")

    def __repr__(self) -> str:
        return f"ForeignActorClass({language_name(self._named[0])}: {self.__name__})"

    def __reduce__(self) -> Tuple[Any, ...]:
        return (ForeignActorClass, (*self._named, self._options))


def _metadata(language: int, class_name: str) -> bytes:
    return bytes(_libray.encode({"language": language_name(language), "class": class_name}, False)[1])


def actor_class(language: str, *names: str, **options: Any) -> ForeignActorClass:
    """An actor class of another language by its name: `actor_class("java", "pkg.Counter")`,
    `actor_class("rust", "Counter")`, `actor_class("python", "module", "Counter")`."""
    _options.validate("actors", _options.ACTOR, options)
    number = language_of(language)
    return ForeignActorClass(number, *_container_and_member(number, names, True), options)


# ---- where the code of other languages lies


def set_code(code: Dict[str, Any]) -> None:
    """Language -> its code: a class path, a program, directories of modules; or the whole command of its workers, as a
    list. What `init` was given."""
    for name, where in code.items():
        language = language_of(name)
        if isinstance(where, (list, tuple)):
            _libray.worker_command(language, [str(word) for word in where])
        else:
            _libray.worker_code(language, str(where))


def code_of_paths(paths: List[str]) -> Dict[str, Any]:
    """Ray's code_search_path: jars and folders are Java's class path, a program is a native worker, and folders are
    searched for Python modules, too."""
    import os

    java: List[str] = []
    code: Dict[str, Any] = {}
    for path in paths:
        if os.path.isdir(path):
            java += [path, os.path.join(path, "*")]
        elif path.endswith(".jar"):
            java.append(path)
        elif os.access(path, os.X_OK) and not path.endswith(".so"):
            code["native"] = path
        elif not path.endswith(".so"):
            raise ValueError(
                f"code_search_path: {path!r} is no folder, no jar and no program. Functions of a shared library: "
                "libray.load_library(name, path)"
            )
    if java:
        code["java"] = os.pathsep.join(java)
    return code
