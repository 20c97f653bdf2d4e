"""What is to be read, and what tells one set of sessions from another. Knows no database."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from uuid import UUID

import attrs

from podero_async._paging.page import Window
from podero_async.models import VehicleRef

__all__ = ["Task", "digest_of"]


@attrs.frozen
class Task:
    """One window of one vehicle to read, by its number in the run."""

    number: int
    vehicle: VehicleRef
    window: Window


def digest_of(ids: Iterable[UUID]) -> str:
    """Return the digest of a receipt, which no order changes: of SHA-256 over the ids' texts, sorted, the first half."""
    return sha256("".join(sorted(map(str, set(ids)))).encode()).hexdigest()[:32]
