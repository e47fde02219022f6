"""Values that cross between languages: what stands for objects that MessagePack has no form of, and why the rest cannot
cross. Called by the extension for calls of functions that are known by name, and for results of calls that came from
another language; docs/cross_language.md has the table of types."""

from __future__ import annotations

import datetime
import sys
from typing import Any, Iterator, Optional, Tuple

from .. import _libray

TIMESTAMP, ARROW = -1, 4  # extension types
_PLAIN = 0  # convert: another object in place of the first
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_SECOND = datetime.timedelta(seconds=1)


class Timestamp(datetime.datetime):
    """A time with nanoseconds, which other languages know and datetime does not: what a timestamp that no datetime can
    hold is read as. Equal and ordered by all its digits; arithmetic with it has microseconds, as datetime has."""

    __module__ = "libray"  # also for pickles: where programs find it

    nanosecond: int = 0  # below the microsecond: 0 to 999

    @classmethod
    def of(cls, time: datetime.datetime, nanosecond: int) -> "Timestamp":
        made = cls.combine(time.date(), time.timetz())
        made.nanosecond = nanosecond
        return made

    def _order(self, other: Any, compare: str) -> Any:
        result = getattr(datetime.datetime, compare)(self, other)
        if result is NotImplemented or not datetime.datetime.__eq__(self, other):
            return result
        return getattr(self.nanosecond, compare)(getattr(other, "nanosecond", 0))

    def __eq__(self, other: object) -> Any:
        return self._order(other, "__eq__")

    def __ne__(self, other: object) -> Any:
        equal = self._order(other, "__eq__")
        return equal if equal is NotImplemented else not equal

    def __lt__(self, other: Any) -> Any:
        return self._order(other, "__lt__")

    def __le__(self, other: Any) -> Any:
        return self._order(other, "__le__")

    def __gt__(self, other: Any) -> Any:
        return self._order(other, "__gt__")

    def __ge__(self, other: Any) -> Any:
        return self._order(other, "__ge__")

    def __hash__(self) -> int:
        return datetime.datetime.__hash__(self) ^ self.nanosecond

    def __repr__(self) -> str:
        return f"libray.Timestamp({self.isoformat()!r} + {self.nanosecond} ns)"

    def __reduce_ex__(self, protocol: Any) -> Tuple[Any, ...]:
        plain = datetime.datetime.combine(self.date(), self.timetz())
        return (Timestamp.of, (plain, self.nanosecond))


def pack_timestamp(time: datetime.datetime) -> bytes:
    """The shortest of MessagePack's three forms."""
    since = time - _EPOCH
    seconds = since // _SECOND
    nanoseconds = (since % _SECOND).microseconds * 1000 + int(getattr(time, "nanosecond", 0))
    if nanoseconds == 0 and 0 <= seconds < 1 << 32:
        return seconds.to_bytes(4, "big")
    if 0 <= seconds < 1 << 34:
        return (nanoseconds << 34 | seconds).to_bytes(8, "big")
    return nanoseconds.to_bytes(4, "big") + seconds.to_bytes(8, "big", signed=True)


def read_timestamp(body: bytes) -> datetime.datetime:
    """An aware datetime, or a Timestamp when it has more digits than that."""
    if len(body) == 4:
        nanoseconds, seconds = 0, int.from_bytes(body, "big")
    elif len(body) == 8:
        number = int.from_bytes(body, "big")
        nanoseconds, seconds = number >> 34, number & (1 << 34) - 1
    elif len(body) == 12:
        nanoseconds = int.from_bytes(body[:4], "big")
        seconds = int.from_bytes(body[4:], "big", signed=True)
    else:
        raise ValueError(f"malformed timestamp of {len(body)} bytes in a value")
    if nanoseconds >= 10**9:
        raise ValueError(f"malformed timestamp in a value: {nanoseconds} ns are more than a second")
    try:
        time = _EPOCH + datetime.timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
    except OverflowError:
        raise ValueError(f"the timestamp {seconds} s is outside of the years 1 to 9999") from None
    return Timestamp.of(time, nanoseconds % 1000) if nanoseconds % 1000 else time


# ---- what crosses as what


def convert(value: Any) -> Optional[Tuple[int, Any]]:
    """(0, an object that crosses in its place), (TIMESTAMP, its bytes), (ARROW, a buffer with its stream), or None."""
    if isinstance(value, datetime.datetime):
        return None if value.tzinfo is None else (TIMESTAMP, pack_timestamp(value))
    if isinstance(value, bytearray):
        return _PLAIN, bytes(value)
    if isinstance(value, memoryview):
        return _PLAIN, value.tobytes()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.generic):
            plain = value.item() if value.dtype.kind in "biuf" else None
            return (_PLAIN, plain) if type(plain) in (bool, int, float) else None
        if isinstance(value, numpy.ndarray):
            return _plain_array(numpy, value)
    arrow = sys.modules.get("pyarrow")
    if arrow is not None and isinstance(value, (arrow.Table, arrow.RecordBatch)):
        return ARROW, write_arrow(value)
    return None


