"""`ray.cloudpickle`: the cloudpickle package, whose classes many programs reach under this name."""

from cloudpickle import *  # noqa: F401,F403
from cloudpickle import CloudPickler, Pickler, dump, dumps, load, loads  # noqa: F401
