"""Programs of the conformance machine (../SPEC.md) as Python lists, and as text.

A program is a list of instructions, an instruction a list of words: the operation, operands, and for some a body, which
is a program again.
"""
MASK = (1 << 64) - 1


def text(program):
    return ";".join(" ".join("[" + text(w) + "]" if isinstance(w, list) else str(w) for w in i) for i in program)


def parse(source):
    program, at = _parse(source, 0)
    if at != len(source):
        raise ValueError(f"a ']' too many at {at}")
    return program


def _parse(source, at):
    program, words, word = [], [], ""
    while at < len(source):
        c = source[at]
        if c in " \n;]" and word:
            words.append(word)
            word = ""
        if c == "]":
            break
        at += 1
        if c == "[":
            body, at = _parse(source, at)
            words.append(body)
            at += 1
        elif c == ";":
            program += [words] if words else []
            words = []
        elif c not in " \n":
            word += c
    words += [word] if word else []
    program += [words] if words else []
    return program, at


def instructions(program):
    """All of them, bodies included."""
    for instruction in program:
        yield instruction
        for word in instruction:
            if isinstance(word, list):
                yield from instructions(word)


def options(words):
    """{"retries": "3", ...} of an instruction's words."""
    return dict(w.split("=", 1) for w in words if isinstance(w, str) and "=" in w)


def amounts(text_):
    """"CPU:1,disk:0.5" as a dict."""
    pairs = (part.rsplit(":", 1) for part in text_.split(",") if part)
    return {name: float(amount) for name, amount in pairs}


def mix(acc, x):
    return (acc * 6364136223846793005 + x + 1) & MASK
