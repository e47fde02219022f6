"""The version of Ray that this tree follows."""

from libray import __version__ as libray_version
from libray.core.import_ray import RAY_VERSION as version

commit = f"libray-{libray_version}"
