"""Successive halving without barriers: as results come in, the better half goes on with a larger budget. Trials that
hang are cancelled."""

import time

import ray


@ray.remote
def trial(name, x, y, budget):
    if name == "hangs":
        time.sleep(3600)
    # The more budget, the nearer the measured loss is to the true one.
    return name, (x - 3) ** 2 + (y + 1) ** 2 + 1 / budget


def candidates():
    for x in range(6):
        for y in (-2, -1, 0):
            yield f"x{x}y{y}", x, y


def main():
    ray.init(num_cpus=4)
    settings = {name: (x, y) for name, x, y in candidates()}
    hanging = trial.remote("hangs", 0, 0, 1)
    budget, names = 1, list(settings)
    while len(names) > 1:
        running = [trial.remote(name, *settings[name], budget) for name in names]
        scores = {}
        while running:
            done, running = ray.wait(running, num_returns=1)
            name, loss = ray.get(done[0])
            scores[name] = loss
        names = sorted(names, key=lambda name: (scores[name], name))[: max(1, len(names) // 2)]
        print(f"budget {budget}: {len(scores)} trials, best {names[0]} {scores[names[0]]:.3f}")
        budget *= 2
    ready, _ = ray.wait([hanging], timeout=0)
    print("the hanging trial is done:", bool(ready))
    ray.cancel(hanging, force=True)
    try:
        ray.get(hanging)
    except (ray.exceptions.TaskCancelledError, ray.exceptions.WorkerCrashedError):
        print("the hanging trial was cancelled")
    print("winner", names[0], settings[names[0]])


if __name__ == "__main__":
    main()
