"""Actors: classes whose instances live in a worker of their own, and handles to them. Made by the decorator and by
`.remote(...)`, on any thread; a call of a method is the extension's (`ActorMethod.remote`). What a handle knows of its
class travels with it as bytes (`ActorInfo.metadata`)."""

from __future__ import annotations

import copyreg
import inspect
import pickle
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from .. import _libray
from ..core import ids as _ids, import_ray
from ..core.definition import Definition
from ..exceptions import ActorAlreadyExistsError, ActorClassInheritanceException
from . import options as _options, placement as _placement
from .function import from_parameters, is_generator

_ASYNC_CONCURRENCY = 1000
# Methods that every actor has besides those of its class.
_SPECIAL = {
    "__ray_ready__": [],
    "__ray_terminate__": [],
    "__ray_call__": [("function", 1, False), ("args", 2, False), ("kwargs", 4, False)],
}


def method(*args: Any, **options: Any) -> Callable[[Any], Any]:
    """Decorator that sets options of an actor's method: @libray.method(num_returns=2)."""
    if args or not options:
        raise ValueError(
            "The @libray.method decorator must be applied using no positional arguments and at least one "
            "of the arguments 'num_returns', 'max_task_retries', 'retry_exceptions', for example: "
            "'@libray.method(num_returns=2)'."
        )
    _options.validate("actor methods", _options.METHOD, options)

    def mark(function: Any) -> Any:
        function.__libray_method__ = options
        return function

    return mark


class ActorInfo:
    """What a handle knows of its class. Made from the class by the creator, from `metadata` by
    everyone else."""

    _known: Dict[bytes, "ActorInfo"] = {}

    def __init__(self, metadata: bytes) -> None:
        self.metadata = metadata
        parts = pickle.loads(metadata)
        self.class_name: str = parts["class"]
        self.is_async: bool = parts["async"]
        self.groups: Dict[str, int] = parts["groups"]  # concurrency groups and their limits
        self.parameters: Dict[str, Any] = parts["methods"]
        self.methods: Dict[str, Any] = {
            name: self.spec(name, options) for name, (_, options, _) in self.parameters.items()
        }

    def spec(self, name: str, options: Dict[str, Any]) -> Any:
        parameters, _, generator = self.parameters[name]
        least, most, bind = from_parameters(parameters)
        num_returns = _options.returns_of(options, generator)
        return _libray.CallSpec(
            name,
            options.get("name") or "",
            b"",
            num_returns=num_returns,
            max_retries=_options.retries_of(options.get("max_task_retries")),
            window=_options.window_of(options),
            flags=_options.flags_of(options),
            min_pos=least,
            max_pos=most,
            bind=bind,
            extra=options,
            note=_options.note_of(options, num_returns, generator),
            group=self.group_of(name, options.get("concurrency_group")),
        )

    def group_of(self, method: str, group: Optional[str]) -> int:
        if group is None:
            return 0
        if group not in self.groups:
            raise ValueError(
                f"{self.class_name}.{method}: there is no concurrency group {group!r}. The class has "
                f"{sorted(self.groups) or 'none'}; name it in @libray.remote(concurrency_groups=...)."
            )
        return list(self.groups).index(group) + 1

    @classmethod
    def load(cls, metadata: bytes) -> "ActorInfo":
        info = cls._known.get(metadata)
        if info is None:
            info = cls._known[metadata] = cls(metadata)
        return info

    @classmethod
    def of(cls, target: type, groups: Any = None) -> "ActorInfo":
        methods: Dict[str, Any] = {}
        is_async = False
        for name in dir(target):
            raw = inspect.getattr_static(target, name)
            function = getattr(target, name, None)
            if (
                not callable(function)
                or isinstance(raw, type)
                or (name.startswith("__") and name not in _CALLABLE)
            ):
                continue
            if name in dir(object) and name not in vars(target):
                continue
            plain = inspect.unwrap(function)
            is_async = (
                is_async or inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain)
            )
            options = dict(getattr(function, "__libray_method__", {}))
            methods[name] = (_parameters(raw, function), options, is_generator(plain))
        for name, parameters in _SPECIAL.items():
            methods.setdefault(name, (parameters, {}, False))
        return cls.load(
            pickle.dumps(
                {
                    "class": target.__name__,
                    "async": is_async,
                    "groups": _options.groups_of(groups, methods),
                    "methods": methods,
                },
                protocol=5,
            )
        )


