"""Adds up numbers in a tree: references are arguments, so nothing waits in the driver."""

import ray


@ray.remote
def leaf(k):
    return k * k


@ray.remote
def add(a, b):
    return a + b


def tree(refs):
    """Halves the list until one reference is left."""
    while len(refs) > 1:
        pairs = [add.remote(a, b) for a, b in zip(refs[::2], refs[1::2])]
        refs = pairs + refs[len(pairs) * 2 :]
    return refs[0]


def main():
    ray.init(num_cpus=2)
    for n in (1, 2, 7, 100):
        print(n, ray.get(tree([leaf.remote(k) for k in range(n)])), sum(k * k for k in range(n)))


if __name__ == "__main__":
    main()
