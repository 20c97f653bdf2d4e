"""A model of the store in plain dicts: the expected content of its tables after batches of outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import attrs

from podero_async import Completeness
from podero_async.backfill._report import Written
from podero_async.backfill._values import WorkItem

Record = tuple[Any, ...]


@attrs.frozen
class Listed:
    """A session in the server's list."""

    id: UUID
    user_id: UUID
    vehicle_id: UUID
    plug_in_time: datetime
    energy_kwh: float
    is_hidden: bool

    def is_in(self, item: WorkItem) -> bool:
        window = item.window
        return (
            self.vehicle_id == item.vehicle.vehicle_id
            and window.from_date <= self.plug_in_time.date() <= window.to_date
            and (window.include_hidden or not self.is_hidden)
        )


@attrs.frozen
class Outcome:
    """The outcome of reading a window."""

    item: WorkItem
    at: datetime
    completeness: Completeness | None
    """None if the read failed."""
    sessions: Sequence[Listed] = ()
    unstorable: Sequence[Listed] = ()
    """Sessions with a value that no column can hold."""
    unreadable: Sequence[UUID | None] = ()
    """The ids of rows that could not be read; None if the id could not be read either."""

    @property
    def is_proven(self) -> bool:
        return self.completeness not in {None, Completeness.UNPROVEN}

    @property
    def rejected(self) -> list[UUID | None]:
        return [*self.unreadable, *(row.id for row in self.unstorable)]

    @property
    def window(self) -> Record:
        window = self.item.window
        vehicle = self.item.vehicle
        return (vehicle.user_id, vehicle.vehicle_id, window.from_date, window.to_date, window.include_hidden)

    def covers(self, window: Record) -> bool:
        """Return whether this window has the vehicle of the given one and covers all days of the given one."""
        user, vehicle, first, last, _ = self.window
        return (user, vehicle) == window[:2] and first <= window[2] and last >= window[3]


@attrs.define
class StoredRow:
    """The expected row of a session."""

    row: Listed
    fetched_at: datetime
    first_seen_at: datetime
    changed_at: datetime | None = None
    withdrawn_at: datetime | None = None

    @property
    def record(self) -> Record:
        return (*attrs.astuple(self.row), *attrs.astuple(self, recurse=False)[1:])


@attrs.define
class StoreModel:
    """The expected content of the four tables that batches change."""

    complete_until: date
    sessions: dict[UUID, StoredRow] = attrs.field(factory=dict)
    receipts: list[Record] = attrs.field(factory=list)
    failures: list[Record] = attrs.field(factory=list)
    rejected: list[Record] = attrs.field(factory=list)
    moves: Counter[UUID] = attrs.field(factory=Counter)
    """Sessions that moved to another vehicle since the last finished run. They may be stored twice until the next run ends."""

    def write(self, run_id: int, outcomes: Iterable[Outcome]) -> Written:
        """Apply a batch and return the expected changes."""
        outcomes = list(outcomes)
        reads = [outcome for outcome in outcomes if outcome.completeness]
        counts = Counter(self._store(row, read.at) for read in reads for row in read.sessions)
        withdrawn = self._withdraw(reads)
        for read in reads:
            self._add_receipt(run_id, read)
        self._update_rejected(reads)
        self._update_failures(run_id, outcomes)
        rejected = sum(len(read.rejected) for read in reads)
        return Written(counts["new"], counts["changed"], counts["unchanged"], withdrawn, rejected)

    def finish_run(self) -> None:
        self.moves.clear()

    def _store(self, row: Listed, at: datetime) -> str:
        stored = self.sessions.get(row.id)
        if stored is None:
            self.sessions[row.id] = StoredRow(row, at, at)
            return "new"
        if stored.row.vehicle_id != row.vehicle_id:
            self.moves[row.id] += 1
        is_changed = stored.row != row
        stored.row, stored.fetched_at, stored.withdrawn_at = row, at, None
        if is_changed:
            stored.changed_at = at
        return "changed" if is_changed else "unchanged"

    def _withdraw(self, reads: Sequence[Outcome]) -> int:
        """Withdraw the rows that are not listed any more.

        A row that could not be read is still listed. Without an id, it may be any row of its vehicle.
        """
        listed = {row.id for read in reads for row in read.sessions} | {id_ for read in reads for id_ in read.rejected}
        gone = [
            (stored, read)
            for read in reads
            if read.is_proven and None not in read.rejected
            for stored in self.sessions.values()
            if stored.row.is_in(read.item) and stored.withdrawn_at is None and stored.row.id not in listed
        ]
        for stored, read in gone:
            stored.withdrawn_at = read.at
        return len(gone)

    def _add_receipt(self, run_id: int, read: Outcome) -> None:
        ids = sorted(str(row.id) for row in read.sessions)
        count = len(read.sessions)
        held_to = min(read.item.window.to_date, self.complete_until)
        assert read.completeness
        self.receipts.append(
            (
                run_id,
                read.item.number,
                *read.window,
                read.completeness.value,
                count + len(read.rejected),
                count,
                sha256("".join(ids).encode()).hexdigest()[:32],
                held_to if read.is_proven and not read.rejected and held_to >= read.item.window.from_date else None,
                read.at,
            )
        )

    def _update_rejected(self, reads: Sequence[Outcome]) -> None:
        listed = {row.id for read in reads for row in read.sessions}

        def is_over(item: Record) -> bool:
            return any(
                read.is_proven
                and read.window[:2] == item[:2]
                and ((read.covers(item) and (read.window[4] or not item[4])) or item[5] in listed)
                for read in reads
            )

        self.rejected = [item for item in self.rejected if not is_over(item)]
        self.rejected += [(*read.window, id_, read.at) for read in reads for id_ in read.rejected]

    def _update_failures(self, run_id: int, outcomes: Sequence[Outcome]) -> None:
        def is_over(failure: Record) -> bool:
            return any(each.covers(failure[1:]) and each.window[4] == failure[5] for each in outcomes)

        self.failures = [failure for failure in self.failures if not is_over(failure)]
        self.failures += [(run_id, *each.window, each.at) for each in outcomes if each.completeness is None]
