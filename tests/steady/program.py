"""program.py -- Python's part of test_steady.py, which writes how many tasks to run, line by line, and measures."""
import sys

import libray


@libray.remote
def add_one(x):
    return x + 1


@libray.remote
class Counter:
    def __init__(self):
        self.n = 0

    def next(self):
        self.n += 1
        return self.n


def main():
    libray.init(num_cpus=2)
    counter, called = Counter.remote(), 0
    print("ready", flush=True)
    for line in sys.stdin:
        for start in range(0, int(line), 1000):
            tasks = [add_one.remote(x) for x in range(start, start + 990)]
            calls = [counter.next.remote() for _ in range(10)]
            assert libray.get(tasks) == list(range(start + 1, start + 991))
            assert libray.get(calls) == list(range(called + 1, called + 11))
            called += 10
        print("done", int(line), flush=True)


if __name__ == "__main__":
    main()
