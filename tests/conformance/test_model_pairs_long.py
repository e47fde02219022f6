"""A thousand random programs of each pair of languages: the long version of test_model_pairs.

libray-test: long
libray-test: serial
libray-test: timeout 14400
"""

import test_model_pairs
from test_model_pairs import test_programs_of_two_languages  # noqa: F401

test_model_pairs.FIRST, test_model_pairs.COUNT = 1, 1000
