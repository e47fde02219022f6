"""The standard library's Pool, line by line, on a cluster: prime numbers."""

import os

import ray
from ray.util.multiprocessing import Pool


def setup(value):
    os.environ["LIMIT"] = str(value)


def is_prime(n):
    assert n < int(os.environ["LIMIT"])
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def gcd(a, b):
    while b:
        a, b = b, a % b
    return a


def main():
    ray.init(num_cpus=2)
    with Pool(processes=2, initializer=setup, initargs=(10_000,)) as pool:
        print(sum(pool.map(is_prime, range(2000))), "primes below 2000")
        print(pool.starmap(gcd, [(12, 18), (35, 14), (81, 27)]))
        print(list(pool.imap(is_prime, [97, 91, 89], chunksize=2)))
        print(sorted(pool.imap_unordered(abs, [-3, 1, -2])))
        result = pool.apply_async(divmod, (17, 5))
        print(result.get(timeout=30), result.successful())
        failing = pool.map_async(len, [[], 5])
        try:
            failing.get(timeout=30)
        except TypeError as error:
            print("TypeError:", error)
        print("other processes:", os.getpid() not in set(pool.map(lambda _: os.getpid(), range(4))))


if __name__ == "__main__":
    main()