_CALLABLE = (
    "__call__",
    "__len__",
    "__getitem__",
    "__contains__",
    "__enter__",
    "__exit__",
    "__repr__",
    "__str__",
    "__ray_ready__",
    "__ray_terminate__",
    "__ray_call__",
)


def _parameters(raw: Any, function: Any) -> List[Tuple[str, int, bool]]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        return [("args", 2, False), ("kwargs", 4, False)]
    if (
        not isinstance(raw, (staticmethod, classmethod))
        and parameters
        and parameters[0].kind in (0, 1)
    ):
        parameters = parameters[1:]
    return [(p.name, int(p.kind), p.default is not p.empty) for p in parameters]


# An attribute of a handle itself: `handle.name` is the method of that name, if the actor's class has one.
own = object.__getattribute__


class ActorHandle(_libray.ActorBase):  # type: ignore[misc]
    """A handle of an actor: `handle.method.remote(...)` calls it. It can be passed to tasks and actors.
    Those of `get_actor` and `current_actor` are weak, wherever they are passed: the actor ends without
    regard to them."""

    __slots__ = ()
    __module__ = "libray"  # also for pickles: where programs find it

    @classmethod
    def __class_getitem__(cls, item: Any) -> Any:  # ActorHandle[Class], for type checkers
        return cls

    @property
    def _actor_id(self) -> _ids.ActorID:
        return _ids.ActorID.from_hex(own(self, "_actor_id_hex"))

    _ray_actor_id = _actor_id

    def __repr__(self) -> str:
        return f"Actor({own(self, '_info').class_name}, {own(self, '_actor_id_hex')})"

    def __dir__(self) -> List[str]:
        return sorted({*own(self, "_methods"), "__init__"})  # as in Ray: what can be called remotely

    def __reduce__(self) -> Tuple[Any, ...]:
        metadata = own(self, "_info").metadata
        if own(self, "_weak"):
            return (_rebuild_weak_handle, (bytes.fromhex(own(self, "_actor_id_hex")), metadata))
        return (_rebuild_handle, (own(self, "_as_ref")(), metadata))


def _rebuild_handle(ref: Any, metadata: bytes) -> Any:
    info = ActorInfo.load(metadata)
    return _libray.actor_from_ref(ref, ActorHandle, info.methods, info)


def _rebuild_weak_handle(id: bytes, metadata: bytes) -> Any:
    info = ActorInfo.load(metadata)
    return _libray.actor_from_id(id, ActorHandle, info.methods, info)


def describe(metadata: bytes, language: int) -> Tuple[type, Dict[str, Any], Any]:
    """Called by the extension for an actor that was found: (class of the handle, methods, info)."""
    if language == 1 and metadata.startswith(b"\x80\x05"):  # a pickle, of ActorInfo: b"\x80" alone is MessagePack
        info = ActorInfo.load(metadata)
        return ActorHandle, info.methods, info
    from . import foreign

    return foreign.describe(metadata, language)


def handle_from_ref(ref: Any) -> Any:
    """A handle out of a value that another language made."""
    return _libray.actor_from_ref(ref, None, describe, None)


def current_actor() -> Any:
    """A weak handle of the actor that this process is."""
    return _libray.actor_self(describe)


def method_options(handle: Any, spec: Any, options: Dict[str, Any]) -> Any:
    _options.validate("actor methods", _options.METHOD, options)
    info: ActorInfo = own(handle, "_info")
    return _libray._method(handle, info.spec(spec.method, {**spec.extra, **options}))


