"""Damage to bytes, TIFF directories and JSON, drawn from a generator of random numbers."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Iterator
from typing import Any

NASTY = [
    *("../x", "/etc/passwd", ".", "..", "", "a" * 300, "nul.svs", "a'b", 'a"b', '"a', "$(touch x)", "a;b", "a&b"),
    *("`id`", "\x00", "\n", "\t", "\r", "\u2028", "é", "名", "\ud800", "=1+1", "@x", "-x", "{x}", "{", "[a]", "*"),
    *("#", "%s", "\\", "NaN", "inf", "1e999", "9" * 400, "1" * 5000, "null", "[", "&a [*a]", "\x1b[31m", "\ufeff"),
    '!!python/object/apply:os.system ["touch ran"]',
]
NUMBERS = [0, 1, -1, 2**31, 2**63, 2**64, 10**400, 1e308, -1e308, 1e-320, 0.5, float("nan"), float("inf"), True, None]
_FIELD = [0, 1, 2, 7, 16, 255, 256, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut, or put in."""
    new = bytearray(data)
    for _ in range(rng.choice([1, 2, 5])):
        at = rng.randrange(len(new) + 1)
        kind = rng.random()
        if kind < 0.5:
            new[at : at + 1] = rng.randbytes(1)
        elif kind < 0.6:
            del new[at:]
        elif kind < 0.7:
            del new[at : at + rng.randrange(1, 40)]
        else:
            new[at:at] = rng.choice(NASTY).encode("utf-8", "surrogatepass")
    return bytes(new)


def damaged_slide(data: bytes, rng: random.Random) -> bytes:
    """A slide whose header or pixels are damaged; mostly the fields of a TIFF's directories, which lie about sizes."""
    new = bytearray(data)
    entries = list(_entries(data))
    for _ in range(rng.choice([1, 1, 2, 4])):
        kind = rng.random()
        if entries and kind < 0.7:
            at = rng.choice(entries)
            where, pattern = rng.choice([(8, "<I"), (8, "<I"), (4, "<I"), (2, "<H"), (0, "<H")])
            value = rng.choice(_FIELD) if pattern == "<I" else rng.randrange(20 if where == 2 else 400)
            struct.pack_into(pattern, new, at + where, value)
        elif kind < 0.9:
            for _ in range(rng.choice([1, 30])):
                new[rng.randrange(len(new))] = rng.randrange(256)
        elif kind < 0.95:
            del new[rng.randrange(12, len(new)) :]
            return bytes(new)
        else:
            new[rng.randrange(min(len(new), 2000))] = rng.randrange(256)
    return bytes(new)


def _entries(data: bytes) -> Iterator[int]:
    """Where the entries of a classic little-endian TIFF's directories lie."""
    if data[:4] != b"II*\x00":
        return
    (directory,) = struct.unpack_from("<I", data, 4)
    while 0 < directory < len(data) - 2:
        (count,) = struct.unpack_from("<H", data, directory)
        yield from (directory + 2 + 12 * k for k in range(count))
        (directory,) = struct.unpack_from("<I", data, directory + 2 + 12 * count)


def nasty_value(rng: random.Random, depth: int = 0) -> Any:
    """Anything that JSON or YAML can say."""
    kind = rng.random()
    if kind < 0.3 or depth > 3:
        return rng.choice(NASTY)
    if kind < 0.6:
        return rng.choice(NUMBERS)
    if kind < 0.63:
        nested: Any = []
        for _ in range(rng.choice([50, 900])):
            nested = [nested]
        return nested
    if kind < 0.8:
        return [nasty_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice([*NASTY, "type", "name"]): nasty_value(rng, depth + 1) for _ in range(rng.randrange(4))}


def damaged_json(data: bytes, rng: random.Random) -> bytes:
    """A document in which a value or two are something else."""
    document = copy.deepcopy(json.loads(data))
    for _ in range(rng.choice([1, 1, 2])):
        *way, last = rng.choice(list(_places(document)))
        place = document
        for key in way:
            place = place[key]
        place[last] = nasty_value(rng)
        if not isinstance(document, dict | list):
            break
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 5)) if isinstance(value, list) else ()
    for key in keys:
        yield (*way, key)
        if len(way) < 40:
            yield from _places(value[key], (*way, key))
