"""The value codec alone (no cluster): what goes in comes out with exactly its type; hostile bytes
give an error."""

import math
import random

import numpy as np
import pytest

from libray import _libray

RAW, MSGPACK, PICKLE = 0, 1, 2


def round_trip(value):
    fmt, body, n_oob, _ = _libray.encode(value, True)
    assert fmt in (RAW, MSGPACK) and n_oob == 0, "not a fast value"
    return _libray.decode(body, fmt)


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return (
            list(a) == list(b)
            and all(same(a[k], b[k]) for k in a)
            and [type(k) for k in a] == [type(k) for k in b]
        )
    if isinstance(a, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    return a == b


EDGES = [
    0,
    1,
    -1,
    127,
    128,
    255,
    256,
    -32,
    -33,
    -128,
    -129,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    -(2**31),
    -(2**31) - 1,
    2**32,
    2**53,
    2**63 - 1,
    2**63,
    2**64 - 1,
    -(2**63),
]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        *EDGES,
        0.0,
        -0.0,
        1.5,
        float("inf"),
        float("-inf"),
        float("nan"),
        5e-324,
        "",
        "a",
        "é" * 15,
        "é" * 16,
        "x" * 31,
        "x" * 32,
        "x" * 255,
        "x" * 256,
        "\U0001f600" * 20000,
        "a\0b",
        b"",
        b"\0" * 255,
        b"a" * 256,
        b"a" * 70000,
        (),
        (1,),
        ((),),
        (1, (2, (3.0, "x", b"y", None))),
        [],
        [[]],
        [1, [2, [3]]],
        {},
        {"a": {"b": [1, (2,)]}},
        {1: "x", b"k": 2, "": None},
        tuple(range(1000)),
        list(range(70000)),
        [(i, str(i)) for i in range(30)],
        ("z" * 300, "y" * 70000),
        {str(i): i for i in range(1000)},
    ],
    ids=lambda v: repr(v)[:24],
)
def test_round_trip_keeps_value_and_type(value):
    assert same(round_trip(value), value)


def test_round_trip_of_random_values():
    rng = random.Random(5)

    def make(depth):
        kind = rng.randrange(9 if depth < 4 else 6)
        if kind == 0:
            return rng.choice(EDGES)
        if kind == 1:
            return rng.getrandbits(rng.randrange(1, 63)) * rng.choice((1, -1))
        if kind == 2:
            return rng.choice([None, True, False])
        if kind == 3:
            return rng.random() * 10 ** rng.randrange(-300, 300)
        if kind == 4:
            return "".join(
                chr(rng.choice([65, 233, 8364, 128512])) for _ in range(rng.randrange(40))
            )
        if kind == 5:
            return bytes(rng.randrange(256) for _ in range(rng.randrange(40)))
        if kind == 6:
            return tuple(make(depth + 1) for _ in range(rng.randrange(5)))
        if kind == 7:
            return [make(depth + 1) for _ in range(rng.randrange(3))]
        return {f"k{i}": make(depth + 1) for i in range(rng.randrange(3))}

    fast = 0
    for _ in range(2000):
        value = make(0)
        fmt, body, _, _ = _libray.encode(value, True)
        if fmt in (RAW, MSGPACK):
            fast += 1
            assert same(_libray.decode(body, fmt), value)
    assert fast > 1500


def test_a_map_whose_keys_are_equal_here():
    for body in (b"\x82\x01\xa1a\xc3\xa1b", b"\x82\xa1k\x01\xa1k\x02"):  # 1 and true; one key twice
        with pytest.raises(ValueError, match="equal"):
            _libray.decode(body, MSGPACK)
    assert _libray.decode(b"\x82\x01\xa1a\x02\xa1b", MSGPACK) == {1: "a", 2: "b"}


class MyInt(int):
    pass


class MyStr(str):
    pass


def shared():
    inner = [1]
    return [inner, inner]


def cyclic():
    out = []
    out.append(out)
    return out


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**63) - 1,
        MyInt(3),
        MyStr("x"),
        [MyInt(3)],
        "\ud800",
        shared(),
        cyclic(),
        {(1, 2): 3},
        {1, 2},
        frozenset((1,)),
        bytearray(b"x"),
        1j,
        ValueError("x"),
        np.float64(1.0),
        np.arange(4)[::2],
        np.array(["a", None], dtype=object),
        np.array(["2020-01-01"], dtype="M8[D]"),
        np.zeros(2, dtype=[("a", "i4")]),
        {True: 1},
        {1.5: 2},
        memoryview,
        [None] * 3 + [lambda: 1],
    ],
    ids=lambda v: repr(v)[:24],
)
def test_what_the_fast_format_cannot_carry_exactly_is_pickled(value):
    assert _libray.encode(value, True)[0] == PICKLE


def test_plain_arrays_go_out_of_band_without_pickle():
    for array in [
        np.arange(10),
        np.ones((3, 4), np.float32),
        np.zeros((0, 5)),
        np.array(7),
        np.ones(3, bool),
        np.ones(2, complex),
    ]:
        fmt, body, n_oob, _ = _libray.encode(array, True)
        assert (fmt, n_oob) == (MSGPACK, 1)
        assert len(body) < 80
    fmt, _, n_oob, _ = _libray.encode({"a": np.arange(3), "b": [np.arange(4)]}, True)
    assert (fmt, n_oob) == (MSGPACK, 2)
    fmt, _, n_oob, _ = _libray.encode(np.asfortranarray(np.ones((3, 4))), True)
    assert (fmt, n_oob) == (PICKLE, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\xda\xff\xff",
        b"\xc7\x05\x10\x90",
        b"\x91",
        b"\xc9\xff\xff\xff\xff\x10",
        b"\xa5abc",
        b"\x01\x01",
        b"\xdf\x7f\xff\xff\xff",
        b"\xc7\x01\x10\xc0",
        b"\xc7\x01\x03\x93",
        b"\xa1\xff",
        b"\x91" * 5000,
        b"\xd4\x63\x00",
        b"\xc7\x02\x10\x90\x90",
        b"\xc4",
        b"\xcb\x00",
        b"\x81\x90\x01",
    ],
)
def test_malformed_bytes_are_an_error(body):
    with pytest.raises((ValueError, TypeError)):
        _libray.decode(body, MSGPACK)


def test_random_bytes_never_crash_the_decoder():
    rng = random.Random(1)
    good = 0
    for _ in range(20000):
        body = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 24)))
        try:
            _libray.decode(body, MSGPACK)
            good += 1
        except (ValueError, TypeError, RuntimeError):
            pass
    assert good > 0


def test_for_other_languages_everything_is_messagepack_or_an_error():
    assert _libray.encode((1, [2, (3,)]), False)[1] == b"\x92\x01\x92\x02\x91\x03"
    assert _libray.encode(shared(), False)[0] == MSGPACK
    for value in (object(), {1, 2}, 2**70, cyclic()):
        with pytest.raises(TypeError, match="another language"):
            _libray.encode(value, False)
