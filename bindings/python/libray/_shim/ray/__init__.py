"""Found when this file's parent folder is in PYTHONPATH: puts libray in place of `ray`, the name under which this
module is being imported."""

import os
import sys

_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
try:
    import libray
except ImportError:
    sys.path.append(_root)
    import libray

del sys.modules["ray"]  # this half-made module
libray.install_as_ray()
