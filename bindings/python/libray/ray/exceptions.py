"""`ray.exceptions`: the errors of libray, and classes that only programs for Ray name."""

from libray import exceptions as _exceptions
from libray.exceptions import *  # noqa: F401,F403
from libray.exceptions import RayError, RayTaskError, RaySystemError


def _class(name, bases, doc):
    """The class of libray, or one for programs that catch it though libray never raises it."""
    found = getattr(_exceptions, name, None)
    return found or type(name, bases, {"__doc__": doc, "__module__": __name__})


TaskPlacementGroupRemoved = _class(
    "TaskPlacementGroupRemoved", (RayError,), "The placement group of the task was removed."
)
ActorPlacementGroupRemoved = _class(
    "ActorPlacementGroupRemoved", (RayError,), "The placement group of the actor was removed."
)
PlasmaObjectNotAvailable = _class(
    "PlasmaObjectNotAvailable", (RayError,), "The object is not in the local store."
)
AuthenticationError = _class("AuthenticationError", (RayError,), "A cluster refused the token.")
UserCodeException = _class("UserCodeException", (RayError,), "User code failed.")
RpcError = _class("RpcError", (RayError,), "A message to a daemon failed.")
ObjectRefStreamEndOfStreamError = _class(
    "ObjectRefStreamEndOfStreamError", (RayError,), "A generator has no more references."
)
OufOfBandObjectRefSerializationException = _class(
    "OufOfBandObjectRefSerializationException", (RayError,), "A reference was pickled by hand."
)
RayChannelError = _class("RayChannelError", (RaySystemError,), "A channel is broken.")
RayChannelTimeoutError = _class(
    "RayChannelTimeoutError", (RayChannelError, TimeoutError), "A channel was too slow."
)
RayCgraphCapacityExceeded = _class(
    "RayCgraphCapacityExceeded", (RaySystemError,), "Too many executions are in flight."
)
RayDirectTransportError = _class(
    "RayDirectTransportError", (RaySystemError,), "A direct transfer failed."
)
ActorAlreadyExistsError = _class(
    "ActorAlreadyExistsError", (ValueError, RayError), "The name of the actor is taken."
)
ActorHandleNotFoundError = _class(
    "ActorHandleNotFoundError", (ValueError, RayError), "There is no such actor here."
)

RAY_EXCEPTION_TYPES = [
    value
    for value in list(globals().values())
    if isinstance(value, type) and issubclass(value, RayError) and value is not RayTaskError
] + [RayTaskError]


def _adopt():
    """Programs, tracebacks and pickles know these classes by Ray's name for their module."""
    for value in list(globals().values()):
        if isinstance(value, type) and issubclass(value, BaseException):
            if value.__module__ == "libray.exceptions":
                value.__module__ = "ray.exceptions"


_adopt()
