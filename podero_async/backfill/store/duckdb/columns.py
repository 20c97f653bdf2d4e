"""Batches of outcomes as Arrow tables."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from itertools import chain, groupby, repeat
from typing import Any, TypeAlias, cast

import attrs
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from podero_async._decode import LEFT_OUT, Body, PageRows, UnknownText, read_page
from podero_async._fleet.vehicle import FetchedSessions
from podero_async.backfill._values import StoreOwner, WorkItem
from podero_async.backfill.store.duckdb.digest import digests_of
from podero_async.errors import CompletenessError
from podero_async.frames._bodies import columns_of_bodies
from podero_async.frames._columns import column, plain_columns
from podero_async.frames._schema import ENUMS, MOMENT, SESSION_SCHEMA, UUID
from podero_async.models import (
    ChargingSession,
    Completeness,
    RejectedItem,
    SessionOutcome,
)

__all__ = ["Batch"]

_LOG = logging.getLogger("podero_async")

_PAGES_PER_SLICE = 20  # with fewer, each row takes longer
_ROWS_PER_SLICE = 128  # of sessions, which the garbage collector scans

_WORK_ITEM = ("work_item", pa.int32())
_VEHICLE = [("user_id", UUID), ("vehicle_id", UUID)]
_KEY = [*_VEHICLE, ("from_date", pa.date32()), ("to_date", pa.date32()), ("include_hidden", pa.bool_())]
_COUNTS = [("completeness", pa.string()), ("total", pa.int64()), ("count", pa.int64())]
_ERROR = [("kind", pa.string()), ("message", pa.string())]
_REASON = [("path", pa.string()), ("reason", pa.string()), ("raw", pa.string())]

_TEXT = pa.string()
_SESSION = pa.schema(
    [_WORK_ITEM, *((each.name, _TEXT if each.name in ENUMS else each.type) for each in SESSION_SCHEMA)]
)
_UNKNOWN_FIELDS = pa.field("unknown_fields", pa.json_(pa.string()))
_COVERAGE = [("fetched_at", MOMENT), ("settle_to", pa.date32()), ("is_confirming", pa.bool_())]
_READ = pa.schema([_WORK_ITEM, *_KEY, *_COUNTS, ("requests", pa.int32()), *_COVERAGE, ("digest", pa.string())])
_UNSETTLED = pa.schema([_WORK_ITEM, ("day", pa.date32())])
_REJECTED = pa.schema([_WORK_ITEM, ("day", pa.date32()), ("session_id", UUID), ("index", pa.int64()), *_REASON])
_FAILURE = pa.schema([*_KEY, *_ERROR, ("failed_at", MOMENT)])

_Page: TypeAlias = tuple[int, Body | PageRows, list[UnknownText]]
"""The number of a work item, a page of its sessions, and their unknown fields if these are kept."""


@attrs.define
class Batch:
    """The outcomes of a run that one transaction commits."""

    run_id: int
    owner: StoreOwner | None = None
    """Claims the store with the first read, unless the store has an owner."""
    keep_unknown: bool = False
    """Whether the table of sessions has their unknown fields."""
    outcomes: int = 0
    rows: int = 0
    done: int = 0
    failed: int = 0
    unproven: int = 0
    requests: int = 0
    retries: int = 0
    unknown_length: int = 0
    """Characters of unknown fields."""
    _left_out: int = 0
    _reads: list[tuple[Any, ...]] = attrs.field(factory=list)
    _rejected: list[tuple[int, RejectedItem]] = attrs.field(factory=list)
    _failures: list[tuple[Any, ...]] = attrs.field(factory=list)
    _pages: list[_Page] = attrs.field(factory=list)
    _slices: list[pa.RecordBatch] = attrs.field(factory=list)

    def successor(self) -> Batch:
        """Return an empty batch of the same run."""
        return Batch(self.run_id, self.owner, self.keep_unknown)

    def add(self, item: WorkItem, outcome: FetchedSessions, at: datetime, settle_to: date | None) -> None:
        """Add the sessions of a vehicle.

        Args:
            item: The work item.
            outcome: Its sessions. If they are not proven complete, a failure is added as well.
            at: The time of the read.
            settle_to: The last day that the read may settle; None settles no day.
        """
        for page in filter(len, outcome.pages):
            self._pages.append((item.number, page.body or page, self._unknown_of(page)))
        self._rejected.extend((item.number, rejected) for rejected in outcome.rejected)
        self._reads.append(_read_row(item, outcome, at, settle_to))
        if outcome.completeness is Completeness.UNPROVEN:
            self.unproven += 1
            message = f"the list could not be proven complete: {outcome.reason}"
            self._failures.append((*_key(item), CompletenessError.__name__, _clean(message), at))
        self.rows += outcome.count
        self.requests += outcome.requests
        self.retries += outcome.retries
        self.done += 1
        self.outcomes += 1

    def add_failure(self, item: WorkItem, error: Exception, at: datetime) -> None:
        """Add a vehicle that failed."""
        self._failures.append((*_key(item), type(error).__name__, _clean(str(error)), at))
        self.failed += 1
        self.outcomes += 1

    def _unknown_of(self, page: PageRows) -> list[UnknownText]:
        if not self.keep_unknown:
            return []
        texts = page.unknown
        self.unknown_length += sum(map(len, filter(None, texts)))
        self._left_out += texts.count(LEFT_OUT)
        return texts

    @property
    def has_duplicates(self) -> bool:
        """Whether two reads return the same session."""
        self._convert()
        ids = pa.chunked_array([each.column("id").storage for each in self._slices], pa.binary(16))
        return bool(pc.count_distinct(ids).as_py() < len(ids))

    def tables(self, since: date | None = None) -> dict[str, pa.Table]:
        """Return the tables by name. Their rows refer to a read by the number of its work item, `work_item`.

        Sessions that were plugged in before the day `since` are left out: the API may list one under a later day.
        """
        self._convert()
        if since is not None:
            self._leave_out_before(since)
        sessions, rejected = pa.Table.from_batches(self._slices, self._schema), self._rejected_rows()
        if self._left_out:
            _LOG.warning(
                "the unknown fields of %d sessions were not kept: they are over 16 KiB, or not JSON", self._left_out
            )
        return {
            "arrow_sessions": sessions,
            "arrow_reads": _table(self._reads_with_digests(), _READ),
            "arrow_unsettled": pa.concat_tables([_open_days(sessions), rejected.select(["work_item", "day"])]),
            "arrow_rejected": rejected,
            "arrow_failures": _table(self._failures, _FAILURE),
        }

    def _leave_out_before(self, day: date) -> None:
        first = pa.scalar(datetime.combine(day, time(tzinfo=UTC)), MOMENT)
        self._slices = [each.filter(pc.greater_equal(each["plug_in_time"], first)) for each in self._slices]
        self._rejected = [each for each in self._rejected if (_day_of(each[1]) or day) >= day]

    def _reads_with_digests(self) -> list[tuple[Any, ...]]:
        known = [each.select(_SESSION.names) for each in self._slices]
        digests = digests_of((number for number, *_ in self._reads), known)
        return [(*read, digest) for read, digest in zip(self._reads, digests, strict=True)]

    def _convert(self) -> None:
        """Make columns of the pages that are not converted yet, and free them."""
        while self._pages:
            pages = self._pages[:_PAGES_PER_SLICE]
            del self._pages[:_PAGES_PER_SLICE]
            for has_body, run in groupby(pages, lambda page: isinstance(page[1], Body)):  # in order, for the digest
                if has_body:
                    self._add_bodies(cast("list[tuple[int, Body, list[UnknownText]]]", list(run)))
                else:
                    self._add_pages(cast("Iterable[tuple[int, PageRows, list[UnknownText]]]", run))
        if len(self._slices) > 1:
            self._slices = pa.Table.from_batches(self._slices).combine_chunks().to_batches()

    def _add_bodies(self, pages: list[tuple[int, Body, list[UnknownText]]]) -> None:
        """Add pages of which the bodies were kept; if Arrow refuses one of the bodies, all are read as sessions."""
        numbers = chain.from_iterable(repeat(number, body.wanted) for number, body, _ in pages)
        unknown = list(chain.from_iterable(texts for *_, texts in pages))
        try:
            self._add_columns(numbers, columns_of_bodies([body for _, body, _ in pages]), unknown)
        except (pa.ArrowException, ValueError):
            self._add_pages((number, read_page(body.data).select(body.is_new), texts) for number, body, texts in pages)

    def _add_pages(self, pages: Iterable[tuple[int, PageRows, list[UnknownText]]]) -> None:
        for number, page, unknown in pages:
            done = 0
            for begin in range(0, len(page), _ROWS_PER_SLICE):
                sessions = page.sessions(begin, begin + _ROWS_PER_SLICE)
                self._add_sessions(number, sessions, unknown[done : done + len(sessions)])
                done += len(sessions)

    def _add_sessions(self, number: int, sessions: list[ChargingSession], unknown: list[UnknownText]) -> None:
        """Add sessions; one with a value that no column can hold is rejected."""
        try:
            self._add_columns(repeat(number, len(sessions)), plain_columns(sessions, SESSION_SCHEMA), unknown)
        except ValueError as error:
            if len(sessions) == 1:
                self._rejected.append((number, _unstorable(sessions[0], error)))
                return
            middle = len(sessions) // 2
            self._add_sessions(number, sessions[:middle], unknown[:middle])
            self._add_sessions(number, sessions[middle:], unknown[middle:])

    def _add_columns(self, numbers: Iterable[int], columns: list[pa.Array], unknown: list[UnknownText]) -> None:
        columns = [pa.array(numbers, pa.int32()), *columns]
        if self.keep_unknown:
            texts = pa.array([text or None for text in unknown], pa.string())  # an empty text is `LEFT_OUT`
            columns.append(pa.ExtensionArray.from_storage(_UNKNOWN_FIELDS.type, texts))
        self._slices.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    @property
    def _schema(self) -> pa.Schema:
        return _SESSION.append(_UNKNOWN_FIELDS) if self.keep_unknown else _SESSION

    def _rejected_rows(self) -> pa.Table:
        """Return the rejected rows with their days; None stands for all days of the read."""
        days = {number: (first, last) for number, _, _, first, last, *_ in self._reads}
        return _table([_rejected_row(number, item, *days[number]) for number, item in self._rejected], _REJECTED)


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    if not rows:
        return schema.empty_table()
    columns = zip(*rows, strict=True)
    return pa.Table.from_arrays([column(*pair) for pair in zip(columns, schema, strict=True)], schema=schema)


def _key(item: WorkItem) -> tuple[Any, ...]:
    vehicle, window = item.vehicle, item.window
    return (vehicle.user_id, vehicle.vehicle_id, window.from_date, window.to_date, window.include_hidden)


def _read_row(item: WorkItem, outcome: FetchedSessions, at: datetime, settle_to: date | None) -> tuple[Any, ...]:
    total = max(-(2**63), min(outcome.total, 2**63 - 1))
    counts = (outcome.completeness.value, total, outcome.count, outcome.requests)
    return (item.number, *_key(item), *counts, at, settle_to, item.is_confirming)


def _open_days(sessions: pa.Table) -> pa.Table:
    """Return the days on which sessions that show no end were plugged in."""
    shows_no_end = pc.and_(pc.is_null(sessions["unplug_time"]), pc.is_null(sessions["inferred_session_end"]))
    is_in_progress = pc.equal(sessions["session_outcome"], SessionOutcome.IN_PROGRESS.value)
    rows = sessions.filter(pc.or_(shows_no_end, pc.fill_null(is_in_progress, False)))
    return pa.Table.from_arrays([rows["work_item"], pc.cast(rows["plug_in_time"], pa.date32())], schema=_UNSETTLED)


def _rejected_row(number: int, item: RejectedItem, first: date, last: date) -> tuple[Any, ...]:
    try:
        raw = json.dumps(item.raw, default=str)
    except RecursionError:
        raw = '"nested too deeply"'
    day = _day_of(item)
    if day is not None and not first <= day <= last:
        day = None
    return (number, day, _id_of(item), item.index, _clean(item.path), _clean(item.reason), raw)


def _unstorable(row: ChargingSession, error: ValueError) -> RejectedItem:
    return RejectedItem(index=-1, path="$", reason=str(error), raw=attrs.asdict(row))


def _id_of(item: RejectedItem) -> uuid.UUID | None:
    try:
        return uuid.UUID(str(item.raw["id"]))
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def _day_of(item: RejectedItem) -> date | None:
    """Return the day on which a rejected session was plugged in; None if it is unknown."""
    try:
        moment = item.raw["plug_in_time"]
        moment = moment if isinstance(moment, datetime) else datetime.fromisoformat(moment)
        return (moment.astimezone(UTC) if moment.tzinfo else moment).date()
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        return None


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode()
