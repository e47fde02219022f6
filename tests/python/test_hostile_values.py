"""Bytes that nobody vouches for, as values: a value or an error, never a crash, never memory that the bytes
do not pay for."""

import subprocess
import sys
import textwrap

# Runs in a process of its own: a crash of the extension is an exit status, not the end of the tests.
PROGRAM = """
    import random, resource, struct, sys
    import libray
    from libray import _libray

    MSGPACK = 1
    pick = random.Random(int(sys.argv[1]))
    seeds = [_libray.encode(v, True)[1] for v in (
        None, True, -1, 1 << 63, 1.5, "text é", b"bytes", [1, [2, [3]]], (1, (2,), "x"),
        {"a": 1, 2: [b"x"], b"k": (None,)}, ["s" * 300, b"b" * 70000], list(range(100)))]
    seeds += [bytes([0xc7, 3, 3, 0x93, 0xa1, 0x66]), bytes([0xd6, 1, 0, 0, 0, 0]),
              bytes([0xd6, 2, 255, 255, 255, 255]), bytes([0xdd]) + b"\\xff" * 4,
              bytes([0xdf]) + b"\\xff" * 4 + b"\\0" * 9, bytes([0xc9]) + b"\\xff" * 5,
              b"\\x91" * 5000, b"\\x81\\x01" * 5000, b"\\xc7\\x04\\x40" * 2000]
    edges = [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0xffffffff, 1 << 63]

    def mutate(data):
        data = bytearray(data)
        for _ in range(pick.randint(1, 4)):
            at = pick.randrange(len(data) + 1)
            how = pick.randrange(5)
            if how == 0 and at < len(data):
                data[at] = pick.randrange(256)
            elif how == 1:
                data[at:] = b""
            elif how == 2:
                data[at:at] = pick.choice(seeds)[:64]
            elif how == 3:
                number = struct.pack(">Q", pick.choice(edges))[-pick.choice((1, 2, 4, 8)):]
                data[at:at + len(number)] = number
            else:
                del data[at:at + pick.randrange(8)]
        return bytes(data)

    values = errors = 0
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(60000):
        try:
            _libray.decode(mutate(pick.choice(seeds)), MSGPACK)
            values += 1
        except (ValueError, TypeError, RecursionError, libray.exceptions.RayError) as error:
            assert str(error), type(error)
            errors += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 << 10, f"grew by {grown} kB"
    assert values > 1000 and errors > 1000, (values, errors)
    print("survived")
"""


def test_hostile_messagepack():
    for seed in ("1", "2"):
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(PROGRAM), seed],
                              capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 and done.stdout.strip() == "survived", done.stderr[-2000:]
