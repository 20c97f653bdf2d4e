"""Random and hostile bodies: pages with changed bytes or values, random JSON, and random bytes."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from typing import Any

from tests._support.clients import USER, page_body, wire_row

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**400,
    1e308,
    -0.0,
    "",
    "\x00",
    "\ud800",
    "9" * 5000,
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:60+23:59",
    "2026-02-30T00:00:00Z",
    [],
    {},
    [[]],
    {"id": {}},
)


def bodies(chance: random.Random) -> Iterator[bytes]:
    """Generate bodies: pages with changed bytes or values, random JSON, and random bytes."""
    page = page_body(*map(wire_row, range(1, 6)))
    packed = gzip.compress(page)
    users = json.dumps([{"id": str(USER), "email": "who@example.com", "num_electric_vehicles": 1}] * 3).encode()
    while True:
        yield mutated(chance, page)
        yield mutated(chance, users)
        yield mutated(chance, users[1:-1])
        yield mutated(chance, packed)
        yield with_odd_values(chance)
        yield json.dumps(any_json(chance, 6)).encode(errors="surrogatepass")
        yield chance.randbytes(chance.randrange(200))
        depth = chance.randrange(1, 5000)
        yield chance.choice([b"[", b'{"items":', b'[{"a":']) * depth
        yield b'{"total": ' + b"9" * chance.randrange(1, 6000) + b', "items": []}'


def mutated(chance: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(chance.randrange(1, 8)):
        place = chance.randrange(len(changed))
        match chance.randrange(4):
            case 0:
                changed[place] = chance.randrange(256)
            case 1:
                del changed[place : place + chance.randrange(1, 40)]
            case 2:
                changed[place:place] = changed[: chance.randrange(1, 40)]
            case _:
                changed[place:place] = chance.choice([b"\xff", b"null", b'"', b"}", b"]", b"1e999", b"\\ud800"])
        if not changed:
            changed = bytearray(b" ")
    return bytes(changed)


def with_odd_values(chance: random.Random) -> bytes:
    row = wire_row(1)
    for name in chance.sample(sorted(row), chance.randrange(1, 6)):
        row[name] = chance.choice(ODD_VALUES)
    total = chance.choice([1, chance.choice(ODD_VALUES)])
    return json.dumps({"total": total, "items": [row, wire_row(2)]}).encode(errors="surrogatepass")


def any_json(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(8 if depth else 5)
    if kind < 5:
        return chance.choice([*ODD_VALUES[:13], chance.random(), chance.randrange(-(2**70), 2**70)])
    if kind == 5:
        return [any_json(chance, depth - 1) for _ in range(chance.randrange(4))]
    names = ["id", "total", "items", "session", "detail", "plug_in_time", "msg", "loc", chance.randbytes(3).hex()]
    return {chance.choice(names): any_json(chance, depth - 1) for _ in range(chance.randrange(5))}
