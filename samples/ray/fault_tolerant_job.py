"""A job on workers that die: tasks are tried again, an actor comes back from what it saved."""

import os
import tempfile

import ray


@ray.remote(max_retries=3)
def unstable(k, folder):
    """Every third task kills its process the first time."""
    mark = os.path.join(folder, f"task-{k}")
    if k % 3 == 0 and not os.path.exists(mark):
        open(mark, "w").close()
        os._exit(1)
    return k * 10


@ray.remote(max_restarts=-1, max_task_retries=-1)
class Ledger:
    """Keeps a sum in a file; dies once in between."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "ledger")
        self.done = {}
        if os.path.exists(self.path):
            with open(self.path) as file:
                self.done = dict(line.split() for line in file)

    def add(self, key, amount):
        if key not in self.done:  # a call may run twice
            with open(self.path, "a") as file:
                file.write(f"{key} {amount}\n")
            self.done[key] = amount
        if key == "k5" and not os.path.exists(self.path + ".died"):
            open(self.path + ".died", "w").close()
            os._exit(1)
        return len(self.done)

    def total(self):
        return sum(int(amount) for amount in self.done.values())


@ray.remote(max_retries=0)
def hopeless():
    os._exit(1)


@ray.remote(retry_exceptions=[ConnectionError], max_retries=5)
def flaky(folder):
    path = os.path.join(folder, "tries")
    tries = os.path.getsize(path) if os.path.exists(path) else 0
    with open(path, "a") as file:
        file.write("x")
    if tries < 2:
        raise ConnectionError("try again")
    return tries + 1


def main():
    ray.init(num_cpus=2)
    with tempfile.TemporaryDirectory() as folder:
        print(ray.get([unstable.remote(k, folder) for k in range(7)]))
        ledger = Ledger.remote(folder)
        ray.get([ledger.add.remote(f"k{k}", k) for k in range(10)])
        print("total", ray.get(ledger.total.remote()))
        print("came after", ray.get(flaky.remote(folder)), "tries")
        try:
            ray.get(hopeless.remote())
        except ray.exceptions.WorkerCrashedError as error:
            print(type(error).__name__)


if __name__ == "__main__":
    main()
