"""JSON as a tree that can say what no parser would give: keys that stand twice, and numbers in any notation."""

from __future__ import annotations

import copy
import json


class Raw(str):
    """Text that is written as it is."""

    __slots__ = ()


class Object(list):
    """Pairs of a key and a value."""


def tree(value):
    """A parsed document as a tree."""
    if isinstance(value, dict):
        return Object([key, tree(item)] for key, item in value.items())
    return [tree(item) for item in value] if isinstance(value, list) else value


def text(node):
    """A tree as JSON, or nearly."""
    if isinstance(node, Raw):
        return str(node)
    if isinstance(node, Object):
        return "{" + ", ".join(f"{text(key)}: {text(value)}" for key, value in node) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(map(text, node)) + "]"
    return json.dumps(node)


def places(node):
    """Every value in a tree: the list that holds it (an entry of an object is one), and its index there."""
    waiting, found = [node], []
    while waiting:
        one = waiting.pop()
        if not isinstance(one, list):
            continue
        entries = [(pair, 1) for pair in one] if isinstance(one, Object) else [(one, i) for i in range(len(one))]
        found += entries
        waiting += [holder[i] for holder, i in entries]
    return found


SIMPLE = [None, True, False, [], "", [[]], 0, -1, 1, 2**31, 2**63, 2**64, 0.5, -0.0]

NUMBERS = ["1.0", "1e3", "16e0", "1e400", "-1e-400", "-0", "1E+2", "01", "0x10", "NaN", "-Infinity", "1_0", "\u0663"]

TEXTS = [
    "x.npy\n", ".npy", "x.npy", "x.f16", "loop", "../x", "/etc/hostname", "/dev/zero", "a\0b", "x/", ".", "..",
    "\udcff", "\ud800", "\U0001f600", "e\u0301", "\u0663", "\u202e", "ulp=\u0663", "0x1p+99999", "0x1.8p+0",
    "0xfffffffff", "graph.json", "recording.json", "float16", "none", "unorm8", "tanH", "pReLU",
    "MPSCNNNeuronGradientNode", "MPSCNNNeuronPReLUNode", "h", "x", "y",
]  # fmt: skip

PEERS = [
    0, 1, 2, 3, 6, 12, 255, 256, 65_536, 2**32, -1, 0.25, -0.0, 1e-45, 3.4e38,
    *map(Raw, ["1.0", "2.0", "3e0", "1e3", "12e-0", "1.50"]),
]  # fmt: skip


def values(random, node):
    """A value that somebody may find where another is expected."""
    size = random.choice([1, 2, 10, 100, 1000, 5000])
    character = random.choice(["a", "\u00e9", "\u20ac", "\\", '"', ",", "[", "a.", "\x1b"])
    opening, closing = random.choice([("[", "]"), ('{"a":', "}")])
    item = random.choice(["[]", "{}", '""', '"ab"', "1e5", "[[]]", '{"a":[]}'])
    name = random.choice(["a{}", "a", "\u00e9{:05}", "{0}{0}"])
    holder, i = random.choice(places(node) or [([0], 0)])
    makers = [
        lambda: random.choice([*SIMPLE, Object()]),
        lambda: Raw(random.choice([*NUMBERS, "9" * size, "0." + "3" * size, f"1{'0' * size}e-{size}"])),
        lambda: random.choice(TEXTS),
        lambda: character * size,
        lambda: Raw(opening * size + random.choice(["1", "[]", "{}", ""]) + closing * size),
        lambda: [Raw(item)] * size,
        lambda: Object([name.format(i), random.choice([0, [], ""])] for i in range(size)),
        lambda: copy.deepcopy(holder[i]),
    ]
    return random.choice(makers)()


def peer(random, node, value):
    """A value of the same type, which more than the first check looks at."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return random.choice([*PEERS, value + 1])
    if isinstance(value, str):
        texts = [holder[i] for holder, i in places(node) if isinstance(holder[i], str)]
        return random.choice([*texts, value + "\n", value[:-1], value.upper(), value * 2])
    return values(random, node)


def changed(random, node):
    """Change one place of a tree."""
    found = places(node)
    if not found:
        return values(random, [node])
    holder, i = random.choice(found)
    action = random.randrange(12)
    if action > 7:
        leaves = [(holder, i) for holder, i in found if not isinstance(holder[i], list)]
        holder, i = random.choice(leaves or found)
        holder[i] = peer(random, node, holder[i])
    elif action <= 2:
        holder[i] = values(random, node)
    elif action == 3:
        other, k = random.choice(found)
        # Copies, because one may lie in the other.
        holder[i], other[k] = copy.deepcopy(other[k]), copy.deepcopy(holder[i])
    else:
        parents = [one for one in [node, *(holder[i] for holder, i in found)] if isinstance(one, list) and one]
        parent = random.choice(parents)
        at = random.randrange(len(parent))
        if action == 4:
            del parent[at]
        elif action == 5:
            parent[at:at] = [parent[at]] * random.choice([1, 1, 2, 50])
        elif isinstance(parent, Object):
            key = random.choice([pair[0] for holder in parents if isinstance(holder, Object) for pair in holder])
            new = key if random.random() < 0.5 else str(values(random, node))[:2000]
            parent[at] = [new, parent[at][1]] if action == 6 else parent[at]
            if action == 7:
                parent.append([new, values(random, node)])
        else:
            parent.append(values(random, node))
    return node
