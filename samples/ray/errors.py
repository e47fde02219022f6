"""What `get` raises when something goes wrong."""

import time

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError, TaskCancelledError


class OutOfStock(Exception):
    def __init__(self, item, left):
        super().__init__(item, left)
        self.item = item

    def __str__(self):
        return f"{self.item}: {self.args[1]} left"


@ray.remote
def order(item):
    raise OutOfStock(item, 0)


@ray.remote
def outer(item):
    return ray.get(order.remote(item))


@ray.remote
def slow():
    time.sleep(60)


@ray.remote
def depends(value):
    return value


@ray.remote
class Broken:
    def __init__(self):
        raise OSError("no such device")

    def use(self):
        return 1


def caught(call, *classes):
    try:
        call()
    except classes as error:
        return error
    return None


def main():
    ray.init(num_cpus=2)
    error = caught(lambda: ray.get(order.remote("apples")), OutOfStock)
    print(isinstance(error, RayTaskError), error.cause.item, "Traceback" in str(error) or "order" in str(error))
    error = caught(lambda: ray.get(outer.remote("pears")), OutOfStock)
    print("nested:", error.cause.item, "outer" in str(error))
    error = caught(lambda: ray.get(depends.remote(order.remote("plums"))), OutOfStock)
    print("through an argument:", error.cause.item)
    waiting = slow.remote()
    print("timeout:", caught(lambda: ray.get(waiting, timeout=0.2), GetTimeoutError) is not None)
    print("a TimeoutError too:", issubclass(GetTimeoutError, TimeoutError))
    ray.cancel(waiting)
    error = caught(lambda: ray.get(waiting), TaskCancelledError, RayTaskError)
    print("cancelled:", error is not None)
    broken = Broken.remote()
    error = caught(lambda: ray.get(broken.use.remote()), RayActorError)
    print("actor:", "no such device" in str(error))
    for wrong in (lambda: order.remote(), lambda: order("x"), lambda: Broken(), lambda: ray.get([1])):
        print(type(caught(wrong, TypeError, ValueError)).__name__)
    results = ray.get([depends.remote(k) for k in range(3)])
    print("and it goes on:", results)


if __name__ == "__main__":
    main()
