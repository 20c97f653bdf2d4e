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
from functools import cached_property
from typing import Any
from uuid import UUID

import attrs

from podero_async import VehicleRef
from podero_async.backfill import BackfillReport, SessionStore
from tests.year.recorder import CONTENT, Content, Known, Read, Recorder
from tests.year.world import DAY, Car, Session, World

Pair = VehicleRef
_COLUMNS = f"user_id, vehicle_id, {', '.join(CONTENT)}, first_seen_at, changed_at, absent_at, withdrawn_at"
_ROWS = f"SELECT id, {_COLUMNS} FROM sessions"
_HASHES = f"SELECT id, hash({_COLUMNS}) AS hash FROM sessions"
_FAILED = "SELECT user_id, vehicle_id, from_date, to_date FROM failures WHERE vehicle_id IS NOT NULL"
_LISTED = "SELECT user_id, vehicle_id, gone_since IS NOT NULL AS is_gone FROM vehicles WHERE last_seen_at IS NOT NULL"
_SPANS = (
    "SELECT user_id, vehicle_id, include_hidden, from_date, to_date, is_settled, read_at FROM coverage ORDER BY ALL"
)


_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_LATENESS = timedelta(minutes=10)


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
    def pair(self) -> Pair:
        return VehicleRef(user_id=self.user_id, vehicle_id=self.vehicle_id)

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


Key = tuple[Pair, bool]
"""A pair, and whether hidden sessions are included."""
Days = dict[date, Span]
"""The days with a state, each with its span."""


@attrs.define
class Snapshot:
    """The tables of a store at one moment. It shares unchanged objects with the snapshot before."""

    rows: dict[str, Row] = attrs.field(factory=dict)
    hashes: dict[str, int] = attrs.field(factory=dict)
    doubled: list[str] = attrs.field(factory=list)
    """The ids that are stored more than once."""
    spans: dict[Key, list[Span]] = attrs.field(factory=dict)
    days: dict[Key, Days] = attrs.field(factory=dict)
    failed: dict[Pair, list[tuple[date, date]]] = attrs.field(factory=dict)
    """The days of each vehicle whose last read failed."""
    gone: dict[Pair, bool] = attrs.field(factory=dict)
    """The vehicles that were ever listed, and whether they have gone."""

    @cached_property
    def live(self) -> dict[tuple[UUID, date], list[Row]]:
        """The rows that are not withdrawn, by their vehicle and day."""
        found: dict[tuple[UUID, date], list[Row]] = defaultdict(list)
        for row in self.rows.values():
            if row.withdrawn_at is None:
                found[row.vehicle_id, row.day].append(row)
        return found

    def days_of(self, pair: Pair, *, include_hidden: bool) -> list[Days]:
        """Return the days that count for a call, with and without hidden sessions."""
        flags = (True,) if include_hidden else (True, False)
        return [days for flag in flags if (days := self.days.get((pair, flag)))]

    def count_days(
        self, pairs: Iterable[Pair], first: date, last: date, *, include_hidden: bool
    ) -> dict[str, list[tuple[Pair, date]]]:
        """Return the vehicle-days of a window by state."""
        found: dict[str, list[tuple[Pair, date]]] = {"settled": [], "provisional": [], "missing": []}
        window = [first + number * DAY for number in range((last - first).days + 1)]
        for pair in pairs:
            known = self.days_of(pair, include_hidden=include_hidden)
            for day in window:
                spans = [days[day] for days in known if day in days]
                is_settled = any(span.is_settled for span in spans)
                found["settled" if is_settled else "provisional" if spans else "missing"].append((pair, day))
        return found

    @classmethod
    async def of(cls, store: SessionStore, before: Snapshot | None = None) -> Snapshot:
        before, now = before or cls(), cls()
        hashes = await store.query(_HASHES)
        now.hashes = {row["id"]: row["hash"] for row in hashes}
        now.doubled = [row_id for row_id, count in Counter(row["id"] for row in hashes).items() if count > 1]
        changed = [row_id for row_id, digest in now.hashes.items() if before.hashes.get(row_id) != digest]
        rows = await store.query(f"{_ROWS} WHERE id IN (SELECT unnest(?::UUID[]))", [changed]) if changed else []
        kept = {row_id: row for row_id, row in before.rows.items() if row_id in now.hashes}
        now.rows = kept | {row.id: row for row in map(_row, rows)}
        for span in map(_span, await store.query(_SPANS)):
            now.spans.setdefault((span.pair, span.include_hidden), []).append(span)
        for key, spans in now.spans.items():
            now.days[key] = before.days[key] if before.spans.get(key) == spans else _days(spans)
        for each in await store.query(_FAILED):
            pair = VehicleRef(user_id=each["user_id"], vehicle_id=each["vehicle_id"])
            now.failed.setdefault(pair, []).append((each["from_date"], each["to_date"]))
        listed = await store.query(_LISTED)
        now.gone = {
            VehicleRef(user_id=each["user_id"], vehicle_id=each["vehicle_id"]): each["is_gone"] for each in listed
        }
        return now


