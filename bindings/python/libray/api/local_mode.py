"""`init(local_mode=True)`: tasks and actors run in the driver, at the place where they are called, one after the other,
so that a debugger sees them. Their results are references as ever, with the same values (copied through the store) and
the same errors.

Nothing of this costs a cluster anything: `enable` puts its own `remote` methods over those of the classes
RemoteFunction and ActorClass, `disable`, at shutdown, takes them away."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
import uuid
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from .. import _libray, exceptions
from ..core import error_report, ids as _ids, own_actor, process
from . import options as _options
from .actor import ActorClass, ActorInfo
from .function import RemoteFunction, is_generator
from .stream import DynamicObjectRefGenerator

_actors: Dict[str, "_Instance"] = {}
_names: Dict[Tuple[str, str], str] = {}
_namespace = ""


class _Exit(BaseException):
    """exit_actor was called."""


def enable(namespace: str) -> None:
    """Called by init, when the runtime runs; its end disables it again."""
    global _namespace
    _namespace = namespace
    process.local_mode = True
    if disable not in process.on_shutdown:
        process.on_shutdown.append(disable)
    RemoteFunction.remote = _call_function
    ActorClass.remote = _make_actor  # type: ignore[method-assign]


_cluster_actor = ActorClass.remote


def disable() -> None:
    if process.local_mode:
        process.local_mode = False
        del RemoteFunction.remote
        ActorClass.remote = _cluster_actor  # type: ignore[method-assign]
        _actors.clear()
        _names.clear()


# ---- results: a value is put; an error is put as something that raises when it is read


class _Failed:
    def __init__(self, code: int, message: str, payload: bytes) -> None:
        self.parts = (code, message, payload)

    def __reduce__(self) -> Tuple[Any, ...]:
        return (_fail, self.parts)


def _fail(code: int, message: str, payload: bytes) -> None:
    error: Any = exceptions.make_error(code, message, payload, 1 if payload else 0)
    error._is_result = True  # of a task that failed: nothing is wrong with reading it
    raise error


def _failed(error: BaseException, name: str) -> _Failed:
    message, payload = error_report.dump_error(error, name)[:2]
    return _Failed(_libray.RAY_TASK_FAILED, message, payload)


class LocalGenerator:
    """References of a generator that ran already."""

    def __init__(self, refs: List[Any]) -> None:
        self._refs = iter(refs)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._refs)

    def __aiter__(self) -> "LocalGenerator":
        return self

    async def __anext__(self) -> Any:
        for ref in self._refs:
            return ref
        raise StopAsyncIteration


def _value(argument: Any) -> Any:
    """What the callee gets: the value of a reference, or a copy."""
    ref = argument if isinstance(argument, _libray.ObjectRef) else _libray.put(argument)
    return _libray.get(ref)


def _run(
    function: Callable[..., Any], name: str, n: int, args: Any, kwargs: Any, options: Dict[str, Any]
) -> Any:
    """Calls the function as a task of `n` returns, or STREAM or DYNAMIC; gives what `.remote()` gives."""
    retry = options.get("retry_exceptions")
    attempts = options.get("max_retries", options.get("max_task_retries"))
    left = (3 if attempts is None else attempts) if retry else 0
    while True:
        try:
            result = function(
                *[_value(a) for a in args], **{key: _value(v) for key, v in kwargs.items()}
            )
            if inspect.iscoroutine(result) or inspect.isasyncgen(result):
                result = _finish(result)
            return _returns(result, n, name, options)
        except (KeyboardInterrupt, _Exit):
            raise
        except SystemExit as error:
            return _many(_failed(error, name), n)
        except Exception as error:
            retried = retry is True or (retry and isinstance(error, tuple(retry)))
            if not retried or left == 0:
                return _many(_failed(error, name), n)
            left -= 1


def _many(error: _Failed, n: int) -> Any:
    """The error as every result of a call of `n` returns."""
    if n == _options.STREAM:
        return LocalGenerator([_libray.put(error)])
    return _fixed([_libray.put(error) for _ in range(1 if n == _options.DYNAMIC else n)])


def _fixed(refs: List[Any]) -> Any:
    """What `.remote()` gives for so many returns."""
    return None if not refs else refs[0] if len(refs) == 1 else refs


def _returns(result: Any, n: int, name: str, options: Dict[str, Any]) -> Any:
    whole = bool(options.get("retry_exceptions"))  # items before an exception do not count then, but for a stream
    if n == _options.STREAM:
        refs, error = _put_all(_ungrouped(result, options.get("_num_objects_per_yield") or 1))
        if error is not None:
            refs.append(_libray.put(_failed(error, name)))
        return LocalGenerator(refs)
    if n == _options.DYNAMIC:
        refs, error = _put_all(iter(result))
        if error is not None:
            if whole:
                raise error
            refs.append(_libray.put(_failed(error, name)))
        return _libray.put(DynamicObjectRefGenerator(refs))
    if inspect.isgenerator(result):
        return _fixed(_first_items(result, n, name, whole))
    if n <= 1:
        return _put(result) if n else None
    values = list(result)
    if len(values) != n:
        raise ValueError(f"Task returned {len(values)} objects, but num_returns={n}.")
    return [_put(value) for value in values]


def _first_items(generator: Iterator[Any], n: int, name: str, whole: bool) -> List[Any]:
    """What comes before an exception keeps its value; what comes after the n-th is not made."""
    refs, error = _put_all(itertools.islice(generator, n))
    if len(refs) < n:
        if error is None:
            error = ValueError(
                f"Task {name} returned {len(refs)} objects, but num_returns={n}: its generator ended early."
            )
        if whole or not refs:
            raise error
        failed = _failed(error, name)
        refs += [_libray.put(failed) for _ in range(n - len(refs))]
    return refs


def _ungrouped(result: Any, per_yield: int) -> Iterator[Any]:
    for item in result:
        group = [item] if per_yield == 1 else list(item)
        if len(group) != per_yield:
            raise ValueError(f"a `yield` gave {len(group)} objects, but _num_objects_per_yield={per_yield}")
        yield from group


def _put_all(items: Iterator[Any]) -> Tuple[List[Any], Optional[Exception]]:
    """References of the items, and the exception that came after them."""
    refs: List[Any] = []
    try:
        for item in items:
            refs.append(_put(item))
    except Exception as error:
        return refs, error
    return refs, None


def _put(value: Any) -> Any:
    """A task may return a reference; put refuses one alone."""
    return _libray.put(_Ref(value)) if isinstance(value, _libray.ObjectRef) else _libray.put(value)


class _Ref:
    def __init__(self, ref: Any) -> None:
        self.ref = ref

    def __reduce__(self) -> Tuple[Any, ...]:
        return (_itself, (self.ref,))


def _itself(value: Any) -> Any:
    return value


def _finish(work: Any) -> Any:
    """The result of a coroutine, or the items of an asynchronous generator."""

    async def collect() -> List[Any]:
        return [item async for item in work]

    coroutine = collect() if inspect.isasyncgen(work) else work
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    box: List[Any] = []  # a loop runs here: the other one needs a thread

    def run() -> None:
        try:
            box.append((asyncio.run(coroutine), None))
        except BaseException as error:
            box.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    value, error = box[0]
    if error is not None:
        raise error
    return value


def _call_function(self: Any, *args: Any, **kwargs: Any) -> Any:
    function = self._definition.load()
    self._definition.bytes()  # what a cluster would refuse is refused here too
    inspect.signature(function).bind(*args, **kwargs)
    n = _options.returns_of(self._options, is_generator(function))
    return _run(function, self._function_name, n, args, kwargs, self._options)


# ---- actors


class _Instance:
    """An actor of this process."""

    def __init__(self, info: ActorInfo, options: Dict[str, Any]) -> None:
        self.info, self.options = info, options
        self.object: Any = None
        self.death: Optional[Tuple[str, bytes]] = None  # message and payload


class LocalActorHandle:
    """Stands for an actor of this process; has the interface of ActorHandle."""

    def __init__(self, actor_id: str) -> None:
        self._actor_id_hex = actor_id

    @property
    def _actor_id(self) -> _ids.ActorID:
        return _ids.ActorID.from_hex(self._actor_id_hex)

    _ray_actor_id = _actor_id

    def __getattr__(self, name: str) -> "LocalMethod":
        instance = _actors.get(self.__dict__.get("_actor_id_hex", ""))
        if instance is None or name not in instance.info.parameters:
            raise AttributeError(f"the actor has no method {name!r}")
        return LocalMethod(instance, name, instance.info.parameters[name][1])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalActorHandle) and other._actor_id_hex == self._actor_id_hex

    def __hash__(self) -> int:
        return hash(self._actor_id_hex)

    def __dir__(self) -> List[str]:
        return sorted({*object.__dir__(self), *_actors[self._actor_id_hex].info.parameters})

    def __repr__(self) -> str:
        return f"Actor({_actors[self._actor_id_hex].info.class_name}, {self._actor_id_hex})"

    def __reduce__(self) -> Tuple[Any, ...]:
        return (LocalActorHandle, (self._actor_id_hex,))


class LocalMethod:
    """`handle.method`."""

    def __init__(self, instance: _Instance, name: str, options: Dict[str, Any]) -> None:
        self._instance, self._name, self._options = instance, name, options

    def __reduce__(self) -> Tuple[Any, ...]:
        actor_id = next(key for key, value in _actors.items() if value is self._instance)
        return (_rebuild_method, (actor_id, self._name, self._options))

    def options(self, **options: Any) -> "LocalMethod":
        _options.validate("actor methods", _options.METHOD, options)
        return LocalMethod(self._instance, self._name, {**self._options, **options})

    def _remote(self, args: Any = (), kwargs: Any = None, **options: Any) -> Any:
        return self.options(**options).remote(*(args or ()), **(kwargs or {}))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "Actor methods cannot be called directly. Instead of running "
            f"'object.{self._name}()', try 'object.{self._name}.remote()'."
        )

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        instance, name = self._instance, self._name
        parameters, _, generator = instance.info.parameters[name]
        n = _options.returns_of(self._options, generator)
        if instance.death is not None:
            return _many(_Failed(_libray.RAY_ACTOR_DIED, *instance.death), n)
        method = _find_method(instance, name)
        inspect.signature(method).bind(*args, **kwargs)
        try:
            return _run(
                method, f"{instance.info.class_name}.{name}", n, args, kwargs, self._options
            )
        except _Exit:
            _end(instance, "The actor exited by exit_actor.")
            return _many(_Failed(_libray.RAY_ACTOR_DIED, *instance.death), n)  # type: ignore[misc]


def _rebuild_method(actor_id: str, name: str, options: Dict[str, Any]) -> LocalMethod:
    return LocalMethod(_actors[actor_id], name, options)


def _find_method(instance: _Instance, name: str) -> Callable[..., Any]:
    if name == "__ray_terminate__":
        return exit_actor
    return own_actor.find_method(instance.object, name)


def _end(instance: _Instance, why: str) -> None:
    instance.death = (why, b"")
    instance.object = None
    for key in [k for k, actor_id in _names.items() if _actors[actor_id] is instance]:
        del _names[key]


def _make_actor(self: Any, *args: Any, **kwargs: Any) -> LocalActorHandle:
    target, options = self._definition.load(), self._options
    self._check_constructor(args, kwargs)
    self._definition.bytes()
    key = (options.get("namespace") or _namespace, options.get("name") or "")
    if key[1] and key in _names:
        if options.get("get_if_exists"):
            return LocalActorHandle(_names[key])
        raise exceptions.ActorAlreadyExistsError(f"The name {key[1]} (namespace={key[0]}) is already taken.")
    actor_id = uuid.uuid4().hex + "0" * 16
    instance = _actors[actor_id] = _Instance(ActorInfo.of(target), options)
    if key[1]:
        _names[key] = actor_id
    try:
        instance.object = target(
            *[_value(a) for a in args], **{name: _value(v) for name, v in kwargs.items()}
        )
    except _Exit:
        _end(instance, "The actor exited by exit_actor.")
    except Exception as error:
        _end(instance, "")
        message, payload = error_report.dump_error(error, f"{instance.info.class_name}.__init__")[:2]
        instance.death = (f"The actor died because its constructor failed: {message}", payload)
    return LocalActorHandle(actor_id)


def get_actor(name: str, namespace: Optional[str]) -> LocalActorHandle:
    """The actor of that name; ValueError when there is none."""
    key = (namespace or _namespace, name)
    if key not in _names:
        raise ValueError(f"Failed to look up actor with name '{name}'.")
    return LocalActorHandle(_names[key])


def named_actors(all_namespaces: bool) -> List[Any]:
    if all_namespaces:
        return [{"name": name, "namespace": namespace} for namespace, name in _names]
    return [name for namespace, name in _names if namespace == _namespace]


def kill(handle: LocalActorHandle) -> None:
    _end(_actors[handle._actor_id_hex], "The actor was killed by kill().")


def exit_actor() -> None:
    """Ends the actor whose method runs."""
    raise _Exit()
