"""A counter that anyone finds by its name."""

import ray


@ray.remote
class Counter:
    def __init__(self, start=0):
        self.n = start

    def add(self, k):
        self.n += k
        return self.n


@ray.remote
def use(k):
    counter = ray.get_actor("counter")
    return ray.get(counter.add.remote(k)) > 0


def main():
    ray.init(num_cpus=2, namespace="shop")
    first = Counter.options(name="counter", lifetime="detached").remote(1)
    print(all(ray.get([use.remote(k) for k in range(5)])))
    again = Counter.options(name="counter", get_if_exists=True).remote(999)
    print(ray.get(again.add.remote(0)), again == first)
    print(ray.util.list_named_actors(), ray.util.list_named_actors(all_namespaces=True))
    try:
        Counter.options(name="counter").remote()
    except ValueError as error:
        print("taken" in str(error))
    try:
        ray.get_actor("counter", namespace="elsewhere")
    except ValueError as error:
        print("Failed to look up actor" in str(error))
    ray.kill(again)
    try:
        ray.get(first.add.remote(1))
    except ray.exceptions.RayActorError:
        print("gone")


if __name__ == "__main__":
    main()
