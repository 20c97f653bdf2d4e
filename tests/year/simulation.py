"""A year of one seed: a world, a way to schedule, and the runs that write one or two stores."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import attrs

from podero_async import PoderoClient, RetryPolicy, VehicleRef
from podero_async.backfill import ApiDownError, BackfillReport, Bounds, SessionStore, Shard, StoreError, backfill
from podero_async.errors import PoderoError
from tests._support.clients import client_of
from tests._support.time_warp import LeapingLoop
from tests.year import rules, upgrade, weather
from tests.year.invariants import Checker, Replica, Snapshot
from tests.year.recorder import Recorder
from tests.year.weather import Weather
from tests.year.world import DAY, World

_START = datetime(2026, 1, 1, tzinfo=UTC)
_HISTORY = 100 * DAY
"""The events begin this long before the first run."""
_CALM_NIGHTS = 9
"""Nights after the last event, enough for every day to settle that can."""
_BOUNDS = Bounds()
_ZONES = ["UTC", "Europe/Oslo", "America/New_York", "Asia/Kolkata", "Pacific/Kiritimati"]


@attrs.frozen
class Habit:
    """How a fleet's owner schedules backfills, drawn by a seed."""

    schedule: str
    every: timedelta
    first: date
    settle_days: int
    fresh_for: timedelta
    hidden: str
    shards: int
    lists_vehicles: bool
    zone: str
    has_accidents: bool
    upgrades: bool
    """Whether the stores are those of an older release until the middle of the year."""

    @classmethod
    def drawn(cls, rng: Random) -> Habit:
        schedule = rng.choice(["fixed", "fixed", "ds", "yesterday", "weekly", "weekly windows"])
        return cls(
            schedule=schedule,
            every=7 * DAY if "weekly" in schedule else rng.choice([DAY, DAY, DAY, DAY / 2]),
            first=(_START - timedelta(days=rng.choice([0, 20, 60]))).date(),
            settle_days=rng.choice([30, 30, 30, 14, 45]),
            fresh_for=rng.choice([timedelta(hours=12), timedelta(hours=12), timedelta(0)]),
            hidden=rng.choice(["never", "never", "always", "mixed"]),
            shards=rng.choice([1, 1, 1, 2]),
            lists_vehicles=rng.random() < 0.2,
            zone=rng.choice(_ZONES),
            has_accidents=rng.random() < 0.8,
            upgrades=rng.random() < 0.2,
        )

    def window(self, today: date) -> tuple[date, date]:
        """Return the window of the run of a day."""
        yesterday = today - DAY
        return {
            "fixed": (self.first, today),
            "ds": (yesterday, yesterday),
            "yesterday": (yesterday, today),
            "weekly": (self.first, today),
            "weekly windows": (today - 7 * DAY, yesterday),
        }[self.schedule]


@attrs.define(eq=False)
class Shop:
    """One store, its recorder and its checker."""

    path: Path
    shard: Shard | None
    recorder: Recorder
    checker: Checker


