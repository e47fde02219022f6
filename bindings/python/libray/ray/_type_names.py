"""The names under which Ray knows the classes of libray. Called once, at the end of `import ray`."""

from libray import exceptions
from libray.api import actor, context, function, stream
from libray.core import ids
from libray.driver import start


def name_types() -> None:
    """Lets classes tell Ray's names for their modules, in tracebacks and in `repr(type(x))`; pickles find the classes
    under either name."""
    for cls, module in (
        (actor.ActorHandle, "ray.actor"),
        (actor.ActorClass, "ray.actor"),
        (context.RuntimeContext, "ray.runtime_context"),
        (start.RayContext, "ray._private.worker"),
        (function.RemoteFunction, "ray.remote_function"),
        (stream.ObjectRefGenerator, "ray"),
        (stream.DynamicObjectRefGenerator, "ray"),
    ):
        cls.__module__ = module
    for name in exceptions.__all__:
        getattr(exceptions, name).__module__ = "ray.exceptions"
    for value in vars(ids).values():
        if isinstance(value, type) and issubclass(value, ids.BaseID):
            value.__module__ = "ray._raylet"
