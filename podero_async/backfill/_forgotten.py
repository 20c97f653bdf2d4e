"""Users that a store has forgotten: hashes of their ids, so that the ids themselves do not stay."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from uuid import UUID

import attrs

__all__ = ["ForgottenUsers"]


@attrs.frozen
class ForgottenUsers:
    """The users that runs leave out."""

    store_id: str
    hashes: Mapping[str, frozenset[str]]
    """The hashes by their salt: the id of the store, and those of the stores from which it was merged."""

    def hash_of(self, user_id: UUID) -> str:
        """Return the hash by which the store remembers a forgotten user; it differs from store to store."""
        return _hash(self.store_id, user_id)

    def __contains__(self, user_id: UUID) -> bool:
        return any(_hash(salt, user_id) in hashes for salt, hashes in self.hashes.items())


def _hash(salt: str, user_id: UUID) -> str:
    return sha256(f"{salt}{user_id}".encode()).hexdigest()
