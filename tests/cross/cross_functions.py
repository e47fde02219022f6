"""Functions and classes that other languages call by name: tests/cross. Nothing here is decorated but where a test says so."""

import datetime
import os
import time

import libray


def add(a, b):
    return a + b


def greet(name, greeting="Hello"):
    return f"{greeting}, {name}!"


def echo(value):
    return value


def kind(value):
    return f"{type(value).__module__}.{type(value).__qualname__}"


class OwnError(Exception):
    pass


def fail(text):
    try:
        raise KeyError("behind it")
    except KeyError as e:
        raise OwnError(text) from e


def count_to(n):
    yield from range(n)


def count_and_fail(n):
    yield from range(n)
    raise OwnError("no more")


def fail_and_count(path):
    with open(path, "a") as file:
        file.write("x")
    raise ValueError("again")


def pairs(n):
    for i in range(n):
        yield i, str(i)


def pair():
    return 1, "two"


def unportable():
    return {"numbers": {1, 2}}


def place_of(address):
    """(inode, offset) of the file that lies there, as in pack.c."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, _, offset, _, inode = line.split()[:5]
            begin, end = (int(x, 16) for x in span.split("-"))
            if begin <= address < end:
                return int(inode), int(offset, 16) + address - begin
    return 0, 0


def sum_and_place(array):
    inode, offset = place_of(array.__array_interface__["data"][0])
    return [float(array.sum()), inode, offset, array.flags.writeable]


def ones(n):
    import numpy

    return numpy.ones(n)


def table(n):
    import pyarrow

    return pyarrow.table({"n": list(range(n))})


def now():
    return datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc)


def value_of(references):
    return libray.get(references[0])


def add_to(actors):
    return libray.get(actors[0].add.remote(5))


def wait_for_cancel(path):
    open(path, "w").close()
    while True:
        time.sleep(0.01)


async def later(x):
    return x + 1


def pid():
    return os.getpid()


@libray.remote
def decorated(x):
    return x * 2


class Counter:
    def __init__(self, start=0):
        if start < 0:
            raise ValueError("a counter starts at 0 or above")
        self.value = start

    def add(self, n):
        self.value += n
        return self.value

    def fail(self):
        raise OwnError(f"at {self.value}")

    def count_to(self, n):
        yield from range(n)


class Meeting:
    """Async: n calls of `arrive` wait for each other."""

    def __init__(self, n):
        self.n = n
        self.here = 0
        self.all = None

    async def arrive(self):
        import asyncio

        if self.all is None:
            self.all = asyncio.Event()
        self.here += 1
        if self.here == self.n:
            self.all.set()
        await self.all.wait()
        return self.here


number = 7