def _plain_array(numpy: Any, array: Any) -> Optional[Tuple[int, Any]]:
    """A copy in one block, in the byte order of this machine. None: a class or a dtype that says more than the numbers."""
    if type(array) not in (numpy.ndarray, numpy.memmap) or array.dtype.kind not in "biufc":
        return None
    plain = numpy.dtype(array.dtype.newbyteorder("=").str)
    if plain.type is not array.dtype.type or plain.char in "gG":  # of another package; as long as this machine likes
        return None
    return _PLAIN, numpy.array(array, dtype=plain, order="C", copy=True, subok=False)


def write_arrow(table: Any) -> Any:
    """The IPC stream of a table or a batch, as a buffer."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return sink.getvalue()


def read_arrow(stream: Any) -> Any:
    """The table whose IPC stream that is. Its columns lie in the stream's memory."""
    try:
        import pyarrow as pa
    except ImportError as e:
        raise ImportError(f"this value is an Arrow table, which needs the package pyarrow: {e}") from e
    return pa.ipc.open_stream(pa.py_buffer(stream)).read_all()


# ---- what does not cross, and what would do


def not_portable(value: Any, what: str, error: BaseException) -> BaseException:
    """The error for `what` ("argument 2"), which cannot cross: the part of it that is to blame, and what would do."""
    if not isinstance(error, (TypeError, ValueError, OverflowError)):
        return error  # of something else: memory, an interrupt
    found = _culprit(value, "", 0)
    if found is None:
        made = TypeError(f"{what} cannot cross between languages: {error}")
    else:
        path, part = found
        at = f", at {path}," if path else ""
        made = TypeError(f"{what}{at} cannot cross between languages: {_advice(part)}")
    made.__cause__ = error
    return made


def _crosses(value: Any) -> bool:
    try:
        _libray.encode(value, False)
    except Exception:
        return False
    return True


_MAX_DEPTH = 96


def _parts(value: Any, path: str) -> Iterator[Tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, (str, int, bytes)):
                yield path, _Key(key)
            yield f"{path}[{key!r}]", item
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield f"{path}[{i}]", item


class _Key:
    """Stands for a key of a dict that cannot be one elsewhere."""

    def __init__(self, key: Any) -> None:
        self.key = key


class _Deep:
    """Stands for a value that nests without end."""


def _culprit(value: Any, path: str, depth: int) -> Optional[Tuple[str, Any]]:
    """(path, part) of the first part that cannot cross."""
    if isinstance(value, _Key):
        return path, value
    if not isinstance(value, (dict, list, tuple)):
        return None if _crosses(value) else (path, value)
    if depth >= _MAX_DEPTH:
        return path[:80], _Deep()
    for part_path, part in _parts(value, path):
        found = _culprit(part, part_path, depth + 1)
        if found is not None:
            return found
    return None


_ADVICE = {
    "set": "pass a list, for example sorted(x)",
    "frozenset": "pass a list, for example sorted(x)",
    "complex": "pass [x.real, x.imag], or a numpy array of complex128",
    "decimal.Decimal": "pass str(x) or float(x)",
    "fractions.Fraction": "pass [x.numerator, x.denominator]",
    "datetime.date": "pass x.isoformat(), or a datetime with a time zone",
    "datetime.time": "pass x.isoformat()",
    "datetime.timedelta": "pass x.total_seconds()",
    "uuid.UUID": "pass str(x) or x.bytes",
    "pathlib.PosixPath": "pass str(x)",
    "range": "pass list(x), or numpy.arange",
    "array.array": "pass numpy.asarray(x)",
    "function": "functions cross by their names: libray.function(...)",
    "type": "classes cross by their names: libray.actor_class(...)",
    "generator": "pass list(x), or let the callee ask for the items",
    "pandas.core.frame.DataFrame": "pass pyarrow.Table.from_pandas(x)",
    "torch.Tensor": "pass x.numpy()",
}


def _advice(part: Any) -> str:
    if isinstance(part, _Deep):
        return f"it nests deeper than {_MAX_DEPTH} levels, or refers to itself"
    if isinstance(part, _Key):
        return f"keys of maps are str, int or bytes, and {part.key!r} is a {_name(part.key)}: pass a list of pairs"
    if isinstance(part, str):
        return "this str has surrogates that are no text: pass bytes"
    if isinstance(part, int):
        return "integers go from -2**63 to 2**64 - 1: pass str(x)"
    if isinstance(part, datetime.datetime):
        return "this datetime has no time zone, so it names no point in time: pass x.replace(tzinfo=...)"
    if hasattr(part, "dtype") and hasattr(part, "shape"):
        return f"{_name(part)} with dtype {part.dtype} has no counterpart elsewhere: pass an array of plain numbers"
    if hasattr(type(part), "__dataclass_fields__"):
        return f"{_name(part)} is a class of Python's: pass dataclasses.asdict(x)"
    if isinstance(part, BaseException):
        return f"{_name(part)} is an exception: raise it, or pass str(x)"
    known = _ADVICE.get(_name(part))
    return f"{_name(part)} is a class of Python's: {known or 'pass a dict or a list of what is in it'}"


def _name(part: Any) -> str:
    cls = type(part)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


# From here on the extension calls these at once; until now it called those who import this module (libray/__init__.py).
_libray.set_hooks(
    {
        "portable": convert,
        "not_portable": not_portable,
        "read_timestamp": read_timestamp,
        "read_arrow": read_arrow,
    }
)
