"""Found when this file's parent folder is in PYTHONPATH: becomes libray's package `ray`."""

import os
import sys

try:
    import libray
except ImportError:
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))
    import libray

from libray.core import import_ray

import_ray.become_ray(globals())
