"""A model of the store in plain dicts: the expected content of its tables after batches and conclusions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import attrs

from podero_async import Completeness, VehicleRef
from podero_async.backfill._report import Written
from podero_async.backfill._values import WorkItem

Record = tuple[Any, ...]
_TICK = timedelta(microseconds=1)


@attrs.frozen
class Listed:
    """A session in the server's list, and the users whose lists have it."""

    id: UUID
    vehicle_id: UUID
    plug_in_time: datetime
    energy_kwh: float
    is_hidden: bool
    users: frozenset[UUID] = attrs.field(eq=False)

    @property
    def day(self) -> date:
        return self.plug_in_time.date()

    def is_in(self, item: WorkItem, *, for_any_user: bool = False) -> bool:
        window = item.window
        return (
            self.vehicle_id == item.vehicle.vehicle_id
            and (for_any_user or item.vehicle.user_id in self.users)
            and window.from_date <= self.day <= window.to_date
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

    def covers(self, window: Record, *, within_days: int | None = None) -> bool:
        """Return whether it counts for all days of another window of the same vehicle;
        with `within_days`, for a near day.
        """
        user, vehicle, first, last, include_hidden = self.window
        if (user, vehicle) != window[:2] or (window[4] and not include_hidden):
            return False
        if within_days is None:
            return bool(first <= window[2] and last >= window[3])
        near = timedelta(days=within_days)
        return bool(window[2] <= last + near and window[3] >= first - near)


@attrs.define
class StoredRow:
    """The expected row of a session."""

    row: Listed
    user_id: UUID
    fetched_at: datetime
    first_seen_at: datetime
    changed_at: datetime
    absent_at: datetime | None = None
    withdrawn_at: datetime | None = None

    @property
    def pair(self) -> VehicleRef:
        return VehicleRef(user_id=self.user_id, vehicle_id=self.row.vehicle_id)

    @property
    def record(self) -> Record:
        return (*attrs.astuple(self.row)[:-1], *attrs.astuple(self, recurse=False)[1:])


@attrs.define
class StoreModel:
    """The expected content of the four tables that batches change."""

    roster: set[VehicleRef]
    known: set[VehicleRef]
    """The vehicles of the last discovery that have not gone."""
    sessions: dict[UUID, StoredRow] = attrs.field(factory=dict)
    receipts: list[Record] = attrs.field(factory=list)
    failures: list[Record] = attrs.field(factory=list)
    rejected: list[Record] = attrs.field(factory=list)
    newest: datetime | None = None

    @property
    def present(self) -> set[VehicleRef]:
        """The users of vehicles, as far as they are known."""
        return self.roster | self.known

    def commit_time(self, now: datetime) -> datetime:
        """Return the expected time of a commit: later than all earlier ones."""
        self.newest = max(now, self.newest + _TICK) if self.newest else now
        return self.newest

    def write(self, run_id: int, outcomes: Iterable[Outcome], now: datetime) -> Written:
        """Apply a batch and return the expected changes."""
        outcomes, at = list(outcomes), self.commit_time(now)
        reads = [outcome for outcome in outcomes if outcome.completeness]
        returned = {row.id: (row, read) for read in reads for row in read.sessions}  # the last read counts
        self._mark_absent(reads, returned, at)
        counts = Counter(self._store(row, read, at) for row, read in returned.values())
        for read in reads:
            assert read.completeness
            count = len(read.sessions)
            counted = (read.completeness.value, count + len(read.rejected), count)
            self.receipts.append((run_id, *read.window, *counted, read.at))
        self._update_rejected(reads)
        self._update_failures(run_id, outcomes)
        rejected = sum(len(read.rejected) for read in reads)
        return Written(counts["new"], counts["changed"], counts["unchanged"], 0, rejected)

    def _store(self, row: Listed, read: Outcome, at: datetime) -> str:
        stored, user = self.sessions.get(row.id), read.item.vehicle.user_id
        if stored is None:
            self.sessions[row.id] = StoredRow(row, user, read.at, read.at, at)
            return "new"
        if (
            stored.row.vehicle_id == row.vehicle_id
            and stored.pair in self.present
            and not stored.absent_at
            and not stored.withdrawn_at
        ):
            user = stored.user_id
        is_changed = stored.row != row or stored.user_id != user or stored.withdrawn_at is not None
        stored.row, stored.user_id, stored.fetched_at = row, user, read.at
        stored.absent_at = stored.withdrawn_at = None
        if is_changed:
            stored.changed_at = at
        return "changed" if is_changed else "unchanged"

    def _mark_absent(self, reads: Sequence[Outcome], returned: Collection[UUID], at: datetime) -> None:
        """Mark the rows that their reads had to return.

        A row that could not be read is still listed. Without an id, it may be any row of the read.
        """
        maybe = {id_ for read in reads for id_ in read.rejected if id_}
        absent: set[UUID] = set()
        for read in reads:
            for id_, stored in self.sessions.items():
                if (
                    read.is_proven
                    and stored.user_id == read.item.vehicle.user_id
                    and stored.row.is_in(read.item, for_any_user=True)
                    and not stored.withdrawn_at
                    and id_ not in returned
                ):
                    (maybe if None in read.rejected else absent).add(id_)
        for id_, stored in self.sessions.items():
            if id_ in maybe:
                stored.absent_at = None
            elif id_ in absent:
                stored.absent_at = stored.absent_at or at

    def suspects(self, *, include_hidden: bool) -> dict[UUID, datetime]:
        """Return the absent rows of the roster's pairs of user and vehicle, with the time since when."""
        return {
            id_: stored.absent_at
            for id_, stored in self.sessions.items()
            if stored.absent_at and stored.pair in self.roster and (include_hidden or not stored.row.is_hidden)
        }

    def conclude(self, suspects: dict[UUID, datetime], unread: Collection[UUID], now: datetime) -> int:
        """Withdraw the suspects that are still absent, unless their vehicle was not read; return their number."""
        at, withdrawn = self.commit_time(now), 0
        for id_, absent_at in suspects.items():
            stored = self.sessions[id_]
            if stored.absent_at == absent_at and stored.row.vehicle_id not in unread:
                stored.withdrawn_at, stored.changed_at, stored.absent_at = at, at, None
                withdrawn += 1
        return withdrawn

    def _update_rejected(self, reads: Sequence[Outcome]) -> None:
        listed = {row.id for read in reads for row in read.sessions}

        def is_over(item: Record) -> bool:
            return any(
                read.is_proven and read.window[:2] == item[:2] and (read.covers(item) or item[5] in listed)
                for read in reads
            )

        self.rejected = [item for item in self.rejected if not is_over(item)]
        for read in reads:
            self.rejected += [(*read.window, id_, read.at) for id_ in read.unreadable]
            self.rejected += [(*_day_window(read.window, row), row.id, read.at) for row in read.unstorable]

    def _update_failures(self, run_id: int, outcomes: Sequence[Outcome]) -> None:
        proven = [each for each in outcomes if each.is_proven]
        failed = [each for each in outcomes if not each.is_proven]
        self.failures = [row for row in self.failures if not any(each.covers(row[1:6]) for each in proven)]
        new = []
        for each in failed:
            user, vehicle, first, last, include_hidden = each.window
            replaced = [row for row in self.failures if each.covers(row[1:6], within_days=0)]
            first, last = min([first, *(row[3] for row in replaced)]), max([last, *(row[4] for row in replaced)])
            since = [row[6] for row in self.failures if each.covers(row[1:6], within_days=1)]
            new.append((run_id, user, vehicle, first, last, include_hidden, min([*since, each.at]), each.at))
        self.failures = [
            row for row in self.failures if not any(each.covers(row[1:6], within_days=0) for each in failed)
        ]
        self.failures += new


def _day_window(window: Record, row: Listed) -> Record:
    """Return the window of a rejected session: its day, if the read has this day."""
    user, vehicle, first, last, include_hidden = window
    day = row.plug_in_time.date()
    return (user, vehicle, day, day, include_hidden) if first <= day <= last else window
