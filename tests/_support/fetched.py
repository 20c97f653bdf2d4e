"""A vehicle's list as the store gets it, made of bodies or of rows."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from podero_async import ChargingSession, Completeness, RejectedItem
from podero_async._decode import Keep, PageRows, read_page
from podero_async._fleet.vehicle import FetchedSessions
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store.duckdb.columns import Batch
from tests._support.clients import page_body


def fetched(item: WorkItem, *pages: bytes | PageRows, keep: Keep = Keep.BODY, **fields: Any) -> FetchedSessions:
    """Make the outcome of a work item from the bodies, or the rows, of its pages."""
    rows = [page if isinstance(page, PageRows) else read_page(page, keep=keep) for page in pages]
    known: dict[str, Any] = {
        "completeness": Completeness.VERIFIED,
        "total": sum(map(len, rows)),
        "requests": 1,
        "retries": 0,
    }
    return FetchedSessions(item.vehicle, item.window, rows, **known | fields)


def rows_of(rows: Iterable[ChargingSession | RejectedItem]) -> PageRows:
    """Make the rows of a page that was read row by row."""
    known = list(rows)
    return PageRows(len(known), known, are_records=False)


def add(batch: Batch, item: WorkItem, rows: list[dict[str, Any]], at: datetime, **fields: Any) -> None:
    """Add wire rows to a batch, as one page."""
    keep = Keep.UNKNOWN_FIELDS if batch.keep_unknown else Keep.BODY
    batch.add(item, fetched(item, page_body(*rows), keep=keep, **fields), at, None)
