"""Three stages of generator tasks: each consumes the references of the one before as they come."""

import ray


@ray.remote(num_returns="streaming")
def source(n):
    for k in range(n):
        yield list(range(k, k + 3))


@ray.remote(num_returns="streaming")
def squares(refs):
    for ref in refs:
        yield [x * x for x in ray.get(ref)]


@ray.remote(num_returns="streaming", _generator_backpressure_num_objects=2)
def endless():
    k = 0
    while True:
        yield k
        k += 1


@ray.remote
def total(block):
    return sum(block)


def main():
    ray.init(num_cpus=2)
    blocks = list(source.remote(6))
    sums = [total.remote(block) for block in squares.remote(blocks)]
    print("sums", ray.get(sums))

    taken = []
    stream = endless.remote()
    for ref in stream:
        taken.append(ray.get(ref))
        if len(taken) == 5:
            break
    ray.cancel(stream)
    print("taken", taken)


if __name__ == "__main__":
    main()
