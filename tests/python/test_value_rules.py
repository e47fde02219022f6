"""What values promise: the table of references belongs to one pickle, serializers of the program's own count, parts
that are shared are stored once, what cannot be read says so, and where."""

import asyncio
import builtins
import copyreg
import io
import pickle
import sys
import types

import cloudpickle
import numpy as np
import pytest

import libray
from libray import _libray, exceptions as exc
from libray.api import placement
from libray.core import error_report, serialization

pytestmark = pytest.mark.usefixtures("cluster")

MSGPACK, PICKLE = 1, 2


def again(value):
    return libray.get(libray.put(value))


# ---- references in pickles


def capturing(ref):
    @libray.remote
    def f():
        return libray.get(ref)

    return f


@libray.remote
class Caller:  # a process of its own, which knows no definition yet
    def call_plain(self, box):
        return box[-1]._function()


def called(box):
    return libray.get(Caller.options(num_cpus=0).remote().call_plain.remote(box))


@libray.remote
def call_remote(f):
    return libray.get(f.remote())


class Caches:
    """Pickles its member itself, once: as classes do whose state is large."""

    def __init__(self, ref):
        self.ref, self.blob = ref, None

    def __getstate__(self):
        if self.blob is None:
            self.blob = pickle.dumps(self.ref)
        return self.blob

    def __setstate__(self, blob):
        self.ref, self.blob = pickle.loads(blob), blob


def test_a_function_that_was_a_part_of_two_values_names_its_own_reference():
    f = capturing(libray.put("right"))
    assert called([f]) == "right"
    other = libray.put("wrong")
    assert called([other, f]) == "right"
    assert called([[other] * 3, capturing(other), f]) == "right"


def test_a_function_goes_through_a_value_before_its_first_call():
    f = capturing(libray.put(42))
    assert libray.get(call_remote.remote(f)) == 42
    assert libray.get(f.remote()) == 42


def test_a_pickle_inside_a_value_is_readable_alone():
    wrong, right = libray.put("wrong"), libray.put("right")
    box = Caches(right)
    assert libray.get(again([wrong, box])[1].ref) == "right"
    assert libray.get(again([wrong, wrong, box, wrong])[2].ref) == "right"
    assert libray.get(pickle.loads(box.blob)) == "right"


def test_other_picklers_inside_a_value_make_pickles_of_their_own():
    class Holder:
        def __init__(self, ref):
            self.ref = ref

        def __reduce__(self):
            file = io.BytesIO()
            cloudpickle.Pickler(file).dump({"ref": self.ref})
            return cloudpickle.loads, (file.getvalue(),)

    wrong, right = libray.put("wrong"), libray.put("right")
    assert libray.get(again([wrong, Holder(right), object])[1]["ref"]) == "right"


def test_the_references_of_a_value_are_still_its_own():
    ref = libray.put([1])
    fmt, _, _, n_refs = _libray.encode({1, ref}, True)
    assert (fmt, n_refs) == (PICKLE, 1)
    handle_count = _libray.ref_count(ref)
    del fmt, n_refs
    assert _libray.ref_count(ref) == handle_count


# ---- serializers of the program's own


def test_a_registered_serializer_counts_for_arrays_too():
    serialization.register_serializer(
        np.ndarray, serializer=lambda a: a.tolist(), deserializer=lambda s: ("custom", s)
    )
    try:
        assert again(np.arange(3)) == ("custom", [0, 1, 2])
        assert again({"a": [np.arange(2)]}) == {"a": [("custom", [0, 1])]}
    finally:
        serialization.deregister_serializer(np.ndarray)
    assert type(again(np.arange(3))) is np.ndarray


def test_where_they_were_in_0_1_they_are_found():
    """Programs of that time import them from there."""
    from libray._placement import placement_group
    from libray._serialization import register_serializer

    assert register_serializer is serialization.register_serializer
    assert placement_group is placement.placement_group


def test_copyreg_counts_for_arrays_too():
    copyreg.pickle(np.ndarray, lambda a: (list, (a.tolist(),)))
    try:
        assert again(np.arange(3)) == [0, 1, 2]
    finally:
        del copyreg.dispatch_table[np.ndarray]
    assert type(again(np.arange(3))) is np.ndarray


def test_a_dtype_keeps_its_metadata_although_an_equal_one_has_none():
    assert again(np.zeros(3)).dtype.metadata is None
    with_metadata = np.dtype("f8", metadata={"unit": "m"})
    assert again(np.zeros(3, with_metadata)).dtype.metadata == {"unit": "m"}
    assert again(np.zeros(3)).dtype.metadata is None
    assert _libray.encode(np.zeros(3), True)[0] == MSGPACK


def test_numbers_of_other_packages():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for name in ("bfloat16", "float8_e5m2", "float8_e4m3fn", "int4", "uint4"):
        array = np.array([1, 0, 1]).astype(getattr(ml_dtypes, name))
        back = again(array)
        assert back.dtype == array.dtype and (back.astype(float) == array.astype(float)).all(), name


# ---- shared parts