@attrs.define(eq=False)
class Year:
    """Runs of one seed. `run` raises an AssertionError if a store breaks its promise."""

    seed: int
    days: int
    directory: Path
    cars: int = 5
    trace: Callable[[str], object] = lambda _: None
    after_run: Callable[[Year, Shop], Awaitable[None]] | None = None
    figures: Counter[str] = attrs.field(factory=Counter)
    rng: Random = attrs.field(init=False)
    habit: Habit = attrs.field(init=False)
    world: World = attrs.field(init=False)
    shops: list[Shop] = attrs.field(init=False)
    dead: VehicleRef | None = None
    digest: Any = attrs.field(factory=sha256)
    """The digest of the stores' contents after each run: two runs of a seed must agree."""

    def __attrs_post_init__(self) -> None:
        self.rng = Random(f"year/{self.seed}")
        self.habit = Habit.drawn(self.rng)

    def run(self) -> Counter[str]:
        """Run the year on a virtual clock; return how often each kind of event struck."""
        random.seed(self.seed)  # the client's jitter
        try:
            with _in_zone(self.habit.zone), asyncio.Runner(loop_factory=LeapingLoop) as runner:
                runner.run(self._run())
        except AssertionError as error:
            error.add_note(f"replay: python -m tests.year {self.seed} --days {self.days}")
            raise
        return self.figures

    async def _run(self) -> None:
        habit, rng = self.habit, self.rng
        self.world = world = World(
            rng,
            _START - _HISTORY,
            self.cars,
            timedelta(days=habit.settle_days),
            users_as_pages=rng.random() < 0.3,
        )
        self.shops = [self._shop(number) for number in range(habit.shards)]
        self.figures.update([f"schedule: {habit.schedule}", f"hidden: {habit.hidden}", f"zone: {habit.zone}"])
        self.figures["two shards"] += habit.shards == 2
        async with world.sim:
            at = _START + rng.uniform(1, 5) * timedelta(hours=1)
            upgrades_at = _START + self.days / 2 * DAY if habit.upgrades else None
            while at < _START + self.days * DAY:
                world.pass_until(at)
                if upgrades_at is not None and at >= upgrades_at:
                    upgrades_at = None
                    await self._upgrade()
                if self._chance(0.3):
                    world.hurry(at)
                await self._night()
                at += habit.every + rng.uniform(-20, 20) * timedelta(minutes=1)
                if self._chance(0.04):
                    self.figures["pause of weeks"] += 1
                    at += rng.uniform(3, 50) * DAY
            await self._calm_down(max(at, world.now))
        for shop in self.shops:
            self.figures.update(shop.checker.figures)
            self.figures.update({f"verdict: {name}": n for name, n in shop.recorder.verdicts.items()})
        self.figures.update(world.struck)

    def _shop(self, number: int) -> Shop:
        recorder = Recorder(self.world)
        shard = Shard(number + 1, 2) if self.habit.shards == 2 else None
        checker = Checker(self.world, recorder, self.habit.settle_days)
        return Shop(self.directory / f"{self.seed}-{number}.duckdb", shard, recorder, checker)

    def _chance(self, share: float) -> bool:
        return self.rng.random() < share

    async def _upgrade(self) -> None:
        """Replace each store by what an older release would have, and let this release migrate it."""
        self.figures["store of an older release"] += 1
        for shop in self.shops:
            if shop.path.exists():
                upgrade.make_old(shop.path, shop.recorder)
                shop.checker.replica = Replica()  # its consumer starts anew
                async with SessionStore(shop.path) as store:
                    shop.checker.before = await Snapshot.of(store)
                    await shop.checker.check(store, None)

    # --- one night ---

    async def _night(self) -> None:
        if self.dead is None:
            if self._chance(0.03) and self.world.listed_pairs:
                self.figures["a vehicle dies"] += 1
                self.dead = self.rng.choice(self.world.listed_pairs)
        elif self._chance(0.2):
            self.dead = None
        for shop in self.shops:
            drawn = weather.draw(self.rng, self.world, self.dead)
            self.figures[f"weather: {drawn.kind}"] += 1
            await self._visit(shop, drawn, self._accident(), self._skew())

    def _accident(self) -> str:
        if not self.habit.has_accidents or not self._chance(0.25):
            return ""
        return self.rng.choice(["stop", "cancel", "kill at a moment", "kill after an operation"])

    def _skew(self) -> timedelta:
        if not self.habit.has_accidents or not self._chance(0.08):
            return timedelta()
        self.figures["local clock wrong"] += 1
        return self.rng.choice([21 * DAY, 400 * DAY, -2 * DAY, -timedelta(hours=14)])

    async def _visit(self, shop: Shop, drawn: Weather, accident: str, skew: timedelta, bounds: Bounds = _BOUNDS) -> str:
        """Run a backfill of one store, with all that befalls it, and check the store."""
        world, sim = self.world, self.world.sim
        sim.clear_faults()
        for fault in drawn.faults:
            sim.add_fault(fault)
        sim.before_page = shop.recorder.note_page
        shop.recorder.begin_run(drawn)
        run = _Run(self, shop, drawn, accident, skew, bounds)
        world.keep_pace()
        try:
            outcome = await run.carry_out()
        finally:
            world.stand_still()
            world.on_tick = None
        if self.after_run is not None:
            await self.after_run(self, shop)
        return outcome

    async def _calm_down(self, at: datetime) -> None:
        """Stop all events, and check that the stores come to equal the truth."""
        world = self.world
        world.pass_until(at)
        world.is_frozen, self.dead = True, None
        for number in range(_CALM_NIGHTS):
            world.pass_until(max(at, world.now))
            at += DAY
            # In the first of these nights, the owner confirms that vehicles and sessions have really left.
            bounds = Bounds(max_vanished=1, max_withdrawn=1) if number == 0 else _BOUNDS
            for shop in self.shops:
                outcome = await self._visit(shop, weather.CLEAR, "", timedelta(), bounds)
                assert number < _CALM_NIGHTS - 1 or outcome == "clean", f"a calm night's run is {outcome}"
        for shop in self.shops:
            pairs = {pair for pair in world.listed_pairs if shop.shard is None or shop.shard.holds(pair.user_id)}
            shop.checker.check_converged(shop.checker.before, pairs, world.now.date())
            async with SessionStore(shop.path) as store:
                await shop.checker.check_days(store, self.habit.first, world.now)


