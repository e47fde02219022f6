"""Hooks around dask graphs that run as tasks. Called by `ray_dask_get` in the driver, and the two that surround a
node (`_ray_pretask`, `_ray_posttask`) in the worker that runs it."""

import contextlib
from collections import namedtuple
from typing import Any, Dict, Iterator, List, Optional

from dask.callbacks import Callback

import ray

CBS = (
    "ray_presubmit",
    "ray_postsubmit",
    "ray_pretask",
    "ray_posttask",
    "ray_postsubmit_all",
    "ray_finish",
)
RayCallback = namedtuple("RayCallback", CBS)  # the hooks of one object
RayCallbacks = namedtuple("RayCallbacks", [f"{name}_cbs" for name in CBS])  # each hook of all objects


class RayDaskCallback(Callback):
    """dask's `Callback` with hooks for tasks: subclass it, or give functions by keyword (`ray_finish=print`).
    Active inside its `with` block, or from `register()` to `unregister()`."""

    ray_active: Any = set()

    def __init__(self, **kwargs: Any) -> None:
        for name in CBS:
            hook = kwargs.pop(name, None)
            if hook is not None:
                setattr(self, f"_{name}", hook)
        super().__init__(**kwargs)

    @property
    def _ray_callback(self) -> RayCallback:
        return RayCallback(*[self._hook(f"_{name}") for name in CBS])

    def _hook(self, name: str) -> Any:
        own = getattr(self, name)
        # Hooks that nobody wrote are left out, so that they are not sent to the workers.
        return None if getattr(own, "__func__", None) is getattr(RayDaskCallback, name) else own

    def __enter__(self) -> "RayDaskCallback":
        self._entered = self._ray_callback
        RayDaskCallback.ray_active.add(self._entered)
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        RayDaskCallback.ray_active.discard(self._entered)

    def register(self) -> None:
        RayDaskCallback.ray_active.add(self._ray_callback)
        super().register()

    def unregister(self) -> None:
        RayDaskCallback.ray_active.discard(self._ray_callback)
        super().unregister()

    def _ray_presubmit(self, task: Any, key: Any, deps: Dict[Any, Any]) -> Optional[Any]:
        """Before a node is submitted. What it returns, unless None, is the node's value: no task runs."""

    def _ray_postsubmit(self, task: Any, key: Any, deps: Dict[Any, Any], object_ref: Any) -> None:
        """After a node was submitted."""

    def _ray_pretask(self, key: Any, object_refs: List[Any]) -> Any:
        """In the worker, before the node runs; what it returns goes to `_ray_posttask`."""

    def _ray_posttask(self, key: Any, result: Any, pre_state: Any) -> None:
        """In the worker, after the node ran."""

    def _ray_postsubmit_all(self, object_refs: Any, dsk: Any) -> None:
        """After all nodes were submitted, with the references of the wanted ones."""

    def _ray_finish(self, result: Any) -> None:
        """At the end, with the values."""


def unpack_ray_callbacks(callbacks: Any) -> RayCallbacks:
    """Each hook of all objects as a list; the two hooks of a worker keep their places, None where there is none."""
    found = [c._ray_callback if isinstance(c, RayDaskCallback) else c for c in callbacks or ()]
    if not all(isinstance(c, RayCallback) for c in found):
        raise TypeError("Callbacks must be either 'RayDaskCallback' or 'RayCallback' namedtuple")
    columns = [[getattr(c, name) for c in found] for name in CBS]
    kept = ("ray_pretask", "ray_posttask")
    return RayCallbacks(
        *[c if name in kept else [h for h in c if h] for name, c in zip(CBS, columns)]
    )


@contextlib.contextmanager
def local_ray_callbacks(callbacks: Any = None) -> Iterator[Any]:
    """The given callbacks, or the active ones, which rest meanwhile: only the outermost graph calls them."""
    if callbacks is not None:
        yield callbacks
        return
    active, RayDaskCallback.ray_active = RayDaskCallback.ray_active, set()
    try:
        yield active
    finally:
        RayDaskCallback.ray_active = active


class ProgressBarCallback(RayDaskCallback):
    """Shows with tqdm how many nodes of the graph are done."""

    def __init__(self) -> None:
        super().__init__()
        self._refs: List[Any] = []

    def _ray_postsubmit(self, task: Any, key: Any, deps: Any, object_ref: Any) -> None:
        self._refs.append(object_ref)

    def _ray_postsubmit_all(self, object_refs: Any, dsk: Any) -> None:
        from tqdm import tqdm

        pending, self._refs = self._refs, []
        with tqdm(total=len(pending)) as bar:
            while pending:
                done, pending = ray.wait(pending, num_returns=1, fetch_local=False)
                bar.update(len(done))
