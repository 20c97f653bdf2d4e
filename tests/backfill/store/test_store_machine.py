"""A state machine that compares the store with a model in any order of reads, confirmations,
failures, kills, reopenings and clock jumps.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import attrs
import duckdb
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from podero_async import ChargingSession, Completeness, RejectedItem, SessionOutcome, VehicleRef
from podero_async._fleet.vehicle import FetchedSessions
from podero_async._paging.window import Window
from podero_async.backfill import SessionStore, StoreError
from podero_async.backfill._report import Written
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store.duckdb import DuckDBBackend, absence
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.backfill.store.duckdb.upsert import write_batch
from tests._support.fake_clock import Machine, run_machine
from tests._support.fetched import fetched, rows_of
from tests._support.follower import Follower
from tests._support.kill_process import Breaking
from tests._support.store_model import Listed, Outcome, Record, StoreModel
from tests._support.written_store import KNOWN

FIRST = date(2026, 6, 1)
DAYS = 4
ONE_DAY = timedelta(days=1)
USERS = [UUID(int=1), UUID(int=2)]
VEHICLES = [UUID(int=100), UUID(int=101), UUID(int=102)]
PAIRS = [
    VehicleRef(user_id=USERS[user], vehicle_id=VEHICLES[vehicle]) for user, vehicle in [(0, 0), (0, 1), (1, 1), (1, 2)]
]
"""Two users list vehicle 1."""
SESSIONS = [UUID(int=1000 + number) for number in range(8)]
_MOMENTS = [timedelta(0), timedelta(hours=12), timedelta(days=1) - timedelta(microseconds=1)]

_TABLES = {
    "sessions": "id, vehicle_id, plug_in_time, energy_charged_kwh, is_hidden, user_id,"
    " fetched_at, first_seen_at, changed_at, absent_at, withdrawn_at",
    "receipts": 'run_id, user_id, vehicle_id, from_date, to_date, include_hidden, completeness, total, "count", fetched_at',
    "failures": "run_id, user_id, vehicle_id, from_date, to_date, include_hidden, first_failed_at, failed_at",
    "rejected_items": "user_id, vehicle_id, from_date, to_date, include_hidden, session_id, fetched_at",
}
_COUNTS = "done, failed, unproven, sessions_new, sessions_changed, sessions_unchanged, sessions_withdrawn, rejected"


@attrs.frozen
class Plan:
    """How one window of a batch is read."""

    pair: int
    first: int = 0
    last: int = DAYS - 1
    include_hidden: bool = False
    completeness: Completeness = Completeness.VERIFIED
    fault: str = ""


_FAULTS = st.sampled_from(["", "", "", "fails", "torn", "unreadable", "without an id", "unstorable"])
_PLANS = st.lists(
    st.builds(
        Plan,
        pair=st.integers(0, len(PAIRS) - 1),
        first=st.sampled_from([0, 0, 1, 2]),
        last=st.sampled_from([DAYS - 1, DAYS - 1, 2]),
        include_hidden=st.booleans(),
        completeness=st.sampled_from(Completeness),
        fault=_FAULTS,
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda plan: plan.pair,
)


class _CutOffError(duckdb.IOException):
    """The disk or the process fails at a statement of a transaction."""


class StoreMachine(Machine):
    """Changes a small fleet and writes reads of it into a file, which a consumer follows."""

    empty: ClassVar[bytes] = b""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.files = 0
        self.store = SessionStore(self._next_path())
        if not self.empty:
            self.runner.run(self.store.__aenter__())
            self.runner.run(self.store.aclose())
            type(self).empty = Path(self.store.path).read_bytes()
        Path(self.store.path).write_bytes(self.empty)
        self.now = datetime(2026, 6, 4, tzinfo=UTC)
        self.fleet: dict[UUID, Listed] = {}
        self.roster = set(PAIRS)
        self.known = set(PAIRS)
        self.model = StoreModel(self.roster, self.known)
        self.follower = Follower()
        self.counts: Counter[str] = Counter()
        self.item = 0
        self._open()
        self._call(_start_run)

    def _next_path(self) -> Path:
        self.files += 1
        return Path(self.folder.name) / f"{self.files}.duckdb"

    def _open(self) -> None:
        self.runner.run(self.store.__aenter__())
        self._call(absence.start)
        self._call(_fill_roster, self.roster, self.known)

    def _tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def _call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        assert isinstance(self.store.backend, DuckDBBackend)
        return self.runner.run(self.store.backend.call(work, *arguments))

    # --- the fleet and the clock ---

    @initialize(vehicles=st.lists(st.integers(0, 2), min_size=3, max_size=len(SESSIONS)))
    def fill(self, vehicles: list[int]) -> None:
        for number, vehicle in enumerate(vehicles):
            self.show(number, vehicle, number % DAYS, number % 3, 10.0, is_hidden=number == 2, user=None)

    @rule(
        number=st.integers(0, len(SESSIONS) - 1),
        vehicle=st.integers(0, len(VEHICLES) - 1),
        day=st.integers(0, DAYS - 1),
        moment=st.integers(0, len(_MOMENTS) - 1),
        energy_kwh=st.sampled_from([10.0, 20.0]),
        is_hidden=st.booleans(),
        user=st.none() | st.integers(0, 1),
    )
    def show(
        self, number: int, vehicle: int, day: int, moment: int, energy_kwh: float, is_hidden: bool, user: int | None
    ) -> None:
        """Add a session, change it, or move it to another vehicle; show it to one user of the vehicle or to all."""
        at = datetime(FIRST.year, FIRST.month, FIRST.day + day, tzinfo=UTC) + _MOMENTS[moment]
        users = frozenset(USERS if user is None else [USERS[user]])
        self.fleet[SESSIONS[number]] = Listed(SESSIONS[number], VEHICLES[vehicle], at, energy_kwh, is_hidden, users)

    @precondition(lambda self: self.fleet)
    @rule(which=st.integers(0, 63), vehicle=st.integers(0, len(VEHICLES) - 1))
    def move(self, which: int, vehicle: int) -> None:
        row = list(self.fleet.values())[which % len(self.fleet)]
        self.fleet[row.id] = attrs.evolve(row, vehicle_id=VEHICLES[vehicle])

    @precondition(lambda self: self.fleet)
    @rule(which=st.integers(0, 63))
    def remove(self, which: int) -> None:
        del self.fleet[list(self.fleet)[which % len(self.fleet)]]

    @rule(pair=st.integers(0, len(PAIRS) - 1), has_gone=st.booleans())
    def leave_or_return(self, pair: int, has_gone: bool) -> None:
        """Remove a vehicle of a user from the roster, and perhaps record that it has gone; or add it again."""
        self.roster ^= {PAIRS[pair]}
        self.known -= {PAIRS[pair]} if has_gone else set()
        self.known |= self.roster
        self._call(_fill_roster, self.roster, self.known)

    @rule(hours=st.sampled_from([-48, -1, 1, 48]))
    def jump(self, hours: int) -> None:
        """Set the clock."""
        self.now += timedelta(hours=hours)

    # --- batches ---

    @rule(plans=_PLANS)
    def write(self, plans: list[Plan]) -> None:
        outcomes, at = self._outcomes(plans), self._tick()
        written = self._call(write_batch, self._batch(outcomes), at)
        assert written == self._take(outcomes, at)
        self._check()

    @rule(plans=_PLANS, cut_off_at=st.integers(1, 25))
    def write_and_fail(self, plans: list[Plan], cut_off_at: int) -> None:
        """Fail at a statement: nothing of the batch is written, and the store stays usable."""
        outcomes, at = self._outcomes(plans), self._tick()
        if self._is_done(cut_off_at, write_batch, self._batch(outcomes), at):
            self._take(outcomes, at)
        else:
            self.model.newest = self._call(_newest_change)
        self._check()

    @rule(plans=_PLANS, cut_off_at=st.integers(1, 25))
    def write_and_die(self, plans: list[Plan], cut_off_at: int) -> None:
        """Continue with a copy of the disk at a statement, or after the commit."""
        outcomes, at = self._outcomes(plans), self._tick()
        corpse = self._next_path()
        if self._is_done(cut_off_at, write_batch, self._batch(outcomes), at, leaving=corpse):
            self._take(outcomes, at)
            self._leave(corpse)
        self.reopen(corpse)

    @rule()
    def reopen(self, path: Path | None = None) -> None:
        self.runner.run(self.store.aclose())
        self.store = SessionStore(path or self.store.path)
        self._open()
        self.model.newest = max((row.changed_at for row in self.model.sessions.values()), default=None)
        self._check()

    @rule()
    def follow(self) -> None:
        """Let the consumer take the rows that have changed."""
        self._call(self.follower.pull)

    # --- absence ---

    @rule(include_hidden=st.booleans(), faults=st.lists(_FAULTS, min_size=4, max_size=4), number=st.integers(0, 7))
    def confirm(self, include_hidden: bool, faults: list[str], number: int) -> None:
        """Confirm the absence of rows, while a session returns, and withdraw them."""
        suspects = self.model.suspects(include_hidden=include_hidden)
        items = self._call(absence.confirming_items, include_hidden, 10_000)
        self._check_items(items, suspects)
        if number in {0, 1}:
            self.show(number, number, 0, 0, 10.0, is_hidden=False, user=None)
        left = [item for item in items if item.vehicle not in self.model.present]
        there = [item for item in items if item.vehicle in self.model.present]
        outcomes = [self._read(item, fault) for item, fault in zip(there, faults, strict=False)]
        at = self._tick()
        self._call(write_batch, self._batch(outcomes), at)
        self._take(outcomes, at)
        done = {each.item.number for each in outcomes if each.is_proven} | {item.number for item in left}
        unread = {item.vehicle.vehicle_id for item in items if item.number not in done}
        at = self._tick()
        withdrawn = self._call(absence.conclude, 1, done, at)
        assert withdrawn == self.model.conclude(suspects, unread, at)
        self.counts["sessions_withdrawn"] += withdrawn
        self._check()

    def _check_items(self, items: list[WorkItem], suspects: dict[UUID, datetime]) -> None:
        rows = [self.model.sessions[id_] for id_ in suspects]
        vehicles = {stored.row.vehicle_id for stored in rows}
        expected = {stored.pair for stored in rows} | {
            each for each in self.model.present if each.vehicle_id in vehicles
        }
        assert {item.vehicle for item in items} == expected
        assert len({item.number for item in items}) == len(items)
        for item in items:
            days = [stored.row.day for stored in rows if stored.row.vehicle_id == item.vehicle.vehicle_id]
            assert item.window.from_date < min(days)
            assert item.window.to_date > max(days)

    # --- reads ---

    def _outcomes(self, plans: list[Plan]) -> list[Outcome]:
        outcomes = []
        for plan in plans:
            self.item += 1
            days = FIRST + plan.first * ONE_DAY, FIRST + plan.last * ONE_DAY
            item = WorkItem(self.item, PAIRS[plan.pair], Window(*days, plan.include_hidden))
            outcomes.append(self._read(item, plan.fault, plan.completeness))
        return outcomes

    def _read(self, item: WorkItem, fault: str, completeness: Completeness = Completeness.VERIFIED) -> Outcome:
        rows = [row for row in self.fleet.values() if row.is_in(item)]
        seen = Outcome(item, self._tick(), completeness, rows)
        faults: dict[str, dict[str, Any]] = {
            "fails": {"completeness": None, "sessions": []},
            "torn": {"completeness": Completeness.UNPROVEN, "sessions": rows[::2]},
            "unreadable": {"sessions": rows[1:], "unreadable": [row.id for row in rows[:1]]},
            "without an id": {"sessions": rows[1:], "unreadable": [None] * len(rows[:1])},
            "unstorable": {"sessions": rows[1:], "unstorable": rows[:1]},
        }
        return attrs.evolve(seen, **faults.get(fault, {}))

    def _batch(self, outcomes: Sequence[Outcome]) -> Batch:
        batch = Batch(1)
        for outcome in outcomes:
            if outcome.completeness is None:
                batch.add_failure(outcome.item, StoreError("down", "/x"), outcome.at)
            else:
                batch.add(outcome.item, _sessions(outcome, outcome.completeness), outcome.at, None)
        return batch

    def _take(self, outcomes: Sequence[Outcome], at: datetime) -> Written:
        written = self.model.write(1, outcomes, at)
        self.counts["done"] += sum(outcome.completeness is not None for outcome in outcomes)
        self.counts["failed"] += sum(outcome.completeness is None for outcome in outcomes)
        self.counts["unproven"] += sum(outcome.completeness is Completeness.UNPROVEN for outcome in outcomes)
        self.counts["rejected"] += written.rejected
        for name in ("new", "changed", "unchanged"):
            self.counts[f"sessions_{name}"] += getattr(written, name)
        return written

    def _is_done(
        self, cut_off_at: int | None, work: Callable[..., Any], *arguments: Any, leaving: Path | None = None
    ) -> bool:
        """Run the operation, unless it is cut off at one of its statements."""

        def cut_off() -> None:
            if leaving:
                self._leave(leaving)
            raise _CutOffError("IO Error: No space left on device")

        try:
            self._call(lambda con: work(Breaking(con, cut_off_at, cut_off), *arguments))
        except StoreError as error:
            assert isinstance(error.__cause__, _CutOffError)
            return False
        return True

    def _leave(self, corpse: Path) -> None:
        """Copy the file and its log as they are on the disk."""
        shutil.copy(self.store.path, corpse)
        log = Path(f"{self.store.path}.wal")
        if log.exists():
            shutil.copy(log, f"{corpse}.wal")

    # --- invariants ---

    def _check(self) -> None:
        stored = self._call(_read_tables)
        assert _sorted(stored["receipts"]) == _sorted(self.model.receipts)
        assert _sorted(stored["failures"]) == _sorted(self.model.failures)
        assert _sorted(stored["rejected_items"]) == _sorted(self.model.rejected)
        assert len({record[0] for record in stored["sessions"]}) == len(stored["sessions"]), "doubled"
        assert _sorted(stored["sessions"]) == _sorted([row.record for row in self.model.sessions.values()])
        ((*counts,),) = self._call(lambda con: con.execute(f"SELECT {_COUNTS} FROM runs").fetchall())
        assert dict(zip(_COUNTS.split(", "), counts, strict=True)) == {
            name: self.counts[name] for name in _COUNTS.split(", ")
        }

    def finish(self) -> None:
        """Read and confirm everything: the live rows are those of the server, and the consumer has the table."""
        self.known &= self.roster
        self._call(_fill_roster, self.roster, self.known)
        everything = Window(FIRST - ONE_DAY, FIRST + DAYS * ONE_DAY, include_hidden=True)
        for _ in range(2):
            outcomes = [self._read(WorkItem(number, pair, everything), "") for number, pair in enumerate(self.roster)]
            at = self._tick()
            self._call(write_batch, self._batch(outcomes), at)
            self._take(outcomes, at)
            self.confirm(include_hidden=True, faults=[""] * 4, number=7)
        vehicles = {pair.vehicle_id for pair in self.roster}
        live = {
            id_: stored
            for id_, stored in self.model.sessions.items()
            if not stored.withdrawn_at and stored.row.vehicle_id in vehicles
        }
        shown = {
            row.id: row
            for row in self.fleet.values()
            if any(pair.vehicle_id == row.vehicle_id and pair.user_id in row.users for pair in self.roster)
        }
        assert {id_: stored.row for id_, stored in live.items()} == shown, "lost, outdated or wrongly withdrawn"
        for id_, stored in live.items():
            assert stored.pair in self.roster
            assert stored.user_id in shown[id_].users
        self.follow()
        assert self._call(self.follower.is_equal_to)

    def clean_up(self) -> None:
        self.runner.run(self.store.aclose())
        self.runner.close()
        self.folder.cleanup()


def _sessions(outcome: Outcome, completeness: Completeness) -> FetchedSessions:
    rows = [_session(row) for row in outcome.sessions]
    rows += [attrs.evolve(_session(row), reachable_soc_pct=2**40) for row in outcome.unstorable]
    rejected = [RejectedItem(index=0, path="$", reason="-", raw={"id": id_}) for id_ in outcome.unreadable]
    return fetched(outcome.item, rows_of([*rows, *rejected]), completeness=completeness)


def _session(row: Listed) -> ChargingSession:
    unset = dict.fromkeys(field.name for field in attrs.fields(ChargingSession) if field.default is attrs.NOTHING)
    known = {
        "id": row.id,
        "plug_in_time": row.plug_in_time,
        "energy_charged_kwh": row.energy_kwh,
        "is_hidden": row.is_hidden,
        "is_at_home": True,
        "session_outcome": SessionOutcome.OPTIMIZED,
    }
    return ChargingSession(**{**unset, **known})  # type: ignore[arg-type]


def _read_tables(con: duckdb.DuckDBPyConnection) -> dict[str, list[Record]]:
    return {table: con.execute(f"SELECT {names} FROM {table}").fetchall() for table, names in _TABLES.items()}


def _start_run(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(
        "INSERT INTO runs (run_id, from_date, to_date, include_hidden, scope, vehicles, started_at)"
        f" VALUES (1, '{FIRST}', '{FIRST}', true, 'fleet', 4, now())"
    )


def _fill_roster(con: duckdb.DuckDBPyConnection, roster: set[VehicleRef], known: set[VehicleRef]) -> None:
    con.execute("DELETE FROM vehicles")
    for pair in PAIRS:
        gone_since = None if pair in known else datetime(2026, 6, 1, tzinfo=UTC)
        values = [pair.user_id, pair.vehicle_id, gone_since]
        con.execute(f"INSERT INTO vehicles {KNOWN} VALUES (?, ?, now(), now(), ?)", values)
    con.execute("CREATE OR REPLACE TEMP TABLE roster (user_id UUID, vehicle_id UUID)")
    for pair in roster:
        con.execute("INSERT INTO roster VALUES (?, ?)", [pair.user_id, pair.vehicle_id])


def _newest_change(con: duckdb.DuckDBPyConnection) -> datetime | None:
    ((found,),) = con.execute("SELECT getvariable('newest_change')").fetchall()
    return None if found is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=found)


def _sorted(records: list[Record]) -> list[Record]:
    return sorted(records, key=repr)


@pytest.mark.parametrize(
    "examples", [pytest.param(10, marks=pytest.mark.slow), pytest.param(2_000, marks=pytest.mark.soak)]
)
def test_a_store_equals_the_model_after_any_order_of_operations(
    examples: int, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """No order of operations leaves a session lost, doubled, outdated or wrongly withdrawn, or unseen by a consumer."""
    scale = soak_scale if examples > 10 else 1
    record_property("figure", run_machine(StoreMachine, examples * scale, steps=15))
