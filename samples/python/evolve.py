#!/usr/bin/env python3
"""Solves a Gymnasium environment with an evolution strategy, then serves the policy from an actor.

What runs where:
  - Simulator actors, one per CPU, each with an environment of its own, play episodes with perturbed
    policies. The parameters of a generation lie in the object store once; only seeds travel.
  - `evaluate` tasks judge a candidate policy over 100 episodes in small pieces, beside the simulators.
  - The driver never waits for a whole generation: `wait` gives it whatever is ready, in any order, while
    two generations are under way. The same seed gives the same learning curve on any machine.
  - A PolicyServer actor answers requests for actions; its latency is measured at the end.
"""

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: threads would only get in the way

import numpy as np

# The same program on the real Ray: ./dev run --peer ray sets it to "ray".
libray = importlib.import_module(os.environ.get("LIBRAY_SAMPLE_MODULE", "libray"))
from policy import Strategy, act, perturbation, policy_size, rollout

EPISODES_TO_JUDGE = 100  # as the environment's own definition of "solved" asks
EPISODES_PER_TASK = 10
AHEAD = 2  # generations under way at once
JUDGE_SEED = 10_000_000  # episodes that learning never sees


@libray.remote(num_cpus=0.5)
class Simulator:
    """Plays episodes with perturbed policies in an environment of its own."""

    def __init__(self, name):
        import gymnasium

        self.env = gymnasium.make(name)

    def evaluate(self, theta, sigma, seeds):
        """(rewards of the mirrored pairs, number of steps): one row per seed."""
        rewards = np.empty((len(seeds), 2))
        steps = 0
        for i, seed in enumerate(seeds):
            step = sigma * perturbation(seed, theta.size)
            for j, candidate in enumerate((theta + step, theta - step)):
                rewards[i, j], n = rollout(self.env, candidate, seed)
                steps += n
        return rewards, steps


@libray.remote(num_cpus=0.5)
def judge(name, theta, seeds):
    """Rewards of the policy itself."""
    import gymnasium

    env = gymnasium.make(name)
    played = [rollout(env, theta, seed) for seed in seeds]
    return [r for r, _ in played], sum(n for _, n in played)


@libray.remote
class PolicyServer:
    """Answers observations with actions."""

    def __init__(self, theta, n_actions):
        self.theta = theta
        self.n_actions = n_actions

    def act(self, obs):
        return act(self.theta, obs, self.n_actions)


