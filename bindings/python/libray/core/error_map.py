"""The form in which every language tells every other one of an exception: a MessagePack map (ray_error_payload in ray.h).
`pack` makes it of a Python exception, `read` takes one apart that anybody may have written. Called by the errors'
modules on the thread that raises; nothing is kept."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from .. import _libray

MSGPACK, PICKLE = 1, 2  # RAY_FMT_*
_MAX_MESSAGE = 16 << 10  # characters of "message": all of a long one stands in "stack"
_MAX_CAUSES = 8


def clean(value: Any) -> str:
    """Without what is no text: lone surrogates."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def type_name(exc: BaseException) -> str:
    cls = type(exc)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def describe(exc: BaseException, depth: int = 0) -> Dict[str, Any]:
    """Type, message and causes. An error that came from another language says what that language said."""
    known = getattr(exc, "described", None)
    if isinstance(known, dict) and known and depth > 0:
        return known
    try:
        message = clean(exc)
    except Exception:
        message = "(its text cannot be made)"
    if len(message) > _MAX_MESSAGE:
        message = message[:_MAX_MESSAGE] + "..."
    out: Dict[str, Any] = {"language": "python", "type": clean(type_name(exc)), "message": message}
    cause = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    if isinstance(known, dict) and known:
        out["cause"] = known
    elif isinstance(cause, BaseException) and depth < _MAX_CAUSES:
        out["cause"] = describe(cause, depth + 1)
    return out


def pack(exc: BaseException, function: str, pid: int, stack: str, pickled: bytes) -> bytes:
    said = describe(exc)
    said.update(function=clean(function), pid=pid, stack=clean(stack), private=[PICKLE, pickled])
    return bytes(_libray.encode(said, False)[1])


def read(payload: bytes, payload_format: int) -> Optional[Dict[str, Any]]:
    """The map, with a str for each text; None: it is none."""
    if payload_format != MSGPACK or not payload:
        return None
    try:
        said = _libray.decode(payload, MSGPACK)
    except Exception:
        return None
    return checked(said)


def checked(said: Any) -> Optional[Dict[str, Any]]:
    if not isinstance(said, dict) or not isinstance(said.get("language"), str):
        return None
    out: Dict[str, Any] = dict(said)
    for key in ("type", "message", "stack", "function"):
        if not isinstance(out.get(key), str):
            out[key] = ""
    if not isinstance(out.get("pid"), int):
        out["pid"] = None
    return out


def private_of(said: Dict[str, Any]) -> Optional[Tuple[int, bytes]]:
    """The exception in the own form of its language: (RAY_FMT_*, bytes)."""
    private = said.get("private")
    if not isinstance(private, (list, tuple)) or len(private) != 2:
        return None
    form, body = private
    return (form, body) if isinstance(form, int) and isinstance(body, bytes) else None


def language_title(name: Optional[str]) -> str:
    """How people know the language that an error came from."""
    return {"java": "Java", "rust": "Rust", "native": "C or C++", "python": "Python"}.get(name or "", name or "another language")
