"""Estimates pi; an actor counts what is done while the tasks run."""

import random

import ray

TASKS, SAMPLES = 6, 20_000


@ray.remote
class Progress:
    def __init__(self, total):
        self.total, self.done = total, {}

    def report(self, task, samples):
        self.done[task] = samples

    def fraction(self):
        return sum(self.done.values()) / self.total


@ray.remote
def sample(task, progress):
    rng = random.Random(task)
    inside = 0
    for k in range(SAMPLES):
        inside += rng.random() ** 2 + rng.random() ** 2 <= 1
        if (k + 1) % (SAMPLES // 4) == 0:
            progress.report.remote(task, k + 1)
    return inside


def main():
    ray.init(num_cpus=3)
    progress = Progress.remote(TASKS * SAMPLES)
    running = [sample.remote(task, progress) for task in range(TASKS)]
    fractions = [0.0]
    while True:
        ready, _ = ray.wait(running, num_returns=TASKS, timeout=0.05)
        fractions.append(ray.get(progress.fraction.remote()))
        if len(ready) == TASKS:
            break
    print("progress only grew:", fractions == sorted(fractions))
    print("done:", ray.get(progress.fraction.remote()))
    print("pi is about", round(4 * sum(ray.get(running)) / (TASKS * SAMPLES), 4))


if __name__ == "__main__":
    main()
