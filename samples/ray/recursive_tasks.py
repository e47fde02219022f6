"""Tasks that start tasks and wait for them, far deeper than there are CPUs."""

import random

import ray


@ray.remote
def fib(n):
    if n < 2:
        return n
    return sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))


@ray.remote
def quicksort(numbers):
    if len(numbers) < 20:
        return sorted(numbers)
    pivot = numbers[len(numbers) // 2]
    left = quicksort.remote([x for x in numbers if x < pivot])
    right = quicksort.remote([x for x in numbers if x > pivot])
    return ray.get(left) + [x for x in numbers if x == pivot] + ray.get(right)


@ray.remote
def depth(n):
    return 0 if n == 0 else 1 + ray.get(depth.remote(n - 1))


def main():
    ray.init(num_cpus=1)
    print("fib(7) =", ray.get(fib.remote(7)))
    numbers = random.Random(1).sample(range(1000), 120)
    print("sorted:", ray.get(quicksort.remote(numbers)) == sorted(numbers))
    print("depth", ray.get(depth.remote(12)))


if __name__ == "__main__":
    main()
