"""The planner of a backfill: decides which vehicles, and which of their days, a run reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from datetime import UTC, date, datetime

import attrs

from podero_async._client import PoderoClient
from podero_async._failures import is_outage_sign
from podero_async._flow.retry import RequestStats
from podero_async._paging.window import Window
from podero_async.backfill._client_access import discover_fleet, owner_of
from podero_async.backfill._report import BackfillPlan, FailedVehicle, Progress
from podero_async.backfill._sharding import Shard
from podero_async.backfill._values import FLEET, Limits, Run, RunSettings, StoreOwner
from podero_async.backfill.errors import ForeignStoreError
from podero_async.backfill.store import SessionStore
from podero_async.errors import CompletenessError
from podero_async.models import VehicleFailure, VehicleRef

__all__ = ["Planner", "Vehicles", "check_owner", "check_window", "plan_backfill", "utc_now"]

Vehicles = Iterable[VehicleRef] | AsyncIterable[VehicleRef] | None


def utc_now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)


def check_window(from_date: date, to_date: date, *, include_hidden: bool, refresh_days: int, today: date) -> Window:
    """Return the window of a backfill.

    Raises:
        ValueError: The days are not a window, the window lies in the future, or `refresh_days` is invalid.
    """
    window = Window.of(from_date, to_date, include_hidden=include_hidden)
    if window.from_date > today:
        raise ValueError(f"from_date is {from_date}, today is {today} (UTC): nothing of this window has happened yet")
    if isinstance(refresh_days, bool) or not isinstance(refresh_days, int) or refresh_days < 0:
        raise ValueError(f"refresh_days must be a whole number of at least 0, not {refresh_days!r}")
    return window


async def check_owner(store: SessionStore, owner: StoreOwner) -> None:
    """Check that a store is unclaimed or has the given owner.

    Raises:
        ForeignStoreError: The store has another owner. It is unchanged.
    """
    found = await store.backend.owner()
    if found is not None and found != owner:
        raise ForeignStoreError(f"the store is for {found}, not for {owner}", store.path)


async def plan_backfill(
    client: PoderoClient,
    store: SessionStore,
    from_date: date,
    to_date: date,
    *,
    vehicles: Vehicles = None,
    include_hidden: bool = False,
    refresh_days: int = 7,
    shard: Shard | None = None,
    now: Callable[[], datetime] = utc_now,
) -> BackfillPlan:
    """Return the work that `backfill` would do with these arguments.

    The organization's vehicles are listed if necessary; no session is read. The store is unchanged.

    Raises:
        ValueError: As `backfill`.
        ForeignStoreError: The store belongs to another organization.
        PoderoError: The organization's users could not be listed.
    """
    started = now()
    window = check_window(
        from_date, to_date, include_hidden=include_hidden, refresh_days=refresh_days, today=started.date()
    )
    planner = Planner(client, store, window, refresh_days, shard, Progress(), started, Limits())
    settings, unfinished = await planner.find_run(vehicles)
    plan = await store.backend.draft_run(settings, unfinished)
    return attrs.evolve(plan, failures=tuple(planner.progress.failures))


@attrs.frozen
class Planner:
    """Finds the run of a call: the unfinished run of the same call, or a new one."""

    client: PoderoClient
    store: SessionStore
    window: Window
    refresh_days: int
    shard: Shard | None
    progress: Progress
    started: datetime
    limits: Limits

    async def plan_run(self, vehicles: Vehicles) -> Run:
        """Return the run of the call; a new run is stored first."""
        settings, run = await self.find_run(vehicles)
        backend = self.store.backend
        await backend.claim(owner_of(self.client))
        if run is None:
            run = await backend.start_run(settings, self.started)
        else:
            self.progress.count_before(await backend.findings_of(run.run_id))
        self.progress.vehicles, self.progress.tasks, self.progress.skipped = run.vehicles, run.work_items, run.skipped
        return run

    async def find_run(self, vehicles: Vehicles) -> tuple[RunSettings, Run | None]:
        """Return the settings of the call and its unfinished run, or None and a roster with the vehicles of a new run.

        An unfinished run over the discovered fleet is resumed without another discovery.
        """
        await check_owner(self.store, owner_of(self.client))  # before the first request
        shard = f", share {self.shard}" if self.shard else ""  # stored in `runs.scope`, so the text must not change
        settings = RunSettings(self.window, self.refresh_days, FLEET + shard)
        backend = self.store.backend
        if vehicles is not None:
            await self._fill_roster(_as_stream(vehicles))
            settings = attrs.evolve(settings, scope=await backend.roster_scope() + shard)
        run = await backend.resume_run(settings, self.started.date())
        if vehicles is None and run is None and (incomplete := await self._discover()):
            # The run is not resumed later, since only another discovery can tell whether the list is complete then.
            settings = attrs.evolve(settings, scope=f"{settings.scope}, incomplete")
            failed = FailedVehicle(
                user_id=None, vehicle_id=None, kind=type(incomplete).__name__, message=str(incomplete)
            )
            self.progress.count_failure(failed, is_outage=False)
        return settings, run

    async def _discover(self) -> CompletenessError | None:
        """Fill the roster with all vehicles that are found; return the error if the list of users is incomplete."""
        self.progress.phase = "discovering"
        stats = RequestStats()
        incomplete: CompletenessError | None = None

        async def found() -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
            nonlocal incomplete
            try:
                async with aclosing(discover_fleet(self.client, stats)) as vehicles:
                    async for vehicle in vehicles:
                        yield vehicle
            except CompletenessError as error:
                incomplete = error

        try:
            await self._fill_roster(found())
            return incomplete
        finally:
            self.progress.requests += stats.requests
            self.progress.retries += stats.retries

    async def _fill_roster(self, found: AsyncGenerator[VehicleRef | VehicleFailure, None]) -> None:
        backend = self.store.backend
        await backend.clear_roster()
        vehicles: list[VehicleRef] = []
        failures: list[VehicleFailure] = []
        async with aclosing(found):
            async for each in found:
                if isinstance(each, VehicleFailure):
                    failures.append(each)
                    self.progress.count_failure(FailedVehicle.of(each), is_outage=is_outage_sign(each.error))
                elif self.shard is None or self.shard.holds(each.vehicle_id):
                    vehicles.append(each)
                    self.progress.vehicles += 1
                if len(vehicles) + len(failures) >= self.limits.roster_slice:
                    await backend.add_to_roster(vehicles, failures)
                    vehicles, failures = [], []
        await backend.add_to_roster(vehicles, failures)


async def _as_stream(
    vehicles: Iterable[VehicleRef] | AsyncIterable[VehicleRef],
) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    if isinstance(vehicles, AsyncIterable):
        async for vehicle in vehicles:
            yield vehicle
    else:
        for vehicle in vehicles:
            yield vehicle
