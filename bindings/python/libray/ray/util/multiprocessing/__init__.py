"""`ray.util.multiprocessing`: `Pool` with the interface of `multiprocessing.Pool`."""

from multiprocessing import JoinableQueue, Manager, Pipe, Queue, SimpleQueue, TimeoutError

from ray.util.multiprocessing.pool import Pool

__all__ = ["JoinableQueue", "Manager", "Pipe", "Pool", "Queue", "SimpleQueue", "TimeoutError"]
