"""Producers and consumers around a queue of four places."""

import ray
from ray.util.queue import Empty, Full, Queue


@ray.remote
def produce(queue, first, n):
    for k in range(first, first + n):
        queue.put(k)
    return n


@ray.remote
def consume(queue):
    got = []
    while True:
        item = queue.get(timeout=60)
        if item is None:
            return got
        got.append(item)


def main():
    ray.init(num_cpus=4)
    queue = Queue(maxsize=4)
    consumers = [consume.remote(queue) for _ in range(2)]
    producers = [produce.remote(queue, 100 * k, 20) for k in range(2)]
    print("produced", sum(ray.get(producers)))
    for _ in consumers:
        queue.put(None)
    got = ray.get(consumers)
    items = sorted(got[0] + got[1])
    print("consumed", len(items), "all there:", items == [*range(20), *range(100, 120)])
    print("each in order:", all(is_ordered(g) for g in got))
    for k in range(4):
        queue.put_nowait(k)
    try:
        queue.put(5, timeout=0.1)
    except Full:
        print("full", queue.qsize(), queue.full())
    print(queue.get_nowait_batch(4), queue.empty())
    try:
        queue.get_nowait()
    except Empty:
        print("empty")
    queue.shutdown()


def is_ordered(items):
    """Whether each producer's items are in order."""
    parts = [[k for k in items if k // 100 == producer] for producer in (0, 1)]
    return all(part == sorted(part) for part in parts)


if __name__ == "__main__":
    main()