class Trainer:
    """The driver's side: keeps simulators and judges busy, applies updates in order."""

    def __init__(self, args, env):
        self.args = args
        self.name = args.env
        self.goal = env.spec.reward_threshold
        size = policy_size(env.observation_space.shape[0], int(env.action_space.n))
        self.strategy = Strategy(size, args.seed, pairs=args.pairs)
        self.simulators = [Simulator.remote(args.env) for _ in range(args.simulators)]
        self.tasks = {}  # reference -> what it computes
        self.open = {}  # generation -> its results so far
        self.started = self.next_update = 0
        self.judged = {}  # generation -> rewards of its candidate so far
        self.candidates = {}
        self.curve = []  # (seconds, generation, mean of the population, best of it)
        self.verdicts = []  # (seconds, generation, mean of 100 episodes)
        self.steps = self.episodes = self.waits = 0
        self.began = time.perf_counter()

    def seconds(self):
        return time.perf_counter() - self.began

    def start_generation(self):
        generation = self.started
        self.started += 1
        seeds = self.strategy.seeds(generation)
        theta = libray.put(self.strategy.theta)
        self.open[generation] = {"seeds": seeds, "rewards": np.full((len(seeds), 2), np.nan)}
        pieces = np.array_split(np.arange(len(seeds)), len(self.simulators) * 2)
        for k, rows in enumerate(pieces):
            simulator = self.simulators[k % len(self.simulators)]
            ref = simulator.evaluate.remote(theta, self.strategy.sigma, [seeds[i] for i in rows])
            self.tasks[ref] = ("simulate", generation, rows)

    def start_verdict(self, generation):
        theta = self.strategy.theta
        self.candidates[generation] = theta
        self.judged[generation] = []
        shared = libray.put(theta)
        for first in range(0, EPISODES_TO_JUDGE, EPISODES_PER_TASK):
            seeds = [JUDGE_SEED + first + i for i in range(EPISODES_PER_TASK)]
            self.tasks[judge.remote(self.name, shared, seeds)] = ("judge", generation, None)

    def take(self, ref):
        """Enters one result; returns the parameters that solve the environment, when they are found."""
        what, generation, rows = self.tasks.pop(ref)
        rewards, steps = libray.get(ref)
        self.steps += steps
        self.episodes += np.size(rewards)
        if what == "simulate":
            self.open[generation]["rewards"][rows] = rewards
            self.update()
            return None
        self.judged[generation] += rewards
        if len(self.judged[generation]) < EPISODES_TO_JUDGE:
            return None
        mean = float(np.mean(self.judged.pop(generation)))
        self.verdicts.append((self.seconds(), generation, mean))
        theta = self.candidates.pop(generation)
        return theta if mean >= self.goal else None

    def update(self):
        """Applies whole generations, in their order, whatever the order of the results."""
        while self.next_update in self.open:
            generation = self.open[self.next_update]
            rewards = generation["rewards"]
            if np.isnan(rewards).any():
                return
            del self.open[self.next_update]
            self.strategy.tell(generation["seeds"], rewards)
            mean, best = float(rewards.mean()), float(rewards.max())
            self.curve.append((self.seconds(), self.next_update, mean, best))
            # A population that is near the goal has a centre that may be beyond it.
            if mean >= self.goal - 0.25 * abs(self.goal) and not self.judged:
                self.start_verdict(self.next_update)
            self.next_update += 1
            if self.started < self.args.generations:
                self.start_generation()

    def stop(self):
        """Ends what is still under way, so that it does not disturb what comes next."""
        for ref in self.tasks:
            if self.tasks[ref][0] == "judge":
                libray.cancel(ref)
        for simulator in self.simulators:
            libray.kill(simulator)
        self.tasks.clear()

    def run(self, show):
        """Learns until the environment is solved; the parameters, or None when generations run out."""
        for _ in range(min(AHEAD, self.args.generations)):
            self.start_generation()
        while self.tasks:
            ready, _ = libray.wait(list(self.tasks), num_returns=1)
            self.waits += 1
            for ref in ready:
                solution = self.take(ref)
                if solution is not None:
                    return solution
            show(self)
        return None


def serve(theta, env, requests):
    """Latencies in microseconds of `requests` actions asked of a policy server, and its mean reward."""
    server = PolicyServer.remote(theta, int(env.action_space.n))
    latencies, totals, total = [], [], 0.0
    seed = 2 * JUDGE_SEED
    obs, _ = env.reset(seed=seed)
    libray.get(server.act.remote(obs))
    while len(latencies) < requests:
        began = time.perf_counter_ns()
        action = libray.get(server.act.remote(obs))
        latencies.append((time.perf_counter_ns() - began) / 1e3)
        obs, reward, terminated, truncated, _ = env.step(action)
        total += float(reward)
        if terminated or truncated:
            totals.append(total)
            total, seed = 0.0, seed + 1
            obs, _ = env.reset(seed=seed)
    return np.array(latencies), float(np.mean(totals)) if totals else total


