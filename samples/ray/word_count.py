"""Counts words: one task per text, one that adds up."""

from collections import Counter

import ray

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "the dog sleeps and the fox runs",
    "a quick dog is a happy dog",
    "over the hills the brown fox runs",
]


@ray.remote
def count(text):
    return Counter(text.split())


@ray.remote
def merge(*counters):
    return sum(counters, Counter())


def main():
    ray.init(num_cpus=2)
    total = ray.get(merge.remote(*[count.remote(text) for text in TEXTS]))
    for word, n in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:5]:
        print(f"{word:6} {n}")
    print(sum(total.values()), "words")


if __name__ == "__main__":
    main()
