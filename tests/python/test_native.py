"""Functions of other languages: C symbols through libffi, with range-checked arguments."""

import math
import zlib

import pytest

import libray
from libray import exceptions as exc

pytestmark = pytest.mark.usefixtures("cluster")


def test_pow_of_libm():
    power = libray.c_function("libm.so.6", "pow", "f64(f64,f64)")
    assert libray.get(power.remote(2.0, 10.0)) == 1024.0
    assert libray.get([power.remote(float(i), 2.0) for i in range(50)]) == [
        float(i * i) for i in range(50)
    ]
    assert math.isnan(libray.get(power.remote(-1.0, 0.5)))


def test_crc32_of_libz():
    crc = libray.c_function("libz.so.1", "crc32", "u64(u64,ptr_len)")
    crc32 = libray.c_function("libz.so.1", "crc32", "u64(u64,bytes,u32)")
    data = b"libray" * 10
    assert libray.get(crc32.remote(0, data, len(data))) == zlib.crc32(data)
    assert libray.get(crc.remote(0, data)) == zlib.crc32(data)


def test_ranges_are_checked():
    absolute = libray.c_function("", "abs", "i32(i32)")
    assert libray.get(absolute.remote(-5)) == 5
    for bad in (2**31, -(2**31) - 1, 1.5, "x", None):
        with pytest.raises((exc.RayError, ValueError)):
            libray.get(absolute.remote(bad))
    with pytest.raises((exc.RayError, ValueError)):
        libray.get(absolute.remote())
    with pytest.raises((exc.RayError, ValueError)):
        libray.get(absolute.remote(1, 2))


def test_bad_signatures_and_names():
    for signature in ("f64(", "f99(f64)", "f64(f64", "", "f64(void,f64)"):
        with pytest.raises(ValueError):
            libray.c_function("libm.so.6", "pow", signature).remote(1.0, 2.0)
    with pytest.raises(exc.RayError):
        libray.get(libray.c_function("libm.so.6", "no_such_symbol", "f64(f64)").remote(1.0))
    with pytest.raises(exc.RayError):
        libray.get(libray.c_function("libnothing.so.9", "pow", "f64(f64)").remote(1.0))


def test_what_cannot_be_passed():
    power = libray.c_function("libm.so.6", "pow", "f64(f64,f64)")
    with pytest.raises(TypeError, match="cannot cross between languages"):
        power.remote(object(), 1.0)
    with pytest.raises(TypeError, match="keyword"):
        power.remote(1.0, y=2.0)
    with pytest.raises(TypeError):
        power(1.0, 2.0)


def test_references_to_python_values_as_arguments():
    power = libray.c_function("libm.so.6", "pow", "f64(f64,f64)")

    @libray.remote
    def three():
        return 3.0

    assert libray.get(power.remote(three.remote(), libray.put(2.0))) == 9.0


def test_a_function_that_nobody_registered():
    nobody = libray.native_function("nobody::registered_this")
    with pytest.raises((exc.RayError, ValueError), match="nobody::registered_this"):
        libray.get(nobody.remote(1))
