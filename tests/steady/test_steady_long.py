"""A million tasks and calls in each language: memory and descriptors stay where they are.

libray-test: long
libray-test: serial
libray-test: timeout 7200
"""

import pytest
import steady
from test_steady import skip_what_is_not_here


@pytest.mark.parametrize("language", ["cpp", "java", "python", "rust"])
def test_a_million(language):
    skip_what_is_not_here(language)
    steady.check(language, 250_000, 1_000_000)