def _reduce_method(bound: Any) -> Tuple[Any, ...]:
    return (_rebuild_method, (bound._handle, bound._spec.method, bound._spec.extra))


def _rebuild_method(handle: Any, name: str, options: Dict[str, Any]) -> Any:
    """`handle.name`, which may have been given options, in another process."""
    info: ActorInfo = own(handle, "_info")
    spec = info.methods[name]
    return _libray._method(handle, spec if spec.extra == options else info.spec(name, options))


copyreg.pickle(_libray.ActorMethod, _reduce_method)


_OWN = ("_definition", "_options", "_target_info", "_binder")  # attributes of ActorClass


class _Metadata(NamedTuple):
    """What libraries read from an actor class to find the plain one."""

    class_name: str
    modified_class: type


class ActorClass:
    """A class whose `.remote(...)` starts an actor."""

    __module__ = "libray"

    def __init__(self, *args: Any) -> None:
        if len(args) == 3 and isinstance(args[0], str):
            raise ActorClassInheritanceException(
                "Inheriting from actor classes is not currently supported: keep the plain class, "
                "subclass it, and decorate the subclass."
            )
        self._definition, self._options = args
        self._target_info: Optional[ActorInfo] = None
        target = self._definition.load()
        for name in ("__doc__", "__module__", "__name__", "__qualname__"):
            try:
                setattr(self, name, getattr(target, name))
            except AttributeError:
                pass

    def __mro_entries__(self, bases: Any) -> Any:
        raise ActorClassInheritanceException(
            "Inheriting from actor classes is not currently supported: keep the plain class, "
            "subclass it, and decorate the subclass."
        )

    def __getattr__(self, name: str) -> Any:
        """What the class itself has: constants, static and class methods, methods."""
        if name.startswith("__") or name in _OWN:
            raise AttributeError(f"the actor class has no attribute {name!r}")
        return getattr(self._definition.load(), name)

    def __dir__(self) -> List[str]:
        return sorted({*dir(self._definition.load()), "options", "remote"})

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self._definition.load())

    @property
    def _info(self) -> ActorInfo:
        if self._target_info is None:
            self._target_info = ActorInfo.of(
                self._definition.load(), self._options.get("concurrency_groups")
            )
        return self._target_info

    @property
    def _default_options(self) -> Dict[str, Any]:
        return self._options  # type: ignore[no-any-return]

    @property
    def __ray_metadata__(self) -> "_Metadata":
        return _Metadata(self._info.class_name, self._definition.load())

    @property
    def __ray_actor_class__(self) -> type:
        """The plain class."""
        return self._definition.load()  # type: ignore[no-any-return]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = getattr(self, "__name__", "the class")
        raise TypeError(
            f"Actors cannot be instantiated directly. Instead of '{name}()', use '{name}.remote()'."
        )

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """Graphs that are described before they run are Ray's `ray.dag`."""
        raise NotImplementedError(
            "libray has no ray.dag: call .remote() and pass the references on, that is the graph"
        )

    def options(self, **options: Any) -> "ActorClass":
        """The same class with other options."""
        _options.validate("actors", _options.ACTOR, options, in_options=True)
        made = ActorClass(self._definition, _options.merged(self._options, options))
        made._target_info = self._target_info
        return made

    def _remote(
        self, args: Any = (), kwargs: Optional[Dict[str, Any]] = None, **options: Any
    ) -> Any:
        target = self.options(**options) if options else self
        return target.remote(*(args or ()), **(kwargs or {}))

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Starts an actor; returns its handle at once."""
        _libray.ensure()
        info, o = self._info, self._options
        if _placement.current_captures():
            o = _placement.captured_options(o)
        self._check_constructor(args, kwargs)
        if o.get("get_if_exists"):
            try:
                return _libray.actor_find(o["name"], o.get("namespace") or "", describe)
            except ValueError:
                pass
        concurrency = o.get("max_concurrency") or (_ASYNC_CONCURRENCY if info.is_async else 1)
        out_of_order = _out_of_order(o, info.is_async, concurrency)
        pending = o.get("max_pending_calls")
        create = {
            "exact": True,
            "name": o.get("name") or "",
            "namespace": o.get("namespace") or "",
            "resources": _options.pack_resources(o, None, getattr(self, "__qualname__", "")),
            "metadata": info.metadata,
            "max_restarts": o.get("max_restarts") or 0,
            "max_concurrency": concurrency,
            "max_task_retries": _options.retries_of(o.get("max_task_retries")),
            "max_pending_calls": 0 if pending in (None, -1) else pending,
            "detached": o.get("lifetime") == "detached",
            "get_if_exists": bool(o.get("get_if_exists")),
            "out_of_order": out_of_order,
        }
        placement = _placement.note_of(o)
        hidden: Dict[str, Any] = {}
        stream_limit = max(o.get("_actor_generator_backpressure_num_objects") or 0, 0)
        if concurrency > 1 or info.is_async or info.groups or o.get("name") or placement or stream_limit:
            limits = list(info.groups.values())
            hidden["__libray__"] = (
                concurrency, info.is_async, limits, o.get("name") or "", placement, stream_limit,
            )
        try:
            return _libray.actor_create(
                self._definition.function(),
                args,
                {**kwargs, **hidden},
                create,
                ActorHandle,
                info.methods,
                info,
            )
        except ActorAlreadyExistsError:
            if not o.get("name"):
                raise
            namespace = o.get("namespace")
            raise ActorAlreadyExistsError(
                import_ray.named(
                    f"The name {o['name']} (namespace={namespace}) is already taken. Please use a different "
                    f"name or get the existing actor using libray.get_actor('{o['name']}', "
                    f"namespace='{namespace}')"
                )
            ) from None
        except (TypeError, pickle.PicklingError, AttributeError) as e:
            from ..core.serializability import explain_constructor

            raise explain_constructor(self._definition, args, kwargs, e) from e

    def _check_constructor(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        binder = self.__dict__.get("_binder")
        if binder is None:
            target = self._definition.load()
            parameters: Any = [("args", 2, False), ("kwargs", 4, False)]
            if target.__init__ is not object.__init__:
                parameters = _parameters(None, target.__init__)
            elif target.__new__ is object.__new__:
                parameters = []
            binder = self._binder = from_parameters(parameters)
        least, most, bind = binder
        if kwargs or len(args) < least or 0 <= most < len(args):
            bind(args, kwargs)

    def __repr__(self) -> str:
        return f"ActorClass({self._definition.name})"

    def __reduce__(self) -> Tuple[Any, ...]:
        if self._definition.blob is None and self._definition.busy:
            return (_blank_class, (), (self._definition, self._options))
        return (ActorClass, (self._definition, self._options))

    def __setstate__(self, state: Tuple[Definition, Dict[str, Any]]) -> None:
        # Inside its own definition: the class is not there yet, `_info` looks it up when it is
        # used.
        self._definition, self._options = state
        self._target_info = None


def _blank_class() -> ActorClass:
    return ActorClass.__new__(ActorClass)


def make_actor_class(target: type, options: Dict[str, Any]) -> ActorClass:
    _options.validate("actors", _options.ACTOR, options)
    return ActorClass(Definition.of(target, True), options)


def _out_of_order(options: Dict[str, Any], is_async: bool, concurrency: int) -> bool:
    """Whether calls with their arguments overtake others. Only actors that run one call at a time
    have an order to keep."""
    unordered = is_async or concurrency > 1
    wanted = options.get("allow_out_of_order_execution")
    if wanted is None:
        return unordered
    if unordered and not wanted:
        raise ValueError(
            f"Calls of an actor with {'asyncio methods' if is_async else 'max_concurrency > 1'} do not "
            "run in order: set `allow_out_of_order_execution=True`, or leave it out."
        )
    return bool(wanted)


__all__ = ["ActorClass", "ActorHandle", "method"]