def plot(trainer, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    t, _, mean, best = (np.array(column) for column in zip(*trainer.curve))
    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=120)
    axes.plot(t, best, color="#b8c4d6", lw=1, label="best of the population")
    axes.plot(t, mean, color="#2458a6", lw=2, label="mean of the population")
    if trainer.verdicts:
        axes.plot(
            [v[0] for v in trainer.verdicts],
            [v[2] for v in trainer.verdicts],
            "o",
            color="#c8471f",
            ms=5,
            label=f"policy over {EPISODES_TO_JUDGE} episodes",
        )
    axes.axhline(trainer.goal, color="#c8471f", lw=1, ls="--", label=f"solved ({trainer.goal:g})")
    axes.set(
        xlabel="seconds",
        ylabel="reward of an episode",
        title=f"{trainer.name}: evolution strategy on {len(trainer.simulators)} simulators",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def progress_bar(goal, floor):
    """A bar on a terminal, a line now and then elsewhere. Returns (show, close)."""
    if not sys.stderr.isatty():
        last = [0.0]

        def show_line(trainer):
            if trainer.curve and time.perf_counter() - last[0] > 2:
                last[0] = time.perf_counter()
                _, generation, mean, best = trainer.curve[-1]
                print(
                    f"generation {generation:4d}  mean {mean:7.1f}  best {best:7.1f}  "
                    f"{trainer.episodes:6d} episodes  {trainer.seconds():5.1f} s",
                    flush=True,
                )

        return show_line, lambda: None
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("[bold blue]{task.description}"),
        BarColumn(),
        TextColumn(
            "mean {task.fields[mean]:.1f} of {task.fields[goal]:g}  "
            "generation {task.fields[generation]}  {task.fields[rate]:.0f} steps/s"
        ),
        TimeElapsedColumn(),
    )
    bar.start()
    task = bar.add_task("learning", total=goal - floor, mean=floor, goal=goal, generation=0, rate=0)

    def show(trainer):
        if trainer.curve:
            _, generation, mean, _ = trainer.curve[-1]
            bar.update(
                task,
                completed=max(0.0, min(mean, goal) - floor),
                mean=mean,
                generation=generation,
                rate=trainer.steps / trainer.seconds(),
            )

    return show, bar.stop


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--env",
        default="CartPole-v1",
        help="Gymnasium environment with discrete actions and a reward threshold "
        "(CartPole-v1, Acrobot-v1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument(
        "--pairs", type=int, default=24, help="mirrored perturbations per generation"
    )
    parser.add_argument("--generations", type=int, default=300, help="give up after so many")
    parser.add_argument(
        "--simulators", type=int, default=0, help="actors; 0 = one per CPU, at least 2"
    )
    parser.add_argument(
        "--cpus", type=float, default=0, help="of the cluster; 0 = all of this machine"
    )
    parser.add_argument(
        "--requests", type=int, default=2000, help="actions asked of the policy server"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/evolve.png"), help="the learning curve"
    )
    args = parser.parse_args(argv)
    args.simulators = args.simulators or max(2, len(os.sched_getaffinity(0)))
    return args


def main(argv=None):
    args = parse(argv)
    try:
        import gymnasium

        env = gymnasium.make(args.env)
    except ImportError:
        sys.exit("gymnasium is missing: pip install -r samples/python/requirements.txt")
    except Exception as e:
        sys.exit(f"the environment '{args.env}' cannot be made: {e}")
    if not hasattr(env.action_space, "n") or env.spec.reward_threshold is None:
        sys.exit(f"'{args.env}' has no discrete actions or no reward threshold: try CartPole-v1")
    began = time.perf_counter()
    libray.init(num_cpus=args.cpus or max(2, len(os.sched_getaffinity(0))))
    trainer = Trainer(args, env)
    goal = trainer.goal
    floor = -500.0 if goal < 0 else 0.0
    print(
        f"{args.env}: solved means {goal:g} on average over {EPISODES_TO_JUDGE} episodes; "
        f"{args.simulators} simulators, {trainer.strategy.size} parameters, seed {args.seed}",
        flush=True,
    )
    show, close = progress_bar(goal, floor)
    try:
        theta = trainer.run(show)
    finally:
        close()
        trainer.stop()
    learnt = trainer.seconds()
    if trainer.curve:
        plot(trainer, args.out)
    if theta is None:
        print(
            f"not solved after {args.generations} generations and {learnt:.1f} s: try another --seed"
        )
        return 1
    latencies, served = serve(theta, env, args.requests)
    p50, p90, p99 = np.percentile(latencies, [50, 90, 99])
    print(f"""
solved     {args.env} after {trainer.verdicts[-1][1] + 1} generations, {learnt:.1f} s
policy     {trainer.verdicts[-1][2]:.1f} over {EPISODES_TO_JUDGE} episodes (threshold {goal:g})
played     {trainer.episodes} episodes, {trainer.steps} steps, {trainer.steps / learnt:,.0f} steps/s
driver     {trainer.waits} results taken one by one with wait, {AHEAD} generations under way
served     {len(latencies)} actions, mean reward {served:.1f}; latency p50 {p50:.0f} us, p90 {p90:.0f} us, \
p99 {p99:.0f} us, max {latencies.max():.0f} us
curve      {args.out}
whole run  {time.perf_counter() - began:.1f} s""")
    libray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
