"""pole.py -- learns to balance a pole on a cart, then serves what it has learnt. samples/pole has the same program in C,
C++, Java and Rust; all print the same lines: ./dev run --lang python

Tasks simulate (`play`), an actor serves (`Server`), the driver learns: of 16 policies around the present one the mean
of the four best is the next. Only + - * / on doubles, so that every language comes to the same numbers.
"""

import libray

CANDIDATES, BEST, EPISODES, STEPS, SOLVED = 16, 4, 4, 500, 47_500
MASK = (1 << 64) - 1


class Random:
    """SplitMix64: numbers in [-1, 1) that depend on the seed alone."""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
        return ((z ^ z >> 31) >> 11) * 2.0**-52 - 1


def begin(seed):
    """The cart's place and speed, the pole's angle and speed."""
    random = Random(seed)
    return [0.05 * random.next() for _ in range(4)]


def push(state, right):
    """The state 20 ms after a push of 10 N; small angles, so that short polynomials are its sine and cosine."""
    x, v, a, w = state
    sine, cosine = a * (1 - a * a / 6 * (1 - a * a / 20)), 1 - a * a / 2 * (1 - a * a / 12)
    force = ((10.0 if right else -10.0) + 0.05 * w * w * sine) / 1.1
    turn = (9.8 * sine - cosine * force) / (0.5 * (4.0 / 3 - 0.1 * cosine * cosine / 1.1))
    return [x + 0.02 * v, v + 0.02 * (force - 0.05 * turn * cosine / 1.1), a + 0.02 * w, w + 0.02 * turn]


def stands(state):
    return -2.4 < state[0] < 2.4 and -0.2095 < state[2] < 0.2095


def is_right(policy, state):
    return policy[0] * state[0] + policy[1] * state[1] + policy[2] * state[2] + policy[3] * state[3] > 0


@libray.remote
def play(policy, first, episodes):
    """How many steps the pole stood, in so many episodes from this one on."""
    steps = 0
    for episode in range(first, first + episodes):
        state, step = begin(episode), 0
        while step < STEPS and stands(state):
            state = push(state, is_right(policy, state))
            step += 1
        steps += step
    return steps


@libray.remote
class Server:
    """Answers with the push that a policy makes of a state."""

    def __init__(self, policy):
        self.policy = policy

    def is_right(self, state):
        return is_right(self.policy, state)


def candidate(policy, seed):
    random = Random(seed)
    return [x + random.next() for x in policy]


def learn(policy, generation):
    """The mean of the best candidates, and how long the best one kept the pole up."""
    candidates = [candidate(policy, 1000 * generation + i) for i in range(CANDIDATES)]
    steps = libray.get([play.remote(c, 1000 * generation, EPISODES) for c in candidates])
    best = sorted(range(CANDIDATES), key=lambda i: -steps[i])[:BEST]  # of equal ones the first
    return [sum(candidates[b][i] for b in best) / BEST for i in range(4)], steps[best[0]]


def judge(policy):
    """How long the pole stands in 100 episodes that learning never saw."""
    return sum(libray.get([play.remote(policy, 1_000_000 + 10 * i, 10) for i in range(10)]))


def main():
    libray.init()
    policy, judged, generation = [0.0] * 4, 0, 0
    while judged < SOLVED:
        generation += 1
        policy, best = learn(policy, generation)
        judged = judge(policy)
        print(f"generation {generation}: the best of 16 kept the pole up {best} of 2000 steps, their mean {judged} of 50000")

    server = Server.remote(policy)
    state, step, rights = begin(7), 0, 0
    while step < STEPS and stands(state):
        right = libray.get(server.is_right.remote(state))
        state, step, rights = push(state, right), step + 1, rights + right
    print(f"served {step} pushes, {rights} to the right: the pole {'stands' if stands(state) else 'fell'}")
    libray.shutdown()


if __name__ == "__main__":
    main()