def size_of(value):
    fmt, body, _, _ = _libray.encode(value, True)
    return len(body)


def test_shared_immutable_parts_are_stored_once_and_keep_their_identity():
    row = "x" * 100_000
    for part in (row, row.encode(), (row, 1)):
        assert size_of([part] * 100) < 120_000
        assert size_of({"a": part, "b": (part, [part])}) < 120_000
        assert len({id(x) for x in again([part] * 100)}) == 1
    pairs = (0,)
    for _ in range(20):
        pairs = (pairs, pairs)
    assert size_of(pairs) < 1000
    many = ["%020d" % i for i in range(1000)]
    kept = list(many)
    assert _libray.encode(many, True)[0] == MSGPACK  # others refer to the parts, but none comes twice
    assert size_of(many + kept[-1:]) < 25_000 and _libray.encode(many + kept[-1:], True)[0] == PICKLE
    assert _libray.encode([(), (), "a", "a", b"b", b"b"], True)[0] == MSGPACK


def test_a_value_that_is_a_keyword_too():
    @libray.remote
    def f(a, a_name_of_more_than_sixteen_letters):
        return a, a_name_of_more_than_sixteen_letters

    name = sys.intern("a_name_of_more_than_sixteen_letters")
    assert libray.get(f.remote(name, a_name_of_more_than_sixteen_letters=name)) == (name, name)


def test_deep_lists():
    value = []
    for _ in range(900):
        value = [value]
    back, depth = again(value), 0
    while back:
        back, depth = back[0], depth + 1
    assert depth == 900
    usual = sys.getrecursionlimit()

    class Endless:
        def __reduce__(self):
            return Endless, (Endless(),)

    with pytest.raises((TypeError, pickle.PicklingError)):
        libray.put(Endless())
    assert sys.getrecursionlimit() == usual


# ---- what cannot be read


class Picky(Exception):
    def __init__(self, *, code):
        super().__init__("picky")
        self.code = code


class OnlyThere:
    def __init__(self):
        self.a = 1

    def __setstate__(self, state):
        raise RuntimeError("cannot be restored")


@libray.remote
def give(value_class):
    return [OnlyThere()] if value_class is None else Picky(code=1)


@libray.remote
def take(x, y=None):
    return "taken"


@libray.remote
class Taker:
    def __init__(self, x=None):
        pass

    def take(self, x):
        return "taken"

    async def atake(self, x):
        return "taken"


def unreadable(ref):
    with pytest.raises(exc.RaySystemError) as caught:
        libray.get(ref)
    assert isinstance(caught.value, exc.RayError)
    return str(caught.value)


def test_a_value_that_cannot_be_read_is_an_error_that_says_so():
    for ref, why in ((give.remote(1), "TypeError"), (give.remote(None), "cannot be restored")):
        text = unreadable(ref)
        assert f"reading the value of {ref!r} failed here" in text and why in text
        assert f"reading the value of {ref!r} failed here" in unreadable([libray.put(1), ref])
    stored = libray.put([OnlyThere()])
    assert "RuntimeError: cannot be restored" in unreadable(stored)

    async def main():
        with pytest.raises(exc.RaySystemError, match="reading the value of"):
            await stored
        with pytest.raises(exc.RaySystemError, match="reading the value of"):
            await give.remote(1)

    asyncio.run(main())
    with pytest.raises(exc.RaySystemError, match="reading the value of"):
        give.remote(None).future().result(30)


def test_an_argument_that_cannot_be_read():
    text = unreadable(take.remote(1, Picky(code=2)))
    assert "reading argument 2 failed in take()" in text
    assert "At least one of the input arguments for this task could not be computed" in text
    assert "reading argument 'y' failed" in unreadable(take.remote(1, y=OnlyThere()))
    assert "reading argument 1 failed" in unreadable(take.remote(give.remote(None)))
    with pytest.raises(exc.RayTaskError):
        libray.get(take.remote(OnlyThere()))
    plain = Taker.options(max_concurrency=1).remote()
    assert "reading argument 1 failed in Taker" in unreadable(plain.atake.remote(OnlyThere()))
    assert "reading argument 1 failed in Taker" in unreadable(plain.take.remote(OnlyThere()))
    assert libray.get(plain.take.remote(1)) == "taken"
    broken = Taker.remote(OnlyThere())
    with pytest.raises(exc.ActorDiedError, match="reading argument 1 failed"):
        libray.get(broken.take.remote(1))


def test_code_that_cannot_be_loaded_where_it_runs(monkeypatch):
    ghost = types.ModuleType("ghost")  # importable here alone
    exec("def helper():\n    return 1", ghost.__dict__)
    monkeypatch.setitem(sys.modules, "ghost", ghost)
    helper = ghost.helper

    @libray.remote
    def uses():
        return helper()

    text = unreadable(uses.remote())
    assert "reading the code of" in text and "uses failed in" in text and "No module named 'ghost'" in text


# ---- errors and their classes


