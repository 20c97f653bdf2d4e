"""Whose sessions these are: one store is for one organization at one origin."""

from __future__ import annotations

import attrs

from podero_async.backfill.errors import ForeignStoreError
from podero_async.backfill.store._session_store import SessionStore

__all__ = ["Source", "check_owner"]


@attrs.frozen
class Source:
    """An organization, and where it is asked for: production and the sandbox are not the same."""

    org_id: str
    origin: str

    def __str__(self) -> str:
        return f"organization {self.org_id} at {self.origin}"


async def check_owner(store: SessionStore, source: Source) -> None:
    """See to it that the store is for nobody else.

    Raises:
        ForeignStoreError: It is. It was not touched.
    """
    from podero_async.backfill.store.duckdb.owner import owner_of  # noqa: PLC0415

    owner = await store.call(owner_of)
    if owner is not None and owner != source:
        raise ForeignStoreError(f"the store is for {owner}, not for {source}", store.path)
