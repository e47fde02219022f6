"""Linear regression with a parameter server: workers compute gradients on their part of the data."""

import numpy as np
import ray

WORKERS, STEPS, RATE = 3, 60, 0.5
TRUE = np.array([1.5, -2.0, 0.25, 3.0])


@ray.remote
class ParameterServer:
    def __init__(self, size):
        self.weights = np.zeros(size)

    def apply(self, *gradients):
        self.weights = self.weights - RATE * np.mean(gradients, axis=0)
        return self.weights

    def get_weights(self):
        return self.weights


@ray.remote
class Worker:
    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.x = rng.normal(size=(200, len(TRUE)))
        self.y = self.x @ TRUE

    def gradient(self, weights):
        assert not weights.flags.writeable  # it lies in shared memory
        return self.x.T @ (self.x @ weights - self.y) / len(self.y)


def main():
    ray.init(num_cpus=4)
    server = ParameterServer.remote(len(TRUE))
    workers = [Worker.remote(seed) for seed in range(WORKERS)]
    weights = server.get_weights.remote()
    for step in range(STEPS):
        weights = server.apply.remote(*[worker.gradient.remote(weights) for worker in workers])
        if step % 20 == 19:
            error = float(np.abs(ray.get(weights) - TRUE).max())
            print(f"step {step + 1}: close {error < 1e-2}, very close {error < 1e-9}")
    print("weights", np.round(ray.get(weights), 4).tolist())


if __name__ == "__main__":
    main()
