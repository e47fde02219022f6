"""`install_as_ray`: makes `import ray` mean libray, in this process and in those it starts.

The tree `libray/ray` is the package `ray`: one file per public module of Ray, loaded under Ray's own names, so
that `ray.util.queue` lives in `libray/ray/util/queue.py`. A finder at the head of `sys.meta_path` leads there, also
when the real Ray is installed. Two environment variables carry the installation on: LIBRAY_AS_RAY to workers (which
read it before they unpickle anything), PYTHONPATH with the folder `_shim` to Python programs that this one starts.

Called on any thread of a driver; by a worker before its first task.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from typing import Any, Iterable, List, Optional

ENVIRONMENT = "LIBRAY_AS_RAY"
# The version of Ray whose public interface the tree follows; libraries compare it.
RAY_VERSION = "2.55.1"

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHIM = os.path.join(_PACKAGE, "_shim")
_TREE = os.path.join(_PACKAGE, "ray")


class _Finder:  # not an importlib.abc.MetaPathFinder: that module takes 15 ms to load
    """Finds `ray`; its submodules are found through its `__path__`, as usual. Says why some are not there."""

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        if name != "ray":
            why = why_absent(name)
            if why and not _only_looking():
                raise ModuleNotFoundError(why, name=name)
            return None
        return importlib.util.spec_from_file_location(
            "ray", os.path.join(_TREE, "__init__.py"), submodule_search_locations=[_TREE]
        )

    def find_distributions(self, context: Any = None) -> Iterable[Any]:
        """So that importlib.metadata.version("ray") agrees with `ray.__version__`."""
        if context is not None and getattr(context, "name", None) not in (None, "ray"):
            return []
        from importlib.metadata import Distribution, PathDistribution
        from pathlib import Path

        found: List[Distribution] = [
            PathDistribution(Path(SHIM) / f"ray-{RAY_VERSION}.egg-info")
        ]
        return found


_finder = _Finder()


_ABSENT = {
    "ray.train": "run the training loop in actors (samples/python shows one)",
    "ray.tune": "run the trials as tasks, with ray.wait and ray.cancel (samples/ray shows a search)",
    "ray.serve": "serve from an asyncio actor (samples/ray shows a batching server)",
    "ray.rllib": "run the environments in actors (samples/python shows an agent)",
    "ray.llm": "there is nothing of the kind",
    "ray.air": "it has no part in libray's core",
    "ray.dag": "pass references from task to task: that is the graph",
    "ray.workflow": "lineage is journaled by itself: see docs/tools.md",
    "ray.dashboard": "use the command `libray` (docs/tools.md)",
    "ray.job_submission": "start the program itself; `libray jobs` lists what ran",
    "ray.scripts": "use the command `libray` (docs/tools.md)",
    "ray.util.spark": "a cluster has one node: start the driver where the work is",
    "ray.util.tpu": "ask for TPUs as a resource: init(resources={'TPU': 4})",
}


def why_absent(name: str) -> str:
    """Why there is no module of that name and what to use; empty for any other name."""
    parts = name.split(".")
    top = ".".join(parts[:2])
    if top == "ray.util":
        top = ".".join(parts[:3])
    if top not in _ABSENT:
        return ""
    return f"libray has no {top}: {_ABSENT[top]}. (`ray` is libray here.)"


def _only_looking() -> bool:
    """Whether importlib.util.find_spec asks, which programs do to find out what is installed."""
    frame: Any = sys._getframe(2)
    while frame is not None and "importlib" in frame.f_code.co_filename:
        if frame.f_globals.get("__name__") == "importlib.util":
            return True
        frame = frame.f_back
    return False


def is_installed() -> bool:
    """Whether `import ray` gives libray in this process."""
    return _finder in sys.meta_path


def named(text: str) -> str:
    """A message in the words that the program uses: "libray." becomes "ray." for one that imports ray."""
    return text.replace("libray.", "ray.") if is_installed() else text


def _is_ours(module: Any) -> bool:
    return str(getattr(module, "__file__", "")) == os.path.join(_TREE, "__init__.py")


def install_as_ray() -> Any:
    """Makes `import ray` mean libray from now on, and returns the module `ray`.

    It holds in this process, in all workers of clusters that it starts, and in Python programs that it starts as
    subprocesses. The real Ray may be installed beside it, but must not be imported already. To run a program that
    cannot be changed: `python -m libray.as_ray program.py`.
    """
    existing = sys.modules.get("ray")
    if existing is not None and not _is_ours(existing):
        raise RuntimeError(
            f"ray is already imported from {getattr(existing, '__file__', 'elsewhere')}: call "
            "libray.install_as_ray() before the first `import ray`, or start the program with "
            "`python -m libray.as_ray`"
        )
    install_finder()
    os.environ[ENVIRONMENT] = "1"
    extend_pythonpath()
    return importlib.import_module("ray")


def search_path() -> List[str]:
    """The folders in which a new interpreter finds `ray`, and libray if it would not look there anyway."""
    return [p for p in (SHIM, _root_if_needed()) if p]


def extend_pythonpath() -> None:
    """Lets interpreters that this process starts, or becomes, find them."""
    path = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    for needed in reversed(search_path()):
        if needed not in path:
            path.insert(0, needed)
    os.environ["PYTHONPATH"] = os.pathsep.join(path)


def become_ray(scope: Any) -> None:
    """Makes the module whose dictionary this is, `ray` while it is being imported from PYTHONPATH, the package: the
    object in sys.modules stays the same, as importers that load lazily demand."""
    scope["__file__"] = os.path.join(_TREE, "__init__.py")
    scope["__path__"] = [_TREE]
    spec = scope.get("__spec__")
    if spec is not None:
        spec.origin, spec.submodule_search_locations = scope["__file__"], scope["__path__"]
    install_as_ray()
    with open(scope["__file__"], "rb") as file:
        exec(compile(file.read(), scope["__file__"], "exec"), scope)


def install_finder() -> None:
    """The part of the installation that a worker needs: nothing is imported."""
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def _root_if_needed() -> str:
    """The folder in which libray lies, unless a new interpreter looks there anyway."""
    import site

    root = os.path.dirname(_PACKAGE)
    usual = list(getattr(site, "getsitepackages", lambda: [])())
    if site.ENABLE_USER_SITE:
        usual.append(site.getusersitepackages())
    return "" if root in usual else root
