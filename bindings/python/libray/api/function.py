"""Remote functions: Python code, registered native functions, and C symbols. Made by the decorator, on any thread; the call
itself is the extension's (`RemoteBase.remote`). A remote function does not change after it was made: `.options` makes
another one."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, Dict, Optional, Tuple

from .. import _libray
from ..core.definition import Definition
from . import options as _options


def signature_of(function: Any, skip_self: bool = False) -> Tuple[int, int, Any]:
    """(least, most positional arguments that need no further check, check(args, kwargs) or
    None)."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return 0, -1, None
    parameters = list(signature.parameters.values())
    if skip_self and parameters:
        parameters = parameters[1:]
    return from_parameters([(p.name, int(p.kind), p.default is not p.empty) for p in parameters])


def from_parameters(parameters: Any) -> Tuple[int, int, Any]:
    """The same from (name, kind, has default) triples, which travel with actor handles."""
    least = most = 0
    for _, kind, has_default in parameters:
        if kind in (0, 1):
            most += 1
            least += not has_default
        elif kind == 2:
            most = 1 << 30
        elif kind == 3 and not has_default:
            least = 1 << 30  # a keyword is required: always look
    return least, -1 if most >= 1 << 30 else most, _Binder(parameters)


class _Binder:
    """Checks a call against a signature; the signature object is made when it is first needed."""

    __slots__ = ("parameters", "_signature")

    def __init__(self, parameters: Any) -> None:
        self.parameters = tuple(parameters)
        self._signature: Optional[inspect.Signature] = None

    def __call__(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        if self._signature is None:
            kinds = list(inspect._ParameterKind)
            self._signature = inspect.Signature(
                [
                    inspect.Parameter(
                        name, kinds[kind], default=None if has_default else inspect.Parameter.empty
                    )
                    for name, kind, has_default in self.parameters
                ]
            )
        self._signature.bind(*args, **kwargs)


def is_generator(function: Any) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


class RemoteFunction(_libray.RemoteBase):  # type: ignore[misc]
    """A function whose `.remote(...)` runs it as a task."""

    __module__ = "libray"  # also for pickles: where programs find it

    def __new__(cls, definition: Definition, options: Dict[str, Any]) -> "RemoteFunction":
        return super().__new__(cls)

    def __init__(self, definition: Definition, options: Dict[str, Any]) -> None:
        self._definition = definition
        self._options = options
        function = definition.load()
        if function is not None:
            functools.update_wrapper(self, function)
        self._function_name = definition.name
        least, most, bind = signature_of(function)
        num_returns = _options.returns_of(options, is_generator(function))
        self._refusal: Optional[ValueError] = None  # of amounts that no call may ask for
        try:
            resources = _options.pack_resources(options, 1.0, getattr(function, "__qualname__", ""))
        except _options.WrongAmount as error:
            resources, self._refusal = b"", error
        self._set(
            _libray.CallSpec(
                "",
                options.get("name") or "",
                resources,
                num_returns=num_returns,
                max_retries=_options.retries_of(options.get("max_retries")),
                window=_options.window_of(options),
                flags=_options.flags_of(options),
                min_pos=least,
                max_pos=most,
                bind=bind,
                note=_options.note_of(options, num_returns, is_generator(function)),
            ),
            None,
        )

    def _define(self) -> Any:
        """Called by the extension when a call finds no definition that the running runtime knows."""
        if self._refusal is not None:
            raise ValueError(str(self._refusal))
        return self._definition.function()

    @property
    def _function(self) -> Any:
        """The function itself, which debuggers and libraries call or look at."""
        return self._definition.load()

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """Graphs that are described before they run are Ray's `ray.dag`."""
        raise NotImplementedError(
            "libray has no ray.dag: call .remote() and pass the references on, that is the graph"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._function_name
        raise TypeError(
            f"Remote functions cannot be called directly. Instead of running '{name}()', try "
            f"'{name}.remote()'."
        )

    def options(self, **options: Any) -> "RemoteFunction":
        """The same function with other options."""
        _options.validate("remote functions", _options.TASK, options, in_options=True)
        return RemoteFunction(self._definition, _options.merged(self._options, options))

    @property
    def _default_options(self) -> Dict[str, Any]:
        return self._options

    def _remote(
        self, args: Any = (), kwargs: Optional[Dict[str, Any]] = None, **options: Any
    ) -> Any:
        target = self.options(**options) if options else self
        return target.remote(*(args or ()), **(kwargs or {}))

    def __repr__(self) -> str:
        return f"RemoteFunction({self._function_name})"

    def __reduce__(self) -> Tuple[Any, ...]:
        if self._definition.blob is None and self._definition.busy:
            # Inside its own code: the rest follows when the function itself is there.
            return (_blank, (), (self._definition, self._options))
        return (RemoteFunction, (self._definition, self._options))

    def __setstate__(self, state: Tuple[Definition, Dict[str, Any]]) -> None:
        self._definition, self._options = state
        self._function_name = self._definition.name

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"'RemoteFunction' object has no attribute '{name}'")


def _blank() -> "LateFunction":
    return LateFunction.__new__(LateFunction)


class LateFunction:
    """A remote function inside its own definition: becomes a RemoteFunction when it is first
    used."""

    def __setstate__(self, state: Tuple[Definition, Dict[str, Any]]) -> None:
        self._state = state

    def _real(self) -> RemoteFunction:
        real = self.__dict__.get("_cached")
        if real is None:
            real = self.__dict__["_cached"] = RemoteFunction(*self._state)
        return real

    @property
    def remote(self) -> Callable[..., Any]:
        return self._real().remote

    def options(self, **options: Any) -> RemoteFunction:
        return self._real().options(**options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __reduce__(self) -> Tuple[Any, ...]:
        return self._real().__reduce__()


def make_remote_function(function: Any, options: Dict[str, Any]) -> RemoteFunction:
    _options.validate("remote functions", _options.TASK, options)
    if inspect.iscoroutinefunction(function):
        raise ValueError(
            "'async def' should not be used for remote tasks. You can wrap the async function with "
            "`asyncio.run` or use an actor with async methods."
        )
    definition = Definition.of(function, False)
    # A process that used a GPU seldom gives its memory back: by default it serves one task.
    if options.get("num_gpus"):
        options = {"max_calls": 1, **options}
    definition.max_calls = int(options.get("max_calls") or 0)
    return RemoteFunction(definition, options)


class NativeFunction(_libray.RemoteBase):  # type: ignore[misc]
    """A function of another language, or a C symbol. Arguments and result travel as MessagePack."""

    __module__ = "libray"

    def __new__(
        cls, name: str, define: Callable[[], Any], options: Dict[str, Any]
    ) -> "NativeFunction":
        return super().__new__(cls)

    def __init__(self, name: str, define: Callable[[], Any], options: Dict[str, Any]) -> None:
        self.__name__ = name
        self._define_now = define
        self._options = options
        num_returns = _options.returns_by_name(options)
        self._set(
            _libray.CallSpec(
                "",
                options.get("name") or "",
                _options.pack_resources(options, 1.0),
                num_returns=num_returns,
                max_retries=_options.retries_of(options.get("max_retries")),
                window=_options.window_of(options),
                flags=_options.flags_of(options),
                native=self._native(),
                note=_options.note_by_name(options, num_returns, self._native() == 2),
            ),
            None,
        )

    def _native(self) -> int:
        return 1  # what CallSpec is to know of the callee: takes no keywords

    def _define(self) -> Any:
        return self._define_now()

    def options(self, **options: Any) -> "NativeFunction":
        _options.validate("remote functions", _options.TASK, options, in_options=True)
        return NativeFunction(self.__name__, self._define_now, {**self._options, **options})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"native functions run as tasks: try '{self.__name__}.remote()'")

    def __repr__(self) -> str:
        return f"NativeFunction({self.__name__})"

    def __reduce__(self) -> Tuple[Any, ...]:
        return (NativeFunction, (self.__name__, self._define_now, self._options))


def native_function(name: str, **options: Any) -> NativeFunction:
    """The function that native workers registered under `name`."""
    _options.validate("remote functions", _options.TASK, options)
    return NativeFunction(name, functools.partial(_libray.find_function, name), options)


def c_function(library: str, symbol: str, signature: str, **options: Any) -> NativeFunction:
    """A C symbol as a task, for example `c_function("libm.so.6", "pow", "f64(f64,f64)")`.

    Types: void bool i8 u8 i16 u16 i32 u32 i64 u64 f32 f64 str bytes ptr_len. Numbers are
    range-checked; an empty `library` means the C library.
    """
    _options.validate("remote functions", _options.TASK, options)
    name = f"{library}:{symbol}:{signature}"
    return NativeFunction(
        name, functools.partial(_libray.define_symbol, name, library, symbol, signature), options
    )


def load_library(name: str, path: str) -> Callable[[str], NativeFunction]:
    """Makes the functions that the shared library at `path` registers known to native workers."""
    _libray.define_library(name, path)
    return native_function
