"""The invariants of a store after each run, checked against the truth and the committed reads.

The promise has a limit: a settled day is not read again. So a session that is hidden, shown again, corrected, withdrawn,
returned or moved after its day was settled is stored as the settling read showed it, until a run has another reason to read
the day. The same is true of a session that was neither listed nor shown by `/current` while its day was settled: it was
plugged in for over `settle_days`, and listed hours later, or that night's list was empty by a fault. `Session.surprised_at`
has the times of these changes; nothing else is excused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import attrs

from podero_async import VehicleRef
from podero_async.backfill import BackfillReport, SessionStore
from tests.year.recorder import CONTENT, Content, Known, Read, Recorder
from tests.year.world import DAY, World

Pair = VehicleRef
_ROWS = f"""
SELECT id, user_id, vehicle_id, {", ".join(CONTENT)}, first_seen_at, changed_at, absent_at, withdrawn_at FROM sessions
"""
_FAILED = "SELECT user_id, vehicle_id, from_date, to_date FROM failures WHERE vehicle_id IS NOT NULL"
_SPANS = "SELECT user_id, vehicle_id, include_hidden, from_date, to_date, is_settled, read_at FROM coverage"


_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@attrs.frozen
class Row:
    """A stored session."""

    id: str
    user_id: UUID
    vehicle_id: UUID
    content: Content
    first_seen_at: datetime
    changed_at: datetime
    absent_at: datetime | None
    withdrawn_at: datetime | None

    @property
    def day(self) -> date:
        day: date = self.content[0].date()
        return day

    @property
    def is_hidden(self) -> bool:
        return bool(self.content[5])

    @property
    def visible(self) -> tuple[Any, ...]:
        """The columns that a reader by `changed_at` sees."""
        return (self.user_id, self.vehicle_id, self.content, self.first_seen_at, self.changed_at, self.withdrawn_at)


@attrs.frozen
class Span:
    """A row of the coverage."""

    pair: Pair
    include_hidden: bool
    first: date
    last: date
    is_settled: bool
    read_at: datetime

    def days(self) -> Iterator[date]:
        return (self.first + number * DAY for number in range((self.last - self.first).days + 1))


Day = tuple[Pair, bool, date]
"""A pair, whether hidden sessions are included, and a day."""


@attrs.define
class Snapshot:
    """The tables of a store at one moment."""

    rows: list[Row]
    spans: list[Span]
    failed: dict[Pair, list[tuple[date, date]]] = attrs.field(factory=dict)
    """The days of each vehicle whose last read failed."""
    by_id: dict[str, Row] = attrs.field(init=False)
    is_settled: dict[Day, bool] = attrs.field(init=False)
    read_at: dict[Day, datetime] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.by_id = {row.id: row for row in self.rows}
        self.is_settled, self.read_at = {}, {}
        for span in self.spans:
            for day in span.days():
                key = (span.pair, span.include_hidden, day)
                assert key not in self.is_settled, f"spans of {span.pair} overlap on {day}"
                self.is_settled[key], self.read_at[key] = span.is_settled, span.read_at

    def count_days(
        self, pairs: Iterable[Pair], first: date, last: date, *, include_hidden: bool
    ) -> dict[str, list[tuple[Pair, date]]]:
        """Return the vehicle-days of a window by state."""
        found: dict[str, list[tuple[Pair, date]]] = {"settled": [], "provisional": [], "missing": []}
        for pair in pairs:
            for number in range((last - first).days + 1):
                day = first + number * DAY
                keys = [(pair, flag, day) for flag in ((True,) if include_hidden else (True, False))]
                states = {self.is_settled[key] for key in keys if key in self.is_settled}
                found["settled" if True in states else "provisional" if states else "missing"].append((pair, day))
        return found

    @classmethod
    async def of(cls, store: SessionStore) -> Snapshot:
        rows, spans, failed = [await store.query(sql) for sql in (_ROWS, _SPANS, _FAILED)]
        days: dict[Pair, list[tuple[date, date]]] = defaultdict(list)
        for each in failed:
            days[VehicleRef(user_id=each["user_id"], vehicle_id=each["vehicle_id"])].append(
                (each["from_date"], each["to_date"])
            )
        return cls(list(map(_row, rows)), list(map(_span, spans)), days)


def _row(row: dict[str, Any]) -> Row:
    return Row(
        str(row["id"]),
        UUID(str(row["user_id"])),
        UUID(str(row["vehicle_id"])),
        tuple(row[name] for name in CONTENT),
        *(row[name] for name in ("first_seen_at", "changed_at", "absent_at", "withdrawn_at")),
    )


def _span(row: dict[str, Any]) -> Span:
    pair = VehicleRef(user_id=row["user_id"], vehicle_id=row["vehicle_id"])
    return Span(pair, row["include_hidden"], row["from_date"], row["to_date"], row["is_settled"], row["read_at"])


@attrs.define
class Replica:
    """A consumer that knows the table only by `changed_at`, and reads it at any time."""

    rows: dict[str, Row] = attrs.field(factory=dict)
    watermark: datetime = _LONG_AGO

    async def catch_up(self, store: SessionStore) -> None:
        for each in await store.query(f"{_ROWS} WHERE changed_at > ?", [self.watermark]):
            row = _row(each)
            self.rows[row.id] = row
        self.watermark = max([self.watermark, *(row.changed_at for row in self.rows.values())])


@attrs.define
class Checker:
    """Checks one store, run after run."""

    world: World
    recorder: Recorder
    settle_days: int
    replica: Replica = attrs.field(factory=Replica)
    before: Snapshot = attrs.field(factory=lambda: Snapshot([], []))
    figures: Counter[str] = attrs.field(factory=Counter)
    settled_since: dict[Day, datetime] = attrs.field(factory=dict)

    async def check(self, store: SessionStore, roster: set[Pair] | None) -> None:
        """Check the store after a run; `roster` has the vehicles of the run, None if it ended before it knew them."""
        now = await Snapshot.of(store)
        settled = {key for key, is_settled in now.is_settled.items() if is_settled}
        self.settled_since = {key: self.settled_since.get(key, self.world.now) for key in settled}
        self._check_sessions(now, roster)
        self._check_withdrawn(now, roster)
        self._check_absent(now)
        self._check_coverage(now)
        self._check_newly_settled(now)
        self._check_settled(now)
        await self.replica.catch_up(store)
        copied = {row_id: row.visible for row_id, row in self.replica.rows.items()}
        stored = {row_id: row.visible for row_id, row in now.by_id.items()}
        differing = [row_id for row_id in stored.keys() | copied.keys() if stored.get(row_id) != copied.get(row_id)]
        assert not differing, f"changed_at does not tell of {differing}: {[now.by_id.get(each) for each in differing]}"
        self.before = now

    # --- the table of sessions ---

    def _check_sessions(self, now: Snapshot, roster: set[Pair] | None) -> None:
        """The store has each session that a committed read returned, once, as the newest read of it returned it."""
        doubled = [row_id for row_id, count in Counter(row.id for row in now.rows).items() if count > 1]
        assert not doubled, f"stored twice: {doubled}"
        known = self.recorder.known
        assert now.by_id.keys() == known.keys(), (
            f"lost: {sorted(known.keys() - now.by_id.keys())}, invented: {sorted(now.by_id.keys() - known.keys())}"
        )
        for row in now.rows:
            each = known[row.id]
            shown = [content for pair, content in each.candidates if pair.vehicle_id == row.vehicle_id]
            assert row.content in shown, f"{row} is stored, but was read as {each.candidates}"
            assert row.user_id in each.users, f"{row} was never shown under this user"
            self._check_user(row, each, roster)

    def _check_user(self, row: Row, known: Known, roster: set[Pair] | None) -> None:
        """A session follows its vehicle to another user if a run reads it there, and no longer lists the old pair."""
        if (
            roster is None
            or known.run != self.recorder.run
            or row.user_id in {pair.user_id for pair, _ in known.candidates}
        ):
            return
        own = VehicleRef(user_id=row.user_id, vehicle_id=row.vehicle_id)
        assert own in roster, f"{row} was read under {known.candidates}, and its own user no longer has the vehicle"

    def _check_withdrawn(self, now: Snapshot, roster: set[Pair] | None) -> None:
        """A session is withdrawn only if two proven reads in a row of its day did not return it; no later read did."""
        for row in now.rows:
            if row.withdrawn_at is None:
                continue
            absences = self.recorder.known[row.id].absences
            assert len(absences) >= 2, f"{row} is withdrawn after {len(absences)} proven reads without it"
            was = self.before.by_id.get(row.id)
            if was is not None and was.withdrawn_at is not None:
                continue
            self.figures["rows withdrawn"] += 1
            confirmed = [read for read in absences if read.run == self.recorder.run and read.is_confirming]
            assert confirmed, f"{row} was withdrawn without a second read in this run"
            pairs = {pair for pair in roster or () if pair.vehicle_id == row.vehicle_id}
            unread = pairs - {read.pair for read in absences if read.run == self.recorder.run}
            assert not unread, f"{row} is withdrawn, though {unread} was not read"
            for read in confirmed:
                assert row.id not in read.shown.ids, f"{row} is withdrawn, though the API shows it to {read.pair}"

    def _check_absent(self, now: Snapshot) -> None:
        """A live session that the newest proven read of its day did not return is marked, and its day is not settled."""
        for row in now.rows:
            pair = VehicleRef(user_id=row.user_id, vehicle_id=row.vehicle_id)
            known = self.recorder.known[row.id]
            missed = [read for read in known.absences if read.pair == pair]
            if not missed and row.absent_at is not None:
                assert known.absences, f"{row} is marked absent, though every read returned it"
            if not missed or row.withdrawn_at is not None:
                continue
            assert row.absent_at is not None, f"{row} is not marked, though {missed[-1]} did not return it"
            assert not now.is_settled.get((pair, missed[-1].include_hidden, row.day)), (
                f"{row.day} of {pair} is settled, though {row} is absent from it"
            )

    # --- coverage ---

    def _check_coverage(self, now: Snapshot) -> None:
        """The days with a state are those of committed proven reads, and no recorded time is later than the read."""
        for (pair, flag, day), read_at in now.read_at.items():
            read = self.recorder.last_proven[pair, flag].get(day)
            assert read is not None, f"{day} of {pair} was never read, but has a state"
            latest = read.shown.at + timedelta(minutes=10)
            assert read_at <= latest, f"{day} of {pair} has the time {read_at}, but was read at {read.shown.at}"
        for (pair, flag), days in self.recorder.last_proven.items():
            for day in days:
                assert (pair, flag, day) in now.is_settled, f"{day} of {pair} was read, but is missing"

    def _check_newly_settled(self, now: Snapshot) -> None:
        """A day is settled only by a late enough read, while no session of this or an earlier day was in progress."""
        reads: dict[tuple[Pair, bool], list[Read]] = defaultdict(list)
        for read in self.recorder.reads:
            if read.is_proven:
                reads[read.pair, read.include_hidden].append(read)
        for key, is_settled in now.is_settled.items():
            if not is_settled or self.before.is_settled.get(key):
                continue
            self.figures["days settled"] += 1
            pair, flag, day = key
            own = [read for read in reads[pair, flag] if read.covers(day)]
            assert any(self._may_settle(read, day) for read in own), f"{day} of {pair} was settled too early: {own}"

    def _may_settle(self, read: Read, day: date) -> bool:
        ended = datetime.combine(day + DAY, datetime.min.time(), read.shown.at.tzinfo)
        is_old = read.shown.at + timedelta(seconds=2) >= ended + timedelta(days=self.settle_days)
        is_calm = read.shown.open_day is None or read.shown.open_day > day
        return is_old and is_calm and not read.shows_open(day)

    def _check_settled(self, now: Snapshot) -> None:
        """Every session that the API shows on a settled day is stored, unless it came there only after the last read."""
        for session in self.world.sessions.values():
            if not session.is_listed:
                continue
            is_hidden = bool(session.row["is_hidden"])
            for pair in session.car.pairs:
                for flag in (True,) if is_hidden else (True, False):
                    if not now.is_settled.get((pair, flag, session.day)):
                        continue
                    self.figures["sessions on settled days"] += 1
                    read = self.recorder.last_proof(pair, session.day, include_hidden=flag)
                    assert read is not None
                    self._check_held(session.id, read, self.settled_since[pair, flag, session.day], now)

    def _check_held(self, session_id: str, read: Read, settled_at: datetime, now: Snapshot) -> None:
        session, row = self.world.sessions[session_id], now.by_id.get(session_id)
        if (
            row is not None
            and row.withdrawn_at is None
            and (row.vehicle_id, row.day) == (read.pair.vehicle_id, session.day)
        ):
            return
        if row is not None and row.absent_at is not None:
            self.figures["sessions in doubt on settled days"] += 1
            return  # the next run looks for it on all days
        if session_id in read.sessions:
            return  # `_check_sessions` and `_check_withdrawn` know what became of it
        # If a settled day is read again for another reason, in a night in which its list is empty, it stays settled.
        since = settled_at if read.shown.is_blank else read.shown.at
        if any(at > since for at, _ in session.surprised_at):
            self.figures["sessions that came to a settled day"] += 1
            return
        if session.is_long and read.shown.is_blank:
            self.figures["a list was empty when a day settled after weeks"] += 1
            return
        raise AssertionError(
            f"{session.day} is settled, but session {session_id} is not stored as the API shows it: {session.row};"
            f" stored: {row}; changes: {session.surprised_at}; last read: {read}"
        )

    # --- the report ---

    def check_report(self, report: BackfillReport, now: Snapshot, pairs: set[Pair], *, is_clock_right: bool) -> None:
        """The report counts the days of its vehicles as the coverage has them, and is clean only if none is missing.

        If the local clock is wrong, a run may ask for days that have not begun, or find that days had not begun at a read.
        """
        found = now.count_days(pairs, report.from_date, report.to_date, include_hidden=report.include_hidden)
        counts = {name: getattr(report, name) for name in ("settled", "provisional", "missing")}
        assert counts == {name: len(found[name]) for name in counts}, f"the report says {counts}, the coverage {found}"
        # A vehicle that has failed for days does not make every run fail.
        missing = [(pair, day) for pair, day in found["missing"] if pair not in now.failed]
        assert not (report.is_clean and is_clock_right and missing), f"clean, but these days are missing: {missing}"

    async def check_days(self, store: SessionStore, first: date, at: datetime) -> None:
        """The store counts the days of its vehicles as the coverage has them, and leaves out those that have gone."""
        listed = await store.query("SELECT user_id, vehicle_id, gone_since IS NOT NULL AS is_gone FROM vehicles")
        gone = {VehicleRef(user_id=each["user_id"], vehicle_id=each["vehicle_id"]): each["is_gone"] for each in listed}
        known = {pair for pair, _, _ in self.before.is_settled} | gone.keys()
        present = [pair for pair in known if not gone.get(pair)]
        for flag in (False, True):
            counts = await store.days(first, at.date(), include_hidden=flag, now=lambda: at)
            found = self.before.count_days(present, first, at.date(), include_hidden=flag)
            assert attrs.asdict(counts) == {name: len(found[name]) for name in attrs.asdict(counts)}

    # --- the end ---

    def check_converged(self, now: Snapshot, pairs: set[Pair], today: date) -> None:
        """After calm nights, provisional days are as the API shows them, and every day is settled that can be."""
        for pair in pairs:
            open_day = self.world.first_open_day(pair)
            for each, flag, day in now.is_settled:
                if each != pair or now.is_settled[each, flag, day] or day > today:
                    continue
                read = self.recorder.last_proof(pair, day, include_hidden=flag)
                assert read is not None
                self._check_shown(now, pair, day, include_hidden=read.include_hidden)
                is_overdue = (today - day).days > self.settle_days + 8
                # Without a session in the list, the last day before the current session settles after its end.
                is_before = open_day is None or open_day > day + (DAY if not read.sessions else timedelta())
                may_settle = is_before and not read.shows_open(day)
                is_settled_too = now.is_settled.get((pair, not flag, day), False)  # so no run reads it again
                assert not (is_overdue and may_settle) or is_settled_too, f"{day} of {pair} does not settle: {read}"
        vehicles = {pair.vehicle_id for pair in pairs}
        absent = [row for row in now.rows if row.absent_at is not None and row.vehicle_id in vehicles]
        assert not absent, f"calm nights decided nothing about {absent}"

    def _check_shown(self, now: Snapshot, pair: Pair, day: date, *, include_hidden: bool) -> None:
        truth = {row["id"] for row in self.world.sim.truth(pair, day, day, include_hidden=include_hidden)}
        stored = {
            row.id
            for row in now.rows
            if row.vehicle_id == pair.vehicle_id
            and row.day == day
            and row.withdrawn_at is None
            and (include_hidden or not row.is_hidden)
        }
        assert stored == truth, f"{day} of {pair}: stored {sorted(stored)}, the API shows {sorted(truth)}"