def _days(spans: list[Span]) -> Days:
    found: Days = {}
    for span in spans:
        for day in span.days():
            assert day not in found, f"spans of {span.pair} overlap on {day}"
            found[day] = span
    return found


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
        for row in map(_row, await store.query(f"{_ROWS} WHERE changed_at > ?", [self.watermark])):
            self.rows[row.id] = row
            self.watermark = max(self.watermark, row.changed_at)

    def check(self, now: Snapshot) -> None:
        """The consumer has the rows of a snapshot."""
        copied = self.rows
        differing = [
            row_id for row_id in now.rows.keys() | copied.keys() if not _equal(now.rows.get(row_id), copied.get(row_id))
        ]
        assert not differing, f"changed_at does not tell of {differing}: {[now.rows.get(each) for each in differing]}"
        self.rows = dict(now.rows)  # the same objects, which compare fast


def _equal(row: Row | None, other: Row | None) -> bool:
    return row is other or (row is not None and other is not None and row.visible == other.visible)


@attrs.define
class Checker:
    """Checks one store, run after run."""

    world: World
    recorder: Recorder
    settle_days: int
    replica: Replica = attrs.field(factory=Replica)
    before: Snapshot = attrs.field(factory=Snapshot)
    figures: Counter[str] = attrs.field(factory=Counter)
    settled_since: dict[Key, dict[date, datetime]] = attrs.field(factory=dict)

    async def check(self, store: SessionStore, roster: set[Pair] | None) -> None:
        """Check the store after a run; `roster` has the vehicles of the run, None if it ended before it knew them.

        A row is checked again if it has changed, or if a read of the run has shown it; days are if their spans have changed.
        """
        now = await Snapshot.of(store, self.before)
        known, before = self.recorder.known, self.before.rows
        self._check_ids(now)
        touched = [
            row
            for row_id, row in now.rows.items()
            if known[row_id].run == self.recorder.run or before.get(row_id) is not row
        ]
        # Vehicles that vanish are listed for the store until it records them as gone, which it does not if they are many.
        present = roster and roster | {pair for pair, is_gone in now.gone.items() if not is_gone}
        self._check_sessions(touched, present)
        self._check_withdrawn(touched, roster)
        self._check_absent(now)
        self._check_coverage(now)
        self._check_newly_settled(now)
        self._note_settled(now)
        self._check_settled(now)
        await self.replica.catch_up(store)
        self.replica.check(now)
        self.before = now

    def _note_settled(self, now: Snapshot) -> None:
        since: dict[Key, dict[date, datetime]] = {}
        for key, days in now.days.items():
            before = self.settled_since.get(key, {})
            is_same = self.before.days.get(key) is days
            since[key] = (
                before
                if is_same
                else {day: before.get(day, self.world.now) for day, span in days.items() if span.is_settled}
            )
        self.settled_since = since

    # --- the table of sessions ---

    def _check_ids(self, now: Snapshot) -> None:
        """The store has each session that a committed read returned, once."""
        assert not now.doubled, f"stored twice: {now.doubled}"
        stored, known = now.rows.keys(), self.recorder.known.keys()
        assert stored == known, f"lost: {sorted(known - stored)}, invented: {sorted(stored - known)}"

    def _check_sessions(self, rows: list[Row], present: set[Pair] | None) -> None:
        """A session is stored as the newest read of it returned it."""
        for row in rows:
            each = self.recorder.known[row.id]
            shown = [content for pair, content in each.candidates if pair.vehicle_id == row.vehicle_id]
            assert row.content in shown, f"{row} is stored, but was read as {each.candidates}"
            assert row.user_id in each.users, f"{row} was never shown under this user"
            self._check_user(row, each, present)

    def _check_user(self, row: Row, known: Known, present: set[Pair] | None) -> None:
        """A session follows its vehicle to another user if a run reads it there and the old user no longer lists it."""
        if (
            present is None
            or known.run != self.recorder.run
            or row.user_id in {pair.user_id for pair, _ in known.candidates}
        ):
            return
        assert row.pair in present, (
            f"{row} was read under {known.candidates}, and its own user no longer has the vehicle"
        )

    def _check_withdrawn(self, rows: list[Row], roster: set[Pair] | None) -> None:
        """A session is withdrawn only if two proven reads in a row of its day did not return it; no later read did."""
        for row in rows:
            if row.withdrawn_at is None:
                continue
            absences = self.recorder.known[row.id].absences
            assert len(absences) >= 2, f"{row} is withdrawn after {len(absences)} proven reads without it"
            was = self.before.rows.get(row.id)
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
        for row in now.rows.values():
            known = self.recorder.known[row.id]
            if not known.absences and row.absent_at is None:
                continue
            pair = row.pair
            missed = [read for read in known.absences if read.pair == pair]
            if not missed and row.absent_at is not None:
                assert known.absences, f"{row} is marked absent, though every read returned it"
            if not missed or row.withdrawn_at is not None or known.excused == len(known.absences):
                continue
            assert row.absent_at is not None, f"{row} is not marked, though {missed[-1]} did not return it"
            span = now.days.get((pair, missed[-1].include_hidden), {}).get(row.day)
            assert span is None or not span.is_settled, (
                f"{row.day} of {pair} is settled, though {row} is absent from it"
            )

    # --- coverage ---

    def _check_coverage(self, now: Snapshot) -> None:
        """The days with a state are those of committed proven reads, and no recorded time is later than the read."""
        read_now = {(read.pair, read.include_hidden) for read in self.recorder.reads}
        for key, days in now.days.items():
            if self.before.days.get(key) is days and key not in read_now:
                continue
            reads, pair = self.recorder.last_proven[key], key[0]
            for day, span in days.items():
                read = reads.get(day)
                if read is None and not span.is_settled and self.recorder.has_other_proof(pair, day):
                    continue  # the vehicle has moved: its days are to be read again under its present user
                assert read is not None, f"{day} of {pair} was never read, but has a state"
                latest = read.shown.at + _LATENESS
                assert span.read_at <= latest, (
                    f"{day} of {pair} has the time {span.read_at}, but was read at {read.shown.at}"
                )
        for key, reads in self.recorder.last_proven.items():
            missing = reads.keys() - now.days.get(key, {}).keys()
            assert not missing, f"{sorted(missing)} of {key[0]} were read, but are missing"

    def _check_newly_settled(self, now: Snapshot) -> None:
        """A day is settled only by a late enough read, while no session of this or an earlier day was in progress."""
        reads: dict[Key, list[Read]] = defaultdict(list)
        for read in self.recorder.reads:
            if read.is_proven:
                reads[read.pair, read.include_hidden].append(read)
        for key, days in now.days.items():
            before = self.before.days.get(key, {})
            for day, span in days.items() if before is not days else ():
                if not span.is_settled or (day in before and before[day].is_settled):
                    continue
                self.figures["days settled"] += 1
                own = [read for read in reads[key] if read.covers(day)]
                assert any(self._may_settle(read, day) for read in own), (
                    f"{day} of {key[0]} was settled too early: {own}"
                )

    def _may_settle(self, read: Read, day: date) -> bool:
        ended = datetime.combine(day + DAY, datetime.min.time(), read.shown.at.tzinfo)
        is_old = read.shown.at + timedelta(seconds=2) >= ended + timedelta(days=self.settle_days)
        is_calm = read.shown.open_day is None or read.shown.open_day > day
        return is_old and is_calm and not read.shows_open(day)

    def _check_settled(self, now: Snapshot) -> None:
        """Every session that the API shows on a settled day is stored, unless it came there only after the last read."""
        cars: dict[Car, list[Session]] = defaultdict(list)
        for session in self.world.sessions.values():
            if session.is_listed:
                cars[session.car].append(session)
        for car, sessions in cars.items():
            for key in [(pair, flag) for pair in car.pairs for flag in (True, False)]:
                days = now.days.get(key, {})
                for session in sessions:
                    span = days.get(session.day)
                    if span is not None and span.is_settled and (span.include_hidden or not session.row["is_hidden"]):
                        self.figures["sessions on settled days"] += 1
                        self._check_held(session, span, now)

    def _check_held(self, session: Session, span: Span, now: Snapshot) -> None:
        row, pair, session_id = now.rows.get(session.id), span.pair, session.id
        if (
            row is not None
            and row.withdrawn_at is None
            and row.vehicle_id == pair.vehicle_id
            and row.day == session.day
        ):
            return
        read = self.recorder.last_proof(pair, session.day, include_hidden=span.include_hidden)
        assert read is not None
        settled_at = self.settled_since[pair, span.include_hidden][session.day]
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
        # The store believes an empty list if an earlier read of the day returned no session of it either. That read may have
        # been empty by a fault, too, or made before the API showed the session on this day.
        if read.shown.is_blank and self.recorder.proven_reads[pair][session.day] > 1:
            self.figures["days settled by a list that was empty by mistake"] += 1
            return
        raise AssertionError(
            f"{session.day} is settled, but session {session_id} is not stored as the API shows it: {session.row};"
            f" stored: {row}; changes: {session.surprised_at}; last read: {read}"
        )

    # --- the report ---

    def check_report(self, report: BackfillReport, now: Snapshot, pairs: set[Pair], started: datetime) -> None:
        """The report counts the days of its vehicles as the coverage has them, and is clean only if none is missing."""
        last_begun = (started - timedelta(minutes=10)).astimezone(UTC).date()  # by a server's clock that is behind
        found = now.count_days(pairs, report.from_date, report.to_date, include_hidden=report.include_hidden)
        counts = {name: getattr(report, name) for name in ("settled", "provisional", "missing")}
        assert counts == {name: len(found[name]) for name in counts}, f"the report says {counts}, the coverage {found}"
        # A vehicle that has failed for days does not make every run fail.
        missing = [(pair, day) for pair, day in found["missing"] if pair not in now.failed and day <= last_begun]
        assert not (report.is_clean and missing), f"clean, but these days are missing: {missing}"

    async def check_days(self, store: SessionStore, first: date, at: datetime) -> None:
        """The store counts the days of its vehicles as the coverage has them, and leaves out those that have gone."""
        gone = self.before.gone
        present = [pair for pair in {pair for pair, _ in self.before.days} | gone.keys() if not gone.get(pair)]
        for flag in (False, True):
            counts = await store.days(first, at.date(), include_hidden=flag, now=lambda: at)
            found = self.before.count_days(present, first, at.date(), include_hidden=flag)
            assert attrs.asdict(counts) == {name: len(found[name]) for name in attrs.asdict(counts)}

    # --- the end ---

    def check_converged(self, now: Snapshot, pairs: set[Pair], today: date) -> None:
        """After calm nights, provisional days are as the API shows them, and every day is settled that can be."""
        for pair in pairs:
            for flag in (True, False):
                self._check_provisional(now, pair, flag, today)
        listed = {pair for pair, is_gone in now.gone.items() if not is_gone}
        assert not now.gone or listed == pairs, (
            f"{listed ^ pairs} are listed, or are not, but the store has it otherwise"
        )
        absent = [row for row in now.rows.values() if row.absent_at is not None and row.pair in pairs]
        assert not absent, f"calm nights decided nothing about {absent}"

    def _check_provisional(self, now: Snapshot, pair: Pair, flag: bool, today: date) -> None:
        open_day = self.world.first_open_day(pair)
        settled_too = now.days.get((pair, not flag), {})
        for day, span in now.days.get((pair, flag), {}).items():
            if span.is_settled or day > today:
                continue
            read = self.recorder.last_proof(pair, day, include_hidden=flag)
            assert read is not None
            # A day that was settled with hidden sessions is read no more, though it stays provisional without them.
            is_settled_too = day in settled_too and settled_too[day].is_settled
            if flag or not is_settled_too:
                self._check_shown(now, pair, day, include_hidden=read.include_hidden)
            is_overdue = (today - day).days > self.settle_days + 8
            # Without a session in the list, the last day before the current session settles after its end.
            is_before = open_day is None or open_day > day + (DAY if not read.sessions else timedelta())
            # A confirming read settles no day, nor does the first empty one; old days are read again after a week.
            waits = (read.is_confirming or not read.sessions) and today - read.at.date() <= timedelta(days=8)
            may_settle = is_before and not read.shows_open(day) and not waits
            assert not (is_overdue and may_settle) or is_settled_too, f"{day} of {pair} does not settle: {read}"

    def _check_shown(self, now: Snapshot, pair: Pair, day: date, *, include_hidden: bool) -> None:
        truth = {row["id"] for row in self.world.sim.truth(pair, day, day, include_hidden=include_hidden)}
        rows = now.live.get((pair.vehicle_id, day), ())
        stored = {row.id for row in rows if include_hidden or not row.is_hidden}
        # What the API has removed before it moved the vehicle to another user stays with the old user.
        kept = {row.id for row in rows if row.pair not in self.world.listed_pairs}
        self.figures["sessions kept with an old user"] += len(kept - truth)
        assert stored - kept == truth, f"{day} of {pair}: stored {sorted(stored)}, the API shows {sorted(truth)}"
