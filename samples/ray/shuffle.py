"""Sorts numbers by range: each map task makes one part for every reduce task."""

import random

import ray

MAPS, REDUCES, TOP = 4, 3, 3000


@ray.remote(num_returns=REDUCES)
def partition(seed):
    numbers = random.Random(seed).sample(range(TOP), 200)
    parts = [[] for _ in range(REDUCES)]
    for x in numbers:
        parts[x * REDUCES // TOP].append(x)
    return parts


@ray.remote
def merge(*parts):
    return sorted(x for part in parts for x in part)


def main():
    ray.init(num_cpus=2)
    columns = zip(*[partition.remote(seed) for seed in range(MAPS)])
    parts = ray.get([merge.remote(*column) for column in columns])
    result = [x for part in parts for x in part]
    print(len(result), "numbers, sorted:", result == sorted(result))
    print("middle", result[len(result) // 2], "sum", sum(result))


if __name__ == "__main__":
    main()
