"""What a store must hold after batches of outcomes, in plain dicts."""

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
    """A session as the server shows it."""

    id: UUID
    user_id: UUID
    vehicle_id: UUID
    plug_in_time: datetime
    energy_kwh: float
    is_hidden: bool

    def is_in(self, task: WorkItem) -> bool:
        window = task.window
        return (
            self.vehicle_id == task.vehicle.vehicle_id
            and window.from_date <= self.plug_in_time.date() <= window.to_date
            and (window.include_hidden or not self.is_hidden)
        )


@attrs.frozen
class Outcome:
    """How the read of a window ended."""

    task: WorkItem
    at: datetime
    completeness: Completeness | None
    """None where it failed."""
    sessions: Sequence[Listed] = ()
    unstorable: Sequence[Listed] = ()
    """What has a value that no column holds."""
    unreadable: Sequence[UUID | None] = ()
    """Rows that could not be read, by id; None where that could not be read either."""

    @property
    def is_proven(self) -> bool:
        return self.completeness not in {None, Completeness.UNPROVEN}

    @property
    def rejected(self) -> list[UUID | None]:
        return [*self.unreadable, *(row.id for row in self.unstorable)]

    @property
    def window(self) -> Record:
        window = self.task.window
        vehicle = self.task.vehicle
        return (vehicle.user_id, vehicle.vehicle_id, window.from_date, window.to_date, window.include_hidden)

    def covers(self, window: Record) -> bool:
        """Say whether its window is of the same vehicle, and holds all days of another."""
        user, vehicle, first, last, _ = self.window
        return (user, vehicle) == window[:2] and first <= window[2] and last >= window[3]


@attrs.define
class Held:
    """A session as the store must hold it."""

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
    """The four tables that batches write."""

    complete_until: date
    sessions: dict[UUID, Held] = attrs.field(factory=dict)
    receipts: list[Record] = attrs.field(factory=list)
    failures: list[Record] = attrs.field(factory=list)
    rejected: list[Record] = attrs.field(factory=list)
    moves: Counter[UUID] = attrs.field(factory=Counter)
    """How often sessions came from another vehicle since a run was finished: until the next is, they may stand twice."""

    def write(self, run_id: int, outcomes: Iterable[Outcome]) -> Written:
        """Take a batch, and return what changed."""
        outcomes = list(outcomes)
        reads = [outcome for outcome in outcomes if outcome.completeness]
        counts = Counter(self._take(row, read.at) for read in reads for row in read.sessions)
        withdrawn = self._withdraw(reads)
        for read in reads:
            self._note_receipt(run_id, read)
        self._note_rejected(reads)
        self._note_failures(run_id, outcomes)
        rejected = sum(len(read.rejected) for read in reads)
        return Written(counts["new"], counts["changed"], counts["unchanged"], withdrawn, rejected)

    def finish_run(self) -> None:
        self.moves.clear()

    def _take(self, row: Listed, at: datetime) -> str:
        held = self.sessions.get(row.id)
        if held is None:
            self.sessions[row.id] = Held(row, at, at)
            return "new"
        if held.row.vehicle_id != row.vehicle_id:
            self.moves[row.id] += 1
        is_changed = held.row != row
        held.row, held.fetched_at, held.withdrawn_at = row, at, None
        if is_changed:
            held.changed_at = at
        return "changed" if is_changed else "unchanged"

    def _withdraw(self, reads: Sequence[Outcome]) -> int:
        """Note what is not listed any more; a row that could not be read still is, and without an id it may be any."""
        listed = {row.id for read in reads for row in read.sessions} | {id_ for read in reads for id_ in read.rejected}
        gone = [
            (held, read)
            for read in reads
            if read.is_proven and None not in read.rejected
            for held in self.sessions.values()
            if held.row.is_in(read.task) and held.withdrawn_at is None and held.row.id not in listed
        ]
        for held, read in gone:
            held.withdrawn_at = read.at
        return len(gone)

    def _note_receipt(self, run_id: int, read: Outcome) -> None:
        ids = sorted(str(row.id) for row in read.sessions)
        count = len(read.sessions)
        held_to = min(read.task.window.to_date, self.complete_until)
        assert read.completeness
        self.receipts.append(
            (
                run_id,
                read.task.number,
                *read.window,
                read.completeness.value,
                count + len(read.rejected),
                count,
                sha256("".join(ids).encode()).hexdigest()[:32],
                held_to if read.is_proven and not read.rejected and held_to >= read.task.window.from_date else None,
                read.at,
            )
        )

    def _note_rejected(self, reads: Sequence[Outcome]) -> None:
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

    def _note_failures(self, run_id: int, outcomes: Sequence[Outcome]) -> None:
        def is_over(failure: Record) -> bool:
            return any(each.covers(failure[1:]) and each.window[4] == failure[5] for each in outcomes)

        self.failures = [failure for failure in self.failures if not is_over(failure)]
        self.failures += [(run_id, *each.window, each.at) for each in outcomes if each.completeness is None]
