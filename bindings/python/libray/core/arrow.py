"""Arrow tables, batches and arrays in values: a slice takes along what it shows. pyarrow pickles the whole buffers below
a slice; the IPC format holds the part alone, and is read in place, too."""

from __future__ import annotations

import pickle
import sys
from typing import Any, Callable, Dict, Tuple

_known: Dict[type, Callable[[Any], Any]] = {}
_WASTE = 64 << 10  # bytes that a slice may take along in vain, for its plain pickle is faster


def reducers() -> Dict[type, Callable[[Any], Any]]:
    """Reducers for the classes of pyarrow; empty while it is being imported."""
    if not _known:
        lib: Any = sys.modules.get("pyarrow.lib")
        if not all(hasattr(lib, n) for n in ("Table", "RecordBatch", "ChunkedArray", "Array")):
            return _known
        classes = [lib.Array]
        for cls in classes:
            classes += cls.__subclasses__()
        found: Dict[type, Callable[[Any], Any]] = {
            cls: _reduce_array for cls in classes if cls.__module__ == "pyarrow.lib"
        }
        found.update(
            {lib.Table: _reduce_table, lib.RecordBatch: _reduce_batch, lib.ChunkedArray: _reduce_chunked}
        )
        _known.update(found)
    return _known


def _is_part(value: Any) -> bool:
    """Whether the buffers below the value are much larger than what it shows."""
    try:
        return bool(value.get_total_buffer_size() > 2 * value.nbytes + _WASTE)
    except Exception:  # a type whose size nobody knows
        return False


def _plain(value: Any) -> Any:
    return value.__reduce_ex__(5)


def _write(value: Any) -> Any:
    """The IPC stream of a table or batch as a buffer, or None when it would not hold all of the value."""
    import pyarrow as pa

    if any(_is_extension(field.type) for field in value.schema):
        return None
    try:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write(value)
        return pickle.PickleBuffer(sink.getvalue())
    except (pa.ArrowException, NotImplementedError):
        return None


def _is_extension(kind: Any) -> bool:
    """Whether an extension type is in it: a reader that does not know it would see plain storage."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return True
    if pa.types.is_dictionary(kind):
        return _is_extension(kind.value_type)
    return any(_is_extension(kind.field(i).type) for i in range(kind.num_fields))


def _reduce_table(table: Any) -> Tuple[Any, ...]:
    stream = _write(table) if _is_part(table) else None
    return _plain(table) if stream is None else (_read_table, (stream,))  # type: ignore[no-any-return]


def _reduce_batch(batch: Any) -> Tuple[Any, ...]:
    stream = _write(batch) if _is_part(batch) else None
    return _plain(batch) if stream is None else (_read_batch, (stream,))  # type: ignore[no-any-return]


def _reduce_chunked(array: Any) -> Tuple[Any, ...]:
    import pyarrow as pa

    stream = _write(pa.table([array], names=[""])) if _is_part(array) else None
    return _plain(array) if stream is None else (_read_chunked, (stream,))  # type: ignore[no-any-return]


def _reduce_array(array: Any) -> Tuple[Any, ...]:
    import pyarrow as pa

    stream = None
    if _is_part(array):
        stream = _write(pa.RecordBatch.from_arrays([array], names=[""]))
    return _plain(array) if stream is None else (_read_array, (stream,))  # type: ignore[no-any-return]


def _read_table(stream: Any) -> Any:
    import pyarrow as pa

    return pa.ipc.open_stream(pa.py_buffer(stream)).read_all()


def _read_batch(stream: Any) -> Any:
    import pyarrow as pa

    return pa.ipc.open_stream(pa.py_buffer(stream)).read_next_batch()


def _read_chunked(stream: Any) -> Any:
    return _read_table(stream).column(0)


def _read_array(stream: Any) -> Any:
    return _read_batch(stream).column(0)
