"""The merge of the stores of several shards into one store."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike, fspath

from podero_async.backfill.errors import StoreError
from podero_async.backfill.store import Merged, SessionStore, SupportsMerge

__all__ = ["merge_stores"]


async def merge_stores(
    target: str | PathLike[str],
    stores: Iterable[str | PathLike[str]],
    *,
    overwrite: bool = False,
    memory_limit_mb: int = 1024,
) -> Merged:
    """Write a new store with the sessions, coverage and history of others, which are only read.

    The target appears when it is complete, and backfills go on with it: they read the days that are provisional or
    missing in it. Each session is in it once. A user that one of the stores has forgotten is left out, and so are the
    days that one of them has erased. Runs are numbered anew, in the order of their time. If the caller is cancelled,
    nothing is written.

    Args:
        target: The file of the new store.
        stores: The files of the stores. No process may have them open for writing.
        overwrite: Whether to replace an earlier merge, to which no backfill has written since.
        memory_limit_mb: The maximum size of the database's buffers, in MB.

    Raises:
        ForeignStoreError: The stores belong to different organizations or origins.
        StoreInUseError: A process writes to one of the stores.
        StoreError: A store is missing or of an older release, or a file is in the way of the target.
    """
    paths = [fspath(store) for store in stores]
    if not paths:
        raise ValueError("no store to merge")
    async with SessionStore(":memory:", memory_limit_mb=memory_limit_mb) as scratch:
        backend = scratch.backend
        if not isinstance(backend, SupportsMerge):
            raise StoreError("this kind of store cannot be merged", fspath(target))
        return await backend.merge(fspath(target), paths, overwrite=overwrite)
