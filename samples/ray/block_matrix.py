"""A blocked matrix product: blocks stay in the object store, tasks get references to what they need."""

import numpy as np
import ray

BLOCKS, SIZE = 3, 40


@ray.remote
def block(seed, row, column):
    return np.random.default_rng([seed, row, column]).integers(0, 10, (SIZE, SIZE)).astype(float)


@ray.remote
def dot(n, *blocks):
    return sum(a @ b for a, b in zip(blocks[:n], blocks[n:]))


@ray.remote(num_returns=2)
def extremes(a):
    return float(a.min()), float(a.max())


def main():
    ray.init(num_cpus=2)
    span = range(BLOCKS)
    a = [[block.remote(1, i, j) for j in span] for i in span]
    b = [[block.remote(2, i, j) for j in span] for i in span]
    product = [[dot.remote(BLOCKS, *a[i], *[b[k][j] for k in span]) for j in span] for i in span]
    whole = np.block([ray.get(row) for row in product])
    expected = np.block([ray.get(row) for row in a]) @ np.block([ray.get(row) for row in b])
    print(whole.shape, "right:", bool((whole == expected).all()), "trace", whole.trace())
    low, high = extremes.remote(product[0][0])
    print(ray.get(low) == whole[:SIZE, :SIZE].min(), ray.get(high) == whole[:SIZE, :SIZE].max())


if __name__ == "__main__":
    main()
