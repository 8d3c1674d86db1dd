"""Changes to inputs: of bytes, of JSON, of numbers. Every choice comes from the generator that is given."""

import json
from copy import deepcopy
from random import Random
from typing import Any

NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 511, 512, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53)
LARGE = (2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30)
STRINGS = (
    "",
    " ",
    "\0",
    "text",
    "label",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "a\\b",
    "é" * 7,
    "e\u0301",
    "\ud800",
    "\u2028",
    "\u202e",
    "\ufeff",
    "NaN",
    "__metadata__",
    "LABEL_0",
    "🏳️‍🌈",
    "x" * 300,
    "-1",
    "1e400",
    "${x}",
    "%s%n",
    '"',
    "'",
)
SCALARS = (None, True, False, -1, 0.5, -0.0, 1e308, float("nan"), float("inf"), [], {}, [[]], {"": None})


def some_bytes(rng: Random, content: bytes, times: int) -> bytes:
    """So many changes at random places."""
    data = bytearray(content)
    for _ in range(times):
        _change(rng, data)
    return bytes(data)


def _change(rng: Random, data: bytearray) -> None:
    at = rng.randrange(len(data) + 1)
    length = min(rng.choice((1, 1, 2, 4, 8, 16, 100, 1000)), len(data) - at)
    match rng.randrange(9):
        case 0 if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        case 1 if at < len(data):
            data[at] = rng.choice((0, 1, 9, 10, 13, 34, 44, 92, 127, 128, 255, rng.randrange(256)))
        case 2:
            del data[at : at + length]
        case 3:
            data[at:at] = data[at : at + length] * rng.choice((1, 1, 2, 50))
        case 4:
            other = rng.randrange(len(data) + 1)
            data[at : at + length] = data[other : other + length]
        case 5:
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS + LARGE) % 2 ** (8 * size)
            data[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))
        case 6:
            data[at:at] = rng.randbytes(length)
        case 7:
            data[at:at] = rng.choice(STRINGS).encode("utf-8", "surrogatepass")
        case _ if rng.random() < 0.3:
            del data[at:]


def some_json(rng: Random, value: Any, times: int) -> Any:
    """A copy with so many values replaced, names renamed, entries added, doubled or dropped."""
    tree = json.loads(json.dumps(value))
    for _ in range(times):
        tree = _replant(rng, tree)
    return tree


def _replant(rng: Random, tree: Any) -> Any:
    if rng.random() < 0.15 or not isinstance(tree, dict | list) or not tree:
        return _value(rng, tree)
    if isinstance(tree, list):
        at = rng.randrange(len(tree))
        if rng.random() < 0.2:
            tree.insert(at, _value(rng, tree[at]))
        elif rng.random() < 0.2:
            del tree[at]
        else:
            tree[at] = _replant(rng, tree[at])
        return tree
    key = rng.choice(list(tree))
    match rng.randrange(10):
        case 0:
            del tree[key]
        case 1:
            tree[_key(rng, tree)] = tree.pop(key)
        case 2:
            tree[_key(rng, tree)] = _value(rng, tree[key])
        case _:
            tree[key] = _replant(rng, tree[key])
    return tree


def _key(rng: Random, tree: dict[str, Any]) -> str:
    return rng.choice((*STRINGS, *tree, str(rng.choice(NUMBERS))))


def _value(rng: Random, old: Any) -> Any:
    """Often of the same kind: what is of another kind is refused at once, and teaches little."""
    if type(old) is int and rng.random() < 0.6:
        return rng.choice((*NUMBERS, *LARGE, old + 1, old - 1, -old, 2 * old))
    if isinstance(old, str) and rng.random() < 0.6:
        return rng.choice((*STRINGS, old + rng.choice(STRINGS), old[:-1], old.upper()))
    nested: Any = deepcopy(rng.choice((*SCALARS, *STRINGS, *NUMBERS, *LARGE)))  # lists are changed later
    if rng.random() < 0.02:
        for _ in range(rng.choice((5, 50, 300))):
            nested = rng.choice(([nested], {"a": nested}))
    return nested


def json_bytes(rng: Random, value: Any) -> bytes:
    """As JSON, at times not quite."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.7)
    if rng.random() < 0.05 and text.startswith("{") and len(text) > 2:
        text = "{" + text[1:-1] + "," + text[1:]  # every name twice
    if rng.random() < 0.01:
        deep = rng.choice((900, 5000, 100_000))
        text = rng.choice(("[", '{"a":')) * deep + text
    return text.encode("utf-8", "surrogatepass")
