"""The package setproctitle in a worker. libray itself writes the titles that `ps` shows of workers, over the arguments of
the process, where that package looks for its own room and no longer finds it. So its two functions become libray's
once it is imported: what they set is seen until the running task ends.

`install` is called when a worker starts; it imports nothing."""

from __future__ import annotations

import sys
from typing import Any

from .. import _libray

_NAME = "setproctitle"


def setproctitle(title: str) -> None:
    """Sets the title of this process, until the running task ends."""
    _libray._title_set(title)


def getproctitle() -> str:
    """The title of this process."""
    return str(_libray._title_get())


class _Loader:
    """The package's own loader, and two of its functions replaced."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self._loader.exec_module(module)
        module.setproctitle, module.getproctitle = setproctitle, getproctitle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


class _Finder:
    """Finds that one package, by asking the other finders."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != _NAME:
            return None
        for other in sys.meta_path:
            if other is not self and hasattr(other, "find_spec"):
                spec = other.find_spec(name, path, target)
                if spec is not None:
                    if spec.loader is not None:
                        spec.loader = _Loader(spec.loader)
                    return spec
        return None


def install() -> None:
    """In a worker, before its first task."""
    if _NAME in sys.modules:  # the warm process imported it
        module: Any = sys.modules[_NAME]
        module.setproctitle, module.getproctitle = setproctitle, getproctitle
    else:
        sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]
