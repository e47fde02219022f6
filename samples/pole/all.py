"""all.py -- the program of this folder in all languages at once: Rust and C++ simulate, C judges through libffi, Java
serves, Python learns and steers. It prints what each of them prints alone: ./dev run --lang all

Called with the places of what the others are made of; the four are ordinary programs that know nothing of each other:
    python all.py --rust target/release/pole --cpp sample_pole_cpp --java pole.jar:libray.jar --c libpole.so
"""

import argparse
import struct

import libray
import pole


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rust", required=True, help="the program of pole.rs")
    parser.add_argument("--cpp", required=True, help="the program of pole.cc")
    parser.add_argument("--java", required=True, help="a class path with Pole and libray")
    parser.add_argument("--c", required=True, help="pole.c as a shared library")
    return parser.parse_args()


def learn(simulators, policy, generation):
    """As pole.learn: the candidates are simulated in turn by each of these functions."""
    candidates = [pole.candidate(policy, 1000 * generation + i) for i in range(pole.CANDIDATES)]
    steps = libray.get([simulators[i % len(simulators)].remote(candidate, 1000 * generation, pole.EPISODES)
                        for i, candidate in enumerate(candidates)])
    best = sorted(range(pole.CANDIDATES), key=lambda i: -steps[i])[:pole.BEST]
    return [sum(candidates[b][i] for b in best) / pole.BEST for i in range(4)], steps[best[0]]


def judge(kernel, policy):
    """A C function that takes a pointer to four doubles and knows nothing of libray."""
    numbers = struct.pack("4d", *policy)
    return sum(libray.get([kernel.remote(numbers, 1_000_000 + 10 * i, 10) for i in range(10)]))


def main():
    places = parse()
    libray.init(rust_binary=places.rust, native_binary=places.cpp, java_classpath=places.java)
    simulators = [libray.function("rust", "play"), libray.function("cpp", "play")]
    kernel = libray.c_function(places.c, "play", "i64(bytes,u64,i32)")
    Server = libray.actor_class("java", "Pole$Server")

    policy, judged, generation = [0.0] * 4, 0, 0
    while judged < pole.SOLVED:
        generation += 1
        policy, best = learn(simulators, policy, generation)
        judged = judge(kernel, policy)
        print(f"generation {generation}: the best of 16 kept the pole up {best} of 2000 steps, their mean {judged} of 50000")

    server = Server.remote(policy)
    state, step, rights = pole.begin(7), 0, 0
    while step < pole.STEPS and pole.stands(state):
        right = libray.get(server.isRight.remote(dict(zip("xvaw", state))))  # a record of Java's is a map
        state, step, rights = pole.push(state, right), step + 1, rights + right
    print(f"served {step} pushes, {rights} to the right: the pole {'stands' if pole.stands(state) else 'fell'}")
    libray.shutdown()


if __name__ == "__main__":
    main()
