"""The learner of evolve.py, free of libray: a small policy, its rollouts, and an evolution
strategy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import List, Sequence, Tuple

import numpy as np

HIDDEN = 16


def policy_size(n_obs: int, n_actions: int) -> int:
    return HIDDEN * (n_obs + 1) + n_actions * (HIDDEN + 1)


def act(theta: np.ndarray, obs: np.ndarray, n_actions: int) -> int:
    """The action of a one-hidden-layer network; the parameters are one flat vector."""
    n_obs = obs.shape[0]
    cut = HIDDEN * n_obs
    hidden = np.tanh(theta[:cut].reshape(HIDDEN, n_obs) @ obs + theta[cut : cut + HIDDEN])
    rest = theta[cut + HIDDEN :]
    scores = (
        rest[: n_actions * HIDDEN].reshape(n_actions, HIDDEN) @ hidden + rest[n_actions * HIDDEN :]
    )
    return int(scores.argmax())


def rollout(env, theta: np.ndarray, seed: int) -> Tuple[float, int]:
    """Total reward and number of steps of one episode."""
    obs, _ = env.reset(seed=int(seed))
    n_actions = int(env.action_space.n)
    total, steps, over = 0.0, 0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(act(theta, obs, n_actions))
        total += float(reward)
        steps += 1
        over = terminated or truncated
    return total, steps


def perturbation(seed: int, size: int) -> np.ndarray:
    """A direction of search, rebuilt from its seed wherever it is needed: only seeds travel."""
    return np.random.default_rng(seed).standard_normal(size)


@dataclass
class Strategy:
    """OpenAI-style evolution strategy: mirrored perturbations, ranks instead of rewards, Adam,
    weight decay.

    A generation is evaluated around the parameters of its start; while it is under way the next one
    starts around the newest parameters there are. So nobody waits, and the outcome does not depend
    on who finishes first.
    """

    size: int
    seed: int = 0
    pairs: int = 24
    sigma: float = 0.15
    rate: float = 0.08
    decay: float = 0.002
    theta: np.ndarray = field(init=False)
    updates: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.theta = np.random.default_rng([self.seed, 7]).standard_normal(self.size) * 0.1
        self._m = np.zeros(self.size)
        self._v = np.zeros(self.size)

    def seeds(self, generation: int) -> List[int]:
        return [
            int(s)
            for s in np.random.default_rng([self.seed, generation]).integers(
                1 << 31, size=self.pairs
            )
        ]

    def tell(self, seeds: Sequence[int], rewards: np.ndarray) -> None:
        """Moves the parameters. rewards[i] = (of theta + sigma * direction i, of theta - sigma *
        direction i)."""
        ranks = np.empty(rewards.size)
        ranks[rewards.ravel().argsort(kind="stable")] = np.linspace(-0.5, 0.5, rewards.size)
        for value in np.unique(rewards):  # equal rewards get equal ranks
            same = rewards.ravel() == value
            ranks[same] = ranks[same].mean()
        weights = ranks.reshape(rewards.shape)[:, 0] - ranks.reshape(rewards.shape)[:, 1]
        gradient = sum(w * perturbation(s, self.size) for w, s in zip(weights, seeds))
        gradient = gradient / (len(seeds) * self.sigma) - self.decay * self.theta
        self.updates += 1
        self._m = 0.9 * self._m + 0.1 * gradient
        self._v = 0.99 * self._v + 0.01 * gradient**2
        m = self._m / (1 - 0.9**self.updates)
        v = self._v / (1 - 0.99**self.updates)
        self.theta = self.theta + self.rate * m / (np.sqrt(v) + 1e-8)
