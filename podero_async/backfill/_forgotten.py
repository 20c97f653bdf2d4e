"""Users that a store has forgotten: hashes of their ids, so that the ids themselves do not stay."""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

import attrs

__all__ = ["ForgottenUsers"]


@attrs.frozen
class ForgottenUsers:
    """The users that runs leave out."""

    store_id: str
    hashes: frozenset[str]

    def hash_of(self, user_id: UUID) -> str:
        """Return the hash by which the store remembers a forgotten user; it differs from store to store."""
        return sha256(f"{self.store_id}{user_id}".encode()).hexdigest()

    def __contains__(self, user_id: UUID) -> bool:
        return bool(self.hashes) and self.hash_of(user_id) in self.hashes
