"""Makes a failing program small: takes instructions out as long as it fails in the same way."""


def spots(program, path=()):
    """Paths of all instructions, bodies included, last first."""
    found = []
    for i, words in enumerate(program):
        found.append(path + (i,))
        for k, word in enumerate(words):
            if isinstance(word, list):
                found += spots(word, path + (i, k))
    return found


def without(program, paths):
    """A copy without the instructions at these paths."""
    gone = set(paths)

    def copy(part, path):
        out = []
        for i, words in enumerate(part):
            at = path + (i,)
            if at not in gone:
                out.append([copy(w, at + (k,)) if isinstance(w, list) else w for k, w in enumerate(words)])
        return out

    return copy(program, ())


def shrink(program, fails, budget):
    """Delta debugging over instructions, then over single words. `fails(program)` runs it; `budget()` is true while
    there is time."""
    size = max(1, len(program) // 2)
    while budget():
        places = spots(program) if size == 1 else [(i,) for i in range(len(program))]
        at, smaller = len(places), False
        while at > 0 and budget():
            chunk = places[max(0, at - size):at]
            candidate = without(program, chunk)
            if candidate and fails(candidate):
                program, smaller = candidate, True
                places = spots(program) if size == 1 else [(i,) for i in range(len(program))]
                at = min(at - size, len(places))
            else:
                at -= size
        if size == 1 and not smaller:
            break
        size = max(1, size // 2)
    return shrink_words(program, fails, budget)


def shrink_words(program, fails, budget):
    """Takes out options and inline arguments that do not matter."""
    for path in reversed(spots(program)):
        part = program
        for step in path[:-1]:
            part = part[step]
        words = part[path[-1]]
        for k in range(len(words) - 1, 0, -1):
            word = words[k]
            if not budget():
                return program
            if isinstance(word, str) and ("=" in word or word[:1] == "v" and ":" in word):
                kept = list(words)
                del words[k]
                if not fails(program):
                    words[:] = kept
    return program