def made(cls):
    if issubclass(cls, UnicodeDecodeError):
        return cls("utf-8", b"\xff", 0, 1, "bad")
    if issubclass(cls, UnicodeEncodeError):
        return cls("utf-8", "\xff", 0, 1, "bad")
    if issubclass(cls, UnicodeTranslateError):
        return cls("\xff", 0, 1, "bad")
    if issubclass(cls, getattr(builtins, "BaseExceptionGroup", ())):
        return cls("group", [ValueError(1)])
    return cls("text")


BUILTIN = sorted(
    (c for c in vars(builtins).values() if isinstance(c, type) and issubclass(c, Exception)),
    key=lambda c: c.__name__,
)


def through_the_wire(error):
    """As a task's error comes: written there, read here."""
    message, payload, fatal = error_report.dump_error(error, "f")
    assert not fatal
    return exc.make_error(_libray.RAY_TASK_FAILED, message, payload, MSGPACK)


@pytest.mark.parametrize("cls", BUILTIN, ids=lambda c: c.__name__)
def test_every_builtin_exception_is_caught_as_itself(cls):
    class Own(cls):
        pass

    class OwnNew(cls):
        def __new__(klass, *args):
            return super().__new__(klass, *args)

    _ = OwnNew
    for kind in (cls, Own, OwnNew):
        error = through_the_wire(made(kind))
        assert isinstance(error, cls) and isinstance(error, exc.RayTaskError), kind
        assert type(error.cause).__name__ == kind.__name__
        assert isinstance(pickle.loads(cloudpickle.dumps(error)), cls)


def test_memory_errors_of_tasks_are_caught():
    @libray.remote
    def full():
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        libray.get(full.remote())


def test_attributes_of_builtin_exceptions_are_there():
    assert through_the_wire(ImportError("x", name="n", path="p")).name == "n"
    error = OSError(2, "gone")
    error.filename = "later"
    assert through_the_wire(error).errno == 2


def test_a_cancelled_error_of_a_task_cancels_nobody():
    @libray.remote
    def cancelled():
        raise asyncio.CancelledError("mine")

    async def main():
        waiter = asyncio.ensure_future(wait())
        with pytest.raises(exc.RayTaskError) as caught:
            await waiter
        assert not waiter.cancelled() and isinstance(caught.value.cause, asyncio.CancelledError)
        with pytest.raises(exc.RayTaskError):
            await asyncio.gather(cancelled.remote(), asyncio.sleep(0))

    async def wait():
        return await cancelled.remote()

    asyncio.run(main())
    with pytest.raises(exc.RayError) as caught:
        libray.get(cancelled.remote())
    assert not isinstance(caught.value, asyncio.CancelledError)
    with pytest.raises(exc.RayError):
        cancelled.remote().future().result(30)


def test_ends_of_iteration_mean_nothing_to_who_awaits():
    @libray.remote
    def stop(kind):
        raise kind("here")

    async def main():
        for kind in (StopIteration, StopAsyncIteration):
            with pytest.raises(exc.RayTaskError) as caught:
                await stop.remote(kind)
            assert not isinstance(caught.value, kind) and isinstance(caught.value.cause, kind)

    asyncio.run(main())


# ---- code


def test_submodules_that_only_nested_code_uses(run_script):
    done = run_script("""
        import concurrent.futures, importlib.metadata, logging.handlers, urllib.parse, xml.dom.minidom
        import libray

        @libray.remote
        def hosts(urls):
            return [urllib.parse.urlsplit(u).netloc for u in urls]

        @libray.remote
        def threads():
            def run():
                with concurrent.futures.ThreadPoolExecutor(2) as pool:
                    return list(pool.map(abs, [-1, -2]))
            return run()

        @libray.remote
        class Log:
            def name(self):
                return (lambda: logging.handlers.RotatingFileHandler.__name__)()

            def xml(self):
                class Inner:
                    def read(self):
                        return [xml.dom.minidom.parseString(t).documentElement.tagName for t in ("<a/>",)]
                return Inner().read()

        libray.init(num_cpus=1)
        print(libray.get(hosts.remote(["http://a.b/c"])))
        print(libray.get(threads.remote()))
        log = Log.remote()
        print(libray.get([log.name.remote(), log.xml.remote()]))
    """)
    assert done.stdout.splitlines() == ["['a.b']", "[1, 2]", "['RotatingFileHandler', ['a']]"]


def test_arrow_slices_take_along_what_they_show():
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": range(200_000), "s": [f"row{i}" for i in range(200_000)]})
    part = table.slice(500, 10)
    batch = table.to_batches()[0].slice(7, 10)
    nested = pa.array([[i, i + 1] for i in range(100_000)]).slice(5, 10)
    for value in (part, batch, part["s"], batch.column(1), nested, table.slice(3, 0)):
        fmt, body, n_oob, _ = _libray.encode(value, True)
        body, buffers = serialization.dumps(value)
        assert len(body) + sum(b.nbytes for b in buffers) < 20_000, type(value)
        back = again(value)
        assert type(back) is type(value) and back.equals(value)
    assert again(table).equals(table)
