"""Shards: stable shares of a fleet."""

from __future__ import annotations

from hashlib import blake2b
from typing import Self
from uuid import UUID

import attrs

__all__ = ["Shard"]


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
