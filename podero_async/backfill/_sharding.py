"""Shards: stable fractions of an organization's users, each for a store of its own."""

from __future__ import annotations

from hashlib import blake2b
from typing import Self
from uuid import UUID

import attrs

__all__ = ["Shard"]


@attrs.frozen
class Shard:
    """Shard `index` of `count`, counted from 1. The id of a user alone determines the shard of the user's vehicles.

    So a run over a shard lists only the vehicles of its own users.
    """

    index: int
    count: int

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"a shard is 1/N to N/N, not {self}")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the shard for a text `I/N`, such as `2/5`.

        Raises:
            ValueError: The text has another form, or the index is out of range (`5/4`).
        """
        index, _, count = text.partition("/")
        if not (index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
            raise ValueError(f"a shard is written I/N, as in 2/5, not {text!r}")
        return cls(int(index), int(count))

    def holds(self, user_id: UUID) -> bool:
        """Return whether a user belongs to the shard; the result is the same on every machine and in every release."""
        digest = blake2b(user_id.bytes, digest_size=8).digest()
        return int.from_bytes(digest) % self.count == self.index - 1
