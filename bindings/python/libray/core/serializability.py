"""What in a value cannot be pickled, for people: the search itself (`ray.util.inspect_serializability`), and the errors
of arguments, definitions and constructors that name what is to blame.

Imported when a pickle failed, on the thread of the call that failed; nothing is kept."""

from __future__ import annotations

import inspect
import io
import pickle
import sys
from typing import Any, Dict, Optional, Set, TextIO, Tuple

from .. import _libray
from . import serialization


class FailureTuple:
    """Something that cannot be pickled: the object, its name, what holds it, and the names on the way to it."""

    def __init__(self, obj: Any, name: str, parent: Any, path: str = "") -> None:
        self.obj, self.name, self.parent, self.path = obj, name, parent, path

    def __repr__(self) -> str:
        obj, parent = shown(self.obj), shown(self.parent)
        return f"FailTuple({self.name} [path={self.path}, obj={obj}, parent={parent}])"


def _fails(value: Any) -> Optional[Exception]:
    try:
        serialization.dumps(value)
    except Exception as error:
        return error
    return None


def inspect_serializability(
    base_obj: Any, name: Optional[str] = None, depth: int = 3, print_file: Optional[TextIO] = None
) -> Tuple[bool, Set[FailureTuple]]:
    """Whether the object can be sent, and the innermost things found, `depth` levels down, that cannot."""
    search = _Search(print_file or sys.stdout)
    title = f"Checking Serializability of {shown(base_obj)}"
    search.say("=" * len(title), title, "=" * len(title))
    ok = search.look(base_obj, name or getattr(base_obj, "__name__", str(base_obj)), None, depth, 0)
    if not ok:
        if not search.found:
            search.say(
                "WARNING: Did not find non-serializable object in "
                f"{shown(base_obj)}. This may be an oversight of the inspection: try a greater depth."
            )
        for failure in search.found:
            search.say(
                f"Variable: \n\t{failure}\nwas found to be non-serializable. Consider removing its "
                "instantiation or moving it into the scope of the function."
            )
    return ok, search.found


class _Search:
    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.found: Set[FailureTuple] = set()
        self.seen: Set[int] = set()

    def say(self, *lines: str, indent: int = 0) -> None:
        for line in lines:
            print(" " * 4 * indent + line, file=self.file)

    def look(
        self, value: Any, name: str, parent: Any, depth: int, indent: int, path: Tuple[str, ...] = ()
    ) -> bool:
        error = _fails(value)
        if error is None:
            return True
        self.say(f"!!! FAIL serialization: {error}", indent=indent)
        if id(value) in self.seen:
            return False
        self.seen.add(id(value))
        before = len(self.found)
        if depth > 0:
            for inner_name, inner in self.parts(value, indent):
                self.look(inner, inner_name, value, depth - 1, indent + 1, (*path, inner_name))
        if len(self.found) == before:  # nothing below it is to blame
            self.found.add(FailureTuple(value, name, parent, " -> ".join(path)))
        return False

    def parts(self, value: Any, indent: int) -> Any:
        if inspect.isfunction(value):
            try:
                captured = inspect.getclosurevars(value)
            except (TypeError, ValueError):
                return
            for kind, names in (("global", captured.globals), ("captured", captured.nonlocals)):
                if names:
                    self.say(f"Detected {len(names)} {kind} variables. Checking serializability...", indent=indent)
                yield from names.items()
        elif isinstance(value, dict):
            yield from ((str(key), item) for key, item in value.items())
        elif isinstance(value, (list, tuple, set)):
            yield from ((f"[{k}]", item) for k, item in enumerate(value))
        else:
            members = dict(getattr(value, "__dict__", {}))
            if inspect.isclass(value):
                members = {k: v for k, v in members.items() if not k.startswith("__") or k == "__init__"}
            yield from members.items()


# ---- the errors of those whose pickle failed


def _report(value: Any, name: str) -> str:
    """What in the value cannot be pickled, for people."""
    text = io.StringIO()
    try:
        inspect_serializability(value, name, print_file=text)
    except Exception:  # a value that cannot even be looked at
        pass
    return text.getvalue()


def not_picklable(what: str, value: Any, name: str, error: BaseException) -> BaseException:
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
    """The error for an argument that cannot be pickled: names it and the function (None: it is the value of a put).
    Called by the extension."""
    if function is None:
        return not_picklable(f"the put value {shown(argument)}", argument, "value", error)
    name = getattr(function, "_function_name", None) or getattr(function, "__name__", None)
    if name is None:  # a method of an actor
        name = getattr(getattr(function, "_spec", None), "method", "?")
    return not_picklable(
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
            serialization.dumps(argument)
        except Exception as found:
            return not_picklable(
                f"the argument {shown(argument)} for a task or actor {definition.name}.__init__",
                argument,
                "argument",
                found,
            )
    return error
