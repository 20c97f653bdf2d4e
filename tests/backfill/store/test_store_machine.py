"""A state machine that compares the store with a model in any order of writes, failures, kills and reopenings."""

from __future__ import annotations

import asyncio
import copy
import shutil
import tempfile
from collections import defaultdict
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

from podero_async import ChargingSession, Completeness, RejectedItem, SessionOutcome, VehicleRef, VehicleSessions
from podero_async._paging.window import Window
from podero_async.backfill import SessionStore, StoreError
from podero_async.backfill._report import Written
from podero_async.backfill._values import RunSettings, WorkItem
from podero_async.backfill.store.duckdb import DuckDBBackend
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.backfill.store.duckdb.roster import clear_roster
from podero_async.backfill.store.duckdb.runs import finish_run, start_run
from podero_async.backfill.store.duckdb.upsert import write_batch
from tests._support.fake_clock import Machine, run_machine
from tests._support.kill_process import Breaking
from tests._support.store_model import Listed, Outcome, Record, StoreModel

FIRST = date(2026, 6, 1)
DAYS = 4
COMPLETE_UNTIL = FIRST + timedelta(days=2)
VEHICLES = [VehicleRef(user_id=UUID(int=1 + number // 2), vehicle_id=UUID(int=100 + number)) for number in range(4)]
SESSIONS = [UUID(int=1000 + number) for number in range(8)]
SETTINGS = RunSettings(Window(FIRST, FIRST + timedelta(days=DAYS - 1)), refresh_days=1, scope="fleet")
_MOMENTS = [timedelta(0), timedelta(hours=12), timedelta(days=1) - timedelta(microseconds=1)]

_TABLES = {
    "sessions": "id, user_id, vehicle_id, plug_in_time, energy_charged_kwh, is_hidden,"
    " fetched_at, first_seen_at, changed_at, withdrawn_at",
    "receipts": "run_id, task, user_id, vehicle_id, from_date, to_date, include_hidden,"
    ' completeness, total, "count", digest, held_to, fetched_at',
    "failures": "run_id, user_id, vehicle_id, from_date, to_date, include_hidden, failed_at",
    "rejected_items": "user_id, vehicle_id, from_date, to_date, include_hidden, session_id, fetched_at",
}


@attrs.frozen
class Plan:
    """How one window of a batch is read."""

    vehicle: int
    first: int
    last: int
    include_hidden: bool
    completeness: Completeness
    fault: str


_PLANS = st.lists(
    st.builds(
        Plan,
        vehicle=st.integers(0, len(VEHICLES) - 1),
        first=st.sampled_from([0, 0, 1, 2]),
        last=st.sampled_from([DAYS - 1, DAYS - 1, 2]),
        include_hidden=st.booleans(),
        completeness=st.sampled_from(Completeness),
        fault=st.sampled_from(["", "", "", "fails", "torn", "unreadable", "without an id", "unstorable"]),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda plan: plan.vehicle,
)


class _CutOffError(duckdb.IOException):
    """The disk or the process fails at a statement of a transaction."""


class StoreMachine(Machine):
    """Changes a small fleet and writes reads of it into a file."""

    empty: ClassVar[bytes] = b""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.files = 0
        self.store = SessionStore(self._next_path())
        if not self.empty:
            self.runner.run(self._open())
            self.runner.run(self.store.aclose())
            type(self).empty = Path(self.store.path).read_bytes()
        Path(self.store.path).write_bytes(self.empty)
        self.runner.run(self._open())
        self.now = datetime(2026, 6, 4, tzinfo=UTC)
        self.fleet: dict[UUID, Listed] = {}
        self.model = StoreModel(COMPLETE_UNTIL)
        self.start_run()

    def _next_path(self) -> Path:
        self.files += 1
        return Path(self.folder.name) / f"{self.files}.duckdb"

    async def _open(self) -> None:
        await self.store.__aenter__()

    def _tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def _call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        assert isinstance(self.store.backend, DuckDBBackend)
        return self.runner.run(self.store.backend.call(work, *arguments))

    # --- the fleet ---

    @initialize(vehicles=st.lists(st.integers(0, 3), min_size=3, max_size=len(SESSIONS)))
    def fill(self, vehicles: list[int]) -> None:
        for number, vehicle in enumerate(vehicles):
            self.show(number, vehicle, number % DAYS, number % 3, 10.0, is_hidden=number == 2)

    @rule(
        number=st.integers(0, len(SESSIONS) - 1),
        vehicle=st.integers(0, len(VEHICLES) - 1),
        day=st.integers(0, DAYS - 1),
        moment=st.integers(0, len(_MOMENTS) - 1),
        energy_kwh=st.sampled_from([10.0, 20.0]),
        is_hidden=st.booleans(),
    )
    def show(self, number: int, vehicle: int, day: int, moment: int, energy_kwh: float, is_hidden: bool) -> None:
        """Add a session, change it, or move it to another vehicle."""
        at = datetime(FIRST.year, FIRST.month, FIRST.day + day, tzinfo=UTC) + _MOMENTS[moment]
        ref = VEHICLES[vehicle]
        self.fleet[SESSIONS[number]] = Listed(SESSIONS[number], ref.user_id, ref.vehicle_id, at, energy_kwh, is_hidden)

    @precondition(lambda self: self.fleet)
    @rule(which=st.integers(0, 63), vehicle=st.integers(0, len(VEHICLES) - 1))
    def move(self, which: int, vehicle: int) -> None:
        row = list(self.fleet.values())[which % len(self.fleet)]
        ref = VEHICLES[vehicle]
        self.fleet[row.id] = attrs.evolve(row, user_id=ref.user_id, vehicle_id=ref.vehicle_id)

    @precondition(lambda self: self.fleet)
    @rule(which=st.integers(0, 63))
    def remove(self, which: int) -> None:
        del self.fleet[list(self.fleet)[which % len(self.fleet)]]

    # --- runs and batches ---

    @rule()
    def start_run(self) -> None:
        """Start a run; an unfinished one is discarded."""
        self._call(clear_roster)
        self.run = self._call(start_run, SETTINGS, self._tick()).run_id
        self.read: set[VehicleRef] = set()
        self.item = 0

    @rule(cut_off_at=st.none() | st.integers(1, 8))
    def finish_run(self, cut_off_at: int | None) -> None:
        if self._is_done(cut_off_at, finish_run, self.run, self._tick()):
            self.model.finish_run()
            self._check()
            self.start_run()

    @rule(plans=_PLANS)
    def write(self, plans: list[Plan]) -> None:
        outcomes = [outcome for plan in plans if (outcome := self._outcome(plan))]
        moves = copy.copy(self.model.moves)
        written = self._call(write_batch, self._batch(outcomes))
        expected = self._take(outcomes)
        if self.model.moves == moves == {}:
            assert written == expected
        self._check()

    @rule(plans=_PLANS, cut_off_at=st.integers(1, 20))
    def write_and_fail(self, plans: list[Plan], cut_off_at: int) -> None:
        """Fail at a statement: nothing of the batch is written, and the store stays usable."""
        outcomes = [outcome for plan in plans if (outcome := self._outcome(plan))]
        if self._is_done(cut_off_at, write_batch, self._batch(outcomes)):
            self._take(outcomes)
        self._check()

    @rule(plans=_PLANS, cut_off_at=st.integers(1, 20))
    def write_and_die(self, plans: list[Plan], cut_off_at: int) -> None:
        """Continue with a copy of the disk at a statement, or after the commit."""
        outcomes = [outcome for plan in plans if (outcome := self._outcome(plan))]
        corpse = self._next_path()
        if self._is_done(cut_off_at, write_batch, self._batch(outcomes), leaving=corpse):
            self._take(outcomes)
            self._leave(corpse)
        self.runner.run(self.store.aclose())
        self.store = SessionStore(corpse)
        self.runner.run(self._open())
        self._check()

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.store.aclose())
        self.store = SessionStore(self.store.path)
        self.runner.run(self._open())
        self._check()

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

    def _outcome(self, plan: Plan) -> Outcome | None:
        """Read a window of a vehicle. A run reads a vehicle once, unless the read failed."""
        vehicle = VEHICLES[plan.vehicle]
        if vehicle in self.read:
            return None
        self.item += 1
        days = FIRST + timedelta(days=plan.first), FIRST + timedelta(days=plan.last)
        item = WorkItem(self.item, vehicle, Window(*days, plan.include_hidden))
        rows = [row for row in self.fleet.values() if row.is_in(item)]
        seen = Outcome(item, self._tick(), plan.completeness, rows)
        faults: dict[str, dict[str, Any]] = {
            "fails": {"completeness": None, "sessions": []},
            "torn": {"completeness": Completeness.UNPROVEN, "sessions": rows[::2]},
            "unreadable": {"sessions": rows[1:], "unreadable": [row.id for row in rows[:1]]},
            "without an id": {"sessions": rows[1:], "unreadable": [None] * len(rows[:1])},
            "unstorable": {"sessions": rows[1:], "unstorable": rows[:1]},
        }
        return attrs.evolve(seen, **faults.get(plan.fault, {}))

    def _batch(self, outcomes: Sequence[Outcome]) -> Batch:
        batch = Batch(self.run)
        for outcome in outcomes:
            if outcome.completeness is None:
                batch.add_failure(outcome.item, StoreError("down", "/x"), outcome.at)
            else:
                batch.add(outcome.item, _sessions(outcome, outcome.completeness), COMPLETE_UNTIL, outcome.at)
        batch.convert_pending()
        return batch

    def _take(self, outcomes: Sequence[Outcome]) -> Written:
        self.read |= {outcome.item.vehicle for outcome in outcomes if outcome.completeness}
        return self.model.write(self.run, outcomes)

    # --- invariants ---

    def _check(self) -> None:
        stored = self._call(_read_tables)
        assert _sorted(stored["receipts"]) == _sorted(self.model.receipts)
        assert _sorted(stored["failures"]) == _sorted(self.model.failures)
        assert _sorted(stored["rejected_items"]) == _sorted(self.model.rejected)
        by_id: dict[UUID, list[Record]] = defaultdict(list)
        for record in stored["sessions"]:
            by_id[record[0]].append(record)
        assert by_id.keys() == self.model.sessions.keys(), "lost or invented"
        for id_, records in by_id.items():
            assert len(records) == 1 or self.model.moves[id_], "doubled"
            if not self.model.moves[id_]:
                assert records == [self.model.sessions[id_].record]
            else:  # the newest row is the correct one
                newest = max(records, key=lambda record: record[6])
                assert newest[:7] == self.model.sessions[id_].record[:7]

    def finish(self) -> None:
        self.finish_run(None)
        status = self.runner.run(self.store.status())
        assert (status.sessions, status.receipts, status.failures, status.rejected) == (
            len(self.model.sessions),
            len(self.model.receipts),
            len(self.model.failures),
            len(self.model.rejected),
        )

    def clean_up(self) -> None:
        self.runner.run(self.store.aclose())
        self.runner.close()
        self.folder.cleanup()


def _sessions(outcome: Outcome, completeness: Completeness) -> VehicleSessions:
    rows = [_session(row) for row in outcome.sessions]
    rows += [attrs.evolve(_session(row), reachable_soc_pct=2**40) for row in outcome.unstorable]
    return VehicleSessions(
        vehicle=outcome.item.vehicle,
        from_date=outcome.item.window.from_date,
        to_date=outcome.item.window.to_date,
        sessions=rows,
        completeness=completeness,
        total=len(rows) + len(outcome.unreadable),
        rejected=[RejectedItem(index=0, path="$", reason="-", raw={"id": id_}) for id_ in outcome.unreadable],
        requests=1,
    )


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


def _sorted(records: list[Record]) -> list[Record]:
    return sorted(records, key=repr)


@pytest.mark.parametrize("is_discarded", [False, True])
def test_a_session_that_moves_to_another_vehicle_is_stored_once(is_discarded: bool) -> None:
    """If a session moved to another vehicle during a run, or a discarded run before it, the end of the run leaves one row."""
    machine = StoreMachine()
    whole = Plan(0, 0, DAYS - 1, include_hidden=False, completeness=Completeness.VERIFIED, fault="")
    machine.fill([0, 0, 0])
    machine.write([whole])
    machine.move(which=0, vehicle=1)
    machine.write([attrs.evolve(whole, vehicle=1)])
    if is_discarded:
        machine.start_run()
    machine.finish_run(None)
    machine.teardown()


@pytest.mark.parametrize(
    "examples", [pytest.param(10, marks=pytest.mark.slow), pytest.param(2_000, marks=pytest.mark.soak)]
)
def test_a_store_equals_the_model_after_any_order_of_operations(
    examples: int, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """No order of reads, failures, kills and runs leaves a session lost, duplicated, outdated or wrongly withdrawn."""
    scale = soak_scale if examples > 10 else 1
    record_property("figure", run_machine(StoreMachine, examples * scale, steps=15))
