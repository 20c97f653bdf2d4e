"""Which vehicles: lists that users write, and a stable share of a fleet. Knows nothing of stores or clients."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Self
from uuid import UUID

import attrs

from podero_async.models import VehicleRef

__all__ = ["Shard", "read_vehicle_refs"]

_HEADER = ("user_id", "vehicle_id")


@attrs.frozen
class Shard:
    """One of `count` shares of a fleet, counted from 1; a vehicle's id alone decides which share it belongs to."""

    index: int
    count: int

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"a shard is 1/N to N/N, not {self}")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `I/N`, as in `2/5`.

        Raises:
            ValueError: It is no such thing, or there is no such share (`5/4`).
        """
        index, _, count = text.partition("/")
        if not (index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
            raise ValueError(f"a shard is written I/N, as in 2/5, not {text!r}")
        return cls(int(index), int(count))

    def holds(self, vehicle_id: UUID) -> bool:
        """Say whether a vehicle is of this share. The answer is the same on every machine, and in every release."""
        digest = blake2b(vehicle_id.bytes, digest_size=8).digest()
        return int.from_bytes(digest) % self.count == self.index - 1


def read_vehicle_refs(lines: Iterable[str]) -> Iterator[VehicleRef]:
    """Read vehicles from lines: CSV (`user_id,vehicle_id`, with or without that header) or JSON objects, one a line.

    Blank lines are passed over. Lines are read as they are needed.

    Raises:
        ValueError: A line is no vehicle; the message names its number, counted from 1.
    """
    for number, line in enumerate(lines, 1):
        text = line.strip().removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
        if not text or (number == 1 and _fields(text) == list(_HEADER)):
            continue
        try:
            yield _from_json(text) if text.startswith("{") else _from_csv(text)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"line {number}: {error}") from None


def _fields(text: str) -> list[str]:
    return [field.strip().strip('"') for field in text.split(",")]


def _from_csv(text: str) -> VehicleRef:
    fields = _fields(text)
    if len(fields) != len(_HEADER):
        raise ValueError("expected user_id,vehicle_id")
    return _ref(*fields)


def _from_json(text: str) -> VehicleRef:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("not a JSON object") from None
    if not isinstance(row, dict) or any(not isinstance(row.get(name), str) for name in _HEADER):
        raise ValueError("expected an object with a user_id and a vehicle_id")
    return _ref(row["user_id"], row["vehicle_id"])


def _ref(user_id: str, vehicle_id: str) -> VehicleRef:
    for name, value in zip(_HEADER, (user_id, vehicle_id), strict=True):
        try:
            UUID(value)
        except ValueError:
            raise ValueError(f"{name} must be a uuid") from None
    return VehicleRef(user_id=user_id, vehicle_id=vehicle_id)