@attrs.define(eq=False)
class _Run:
    """One call of `backfill`."""

    year: Year
    shop: Shop
    weather: Weather
    accident: str
    skew: timedelta
    bounds: Bounds
    stop: asyncio.Event = attrs.field(factory=asyncio.Event)
    task: asyncio.Task[BackfillReport] | None = None
    countdown: int = 0
    listed: set[VehicleRef] = attrs.field(factory=set)
    """The vehicles that users listed when the run began."""
    refused: int = 0
    """The requests that were answered with 401 before the run."""
    looks: int = 0
    jumps_after: int = 0

    def now(self) -> datetime:
        """Return the time of the local clock, which may be set during the run."""
        self.looks += 1
        return self.year.world.now + (self.skew if self.looks > self.jumps_after else timedelta())

    async def carry_out(self) -> str:
        year, shop = self.year, self.shop
        retry = RetryPolicy(max_elapsed=30.0)
        self.countdown, self.jumps_after = year.rng.randrange(1, 60), year.rng.choice([0, 0, 2, 3, 6])
        year.world.on_tick = self._on_tick
        report: BackfillReport | None = None
        call, vehicles = self._call(), self._vehicles()
        self.listed = set(year.world.listed_pairs)
        self.refused = year.world.sim.counts.responses[401]
        async with SessionStore(shop.path) as store, client_of(year.world.sim, retry=retry) as client:
            await self._use_one_thread(store)
            shop.recorder.watch(store)
            shop.recorder.on_commit = lambda: self._on_commit(store)
            self._watch_operations(store)
            self.task = asyncio.create_task(self._backfill(client, store, call, vehicles))
            try:
                report = await self.task
            except asyncio.CancelledError:
                outcome = f"{self.accident}"
            except ApiDownError as error:
                report, outcome = error.report, "the API is down"
            except PoderoError as error:
                outcome = type(error).__name__
            else:
                outcome = "clean" if report.is_clean else "finished" if report.finished else "unfinished"
            if not shop.recorder.is_frozen:
                await self._check(store, report, call, vehicles)
        if shop.recorder.is_frozen:
            self._restore()
            async with SessionStore(shop.path) as store:
                await self._check(store, None, call, vehicles)
        year.figures[f"run: {outcome}"] += 1
        stored = shop.checker.before
        year.digest.update(repr((sorted(stored.hashes.items()), stored.spans)).encode())
        year.trace(
            f"{year.world.now:%Y-%m-%d %H:%M} {shop.path.stem}: {call.from_date}..{call.to_date} {self.weather.name};"
            f" {outcome} {report.alarms if report else ''}"
        )
        return outcome

    def _call(self) -> rules.Call:
        habit, started = self.year.habit, self.now()
        first, last = habit.window(started.date())
        hidden = habit.hidden == "always" or (habit.hidden == "mixed" and self.year.rng.random() < 0.5)
        return rules.Call(min(first, last), last, hidden, habit.settle_days, habit.fresh_for, started)

    def _vehicles(self) -> list[VehicleRef] | None:
        if not self.year.habit.lists_vehicles:
            return None
        pairs = self.year.world.listed_pairs
        if self.year.world.is_frozen:
            return pairs
        return self.year.rng.sample(pairs, min(len(pairs), self.year.rng.choice([3, 4, 20])))

    async def _backfill(
        self, client: PoderoClient, store: SessionStore, call: rules.Call, vehicles: list[VehicleRef] | None
    ) -> BackfillReport:
        return await backfill(
            client,
            store,
            call.from_date,
            call.to_date,
            vehicles=vehicles,
            include_hidden=call.include_hidden,
            settle_days=call.settle_days,
            fresh_for=call.fresh_for,
            shard=self.shop.shard,
            bounds=self.bounds,
            stop=self.stop,
            now=self.now,
        )

    # --- accidents ---

    def _on_tick(self) -> None:
        if self.accident in {"stop", "cancel", "kill at a moment"}:
            self._count_down()

    def _count_down(self) -> None:
        self.countdown -= 1
        if self.countdown != 0 or self.task is None or self.task.done():
            return
        self.year.figures[f"accident: {self.accident}"] += 1
        if self.accident == "stop":
            self.stop.set()
            return
        if self.accident.startswith("kill"):
            self._kill()
        self.task.cancel()

    def _kill(self) -> None:
        """Keep the files as they are now. No transaction is open,
        since each of the store's operations blocks the event loop.
        """
        self.shop.recorder.is_frozen = True
        for file in _files(self.shop.path):
            if file.exists():
                shutil.copyfile(file, f"{file}.killed")

    def _restore(self) -> None:
        for file in _files(self.shop.path):
            file.unlink(missing_ok=True)
            kept = Path(f"{file}.killed")
            if kept.exists():
                kept.rename(file)

    async def _use_one_thread(self, store: SessionStore) -> None:
        """Let the database use one thread, so that the order of its rows is the same in each run; the fleet is small."""
        backend: Any = store.backend
        await backend.call(lambda con: con.execute("SET threads = 1"))

    def _watch_operations(self, store: SessionStore) -> None:
        backend: Any = store.backend
        call = backend.call

        async def counted(*args: Any, **options: Any) -> Any:
            result = await call(*args, **options)
            if self.accident == "kill after an operation":
                # Not at once: the recorder has to note a batch that this operation has committed.
                asyncio.get_running_loop().call_soon(self._count_down)
            return result

        backend.call = counted

    async def _on_commit(self, store: SessionStore) -> None:
        if not self.shop.recorder.is_frozen and self.year.rng.random() < 0.1:
            self.year.figures["a consumer reads during a run"] += 1
            await self.shop.checker.replica.catch_up(store)

    # --- checks ---

    async def _check(
        self,
        store: SessionStore,
        report: BackfillReport | None,
        call: rules.Call,
        vehicles: list[VehicleRef] | None,
    ) -> None:
        checker, recorder = self.shop.checker, self.shop.recorder
        before = checker.before
        roster = await self._roster(store)
        await checker.check(store, roster)
        if report is None or not report.finished or roster is None:
            return
        checker.check_report(report, checker.before, roster, call.started)
        if not self.weather.changes_pages:
            world = self.year.world
            listed = set(world.listed_pairs)
            ever_listed = self.listed | listed | roster  # a vehicle may come and leave during a run
            users = len({pair.user_id for pair in ever_listed}) if vehicles is None else 0
            has_changed = ever_listed != self.listed & listed
            is_torn = has_changed or any(fault.endpoint == "vehicles" for fault in self.weather.faults)
            most = rules.most_requests(call, before, checker.before, recorder, roster, users, is_torn=is_torn)
            # A request whose token was refused is sent again with a new one.
            asked = report.requests - report.retries - (world.sim.counts.responses[401] - self.refused)
            self.year.figures["requests"] += asked
            self.year.figures["requests by the rules"] += most.total()
            reads = [f"{read.pair} {read.first}..{read.last} {read.is_confirming}" for read in recorder.reads]
            assert asked <= most.total(), f"{asked} requests, but the rules allow {most} at most: {reads}"

    async def _roster(self, store: SessionStore) -> set[VehicleRef] | None:
        """Return the vehicles of the run; None if the process that knew them was killed."""
        if self.shop.recorder.is_frozen:
            return None
        try:
            found = await store.query("SELECT DISTINCT user_id, vehicle_id FROM roster")
        except StoreError:  # it was stopped before
            return None
        return {VehicleRef(**row) for row in found}


def _files(path: Path) -> list[Path]:
    return [path, Path(f"{path}.wal")]


@contextmanager
def _in_zone(zone: str) -> Iterator[None]:
    """Set the process's time zone."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()
