"""Before the first session is read: which vehicles, and which days of them."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from datetime import UTC, date, datetime

import attrs

from podero_async._client import PoderoClient
from podero_async._failures import is_outage_sign
from podero_async._flow.retry import RequestStats
from podero_async._paging.window import Window
from podero_async.backfill._client_access import discovered, owner_of_client
from podero_async.backfill._report import FailedVehicle, Progress
from podero_async.backfill._sharding import Shard
from podero_async.backfill._values import FLEET, Run, RunSettings, StoreOwner
from podero_async.backfill.errors import ForeignStoreError
from podero_async.backfill.store._session_store import SessionStore
from podero_async.models import VehicleFailure, VehicleRef

__all__ = ["BackfillPlan", "Planning", "Vehicles", "check_owner", "check_window", "plan_backfill", "utc_now"]

Vehicles = Iterable[VehicleRef] | AsyncIterable[VehicleRef] | None

_ROSTER_PIECE = 1_024


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


@attrs.frozen(kw_only=True)
class BackfillPlan:
    """What a backfill would do, found out without reading a session or changing the store."""

    vehicles: int
    skipped: int
    """Vehicles of which nothing is to be read."""
    least_requests: int
    """One for each window of a vehicle; lists of more than 200 sessions take more."""
    windows: tuple[tuple[date, date, int], ...]
    """From, to, and of how many vehicles; the most frequent first."""
    failures: tuple[FailedVehicle, ...]
    """Users whose vehicles could not be listed."""

    def seconds_at(self, requests_per_second: float) -> float:
        """Return the least time that it takes at a rate."""
        return self.least_requests / requests_per_second


def check_window(from_date: date, to_date: date, *, include_hidden: bool, refresh_days: int, today: date) -> Window:
    """Return the window that the arguments name.

    Raises:
        ValueError: They name none, or one that lies in the future.
    """
    window = Window.of(from_date, to_date, include_hidden=include_hidden)
    if window.from_date > today:
        raise ValueError(f"from_date is {from_date}, today is {today} (UTC): nothing of this window has happened yet")
    if isinstance(refresh_days, bool) or not isinstance(refresh_days, int) or refresh_days < 0:
        raise ValueError("refresh_days must be a whole number of at least 0")
    return window


async def check_owner(store: SessionStore, source: StoreOwner) -> None:
    """See to it that the store is for nobody else.

    Raises:
        ForeignStoreError: It is. It was not touched.
    """
    from podero_async.backfill.store.duckdb.owner import owner_of  # noqa: PLC0415

    owner = await store.call(owner_of)
    if owner is not None and owner != source:
        raise ForeignStoreError(f"the store is for {owner}, not for {source}", store.path)


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
    """Say what `backfill` with these arguments would do; it lists the fleet's vehicles, and changes nothing.

    Raises:
        ValueError: As `backfill`.
        ForeignStoreError: The store is for another organization.
        PoderoError: The organization's users could not be listed.
    """
    from podero_async.backfill.store.duckdb.runs import draft_run  # noqa: PLC0415

    started = now()
    window = check_window(
        from_date, to_date, include_hidden=include_hidden, refresh_days=refresh_days, today=started.date()
    )
    planning = Planning(client, store, window, refresh_days, shard, Progress(), started)
    settings, unfinished = await planning.find(vehicles)
    draft = await store.call(draft_run, settings, unfinished)
    return BackfillPlan(
        vehicles=draft.vehicles,
        skipped=draft.skipped,
        least_requests=sum(vehicles for *_, vehicles in draft.windows),
        windows=draft.windows,
        failures=tuple(planning.progress.failures),
    )


@attrs.frozen
class Planning:
    """Finds the run of a call: the one that was left unfinished, or a new one."""

    client: PoderoClient
    store: SessionStore
    window: Window
    refresh_days: int
    shard: Shard | None
    progress: Progress
    started: datetime

    async def run(self, vehicles: Vehicles) -> Run:
        """Return the run to go on with; a new one is in the store from now on."""
        from podero_async.backfill.store.duckdb.owner import claim  # noqa: PLC0415
        from podero_async.backfill.store.duckdb.runs import found_before, start_run  # noqa: PLC0415

        settings, run = await self.find(vehicles)
        await self.store.call(claim, owner_of_client(self.client))
        if run is None:
            run = await self.store.call(start_run, settings, self.started)
        else:
            self.progress.count_before(*await self.store.call(found_before, run.run_id))
        self.progress.vehicles, self.progress.tasks, self.progress.skipped = run.vehicles, run.tasks, run.skipped
        return run

    async def find(self, vehicles: Vehicles) -> tuple[RunSettings, Run | None]:
        """Return the unfinished run of the same call; without one, the roster of vehicles is filled for a new one.

        Where an unfinished run is over the discovered fleet, the fleet is not discovered again.
        """
        from podero_async.backfill.store.duckdb.runs import resume_run, roster_digest  # noqa: PLC0415

        await check_owner(self.store, owner_of_client(self.client))  # before anything is sent
        share = f", share {self.shard}" if self.shard else ""
        settings = RunSettings(self.window, self.refresh_days, FLEET + share)
        if vehicles is not None:
            await self._fill_roster(_as_stream(vehicles))
            settings = attrs.evolve(settings, scope=await self.store.call(roster_digest) + share)
        run = await self.store.call(resume_run, settings, self.started.date())
        if vehicles is None and run is None:
            await self._discover()
        return settings, run

    async def _discover(self) -> None:
        self.progress.phase = "discovering"
        stats = RequestStats()
        try:
            await self._fill_roster(discovered(self.client, stats))
        finally:
            self.progress.requests += stats.requests
            self.progress.retries += stats.retries

    async def _fill_roster(self, found: AsyncGenerator[VehicleRef | VehicleFailure, None]) -> None:
        from podero_async.backfill.store.duckdb.runs import add_to_roster, clear_roster  # noqa: PLC0415

        await self.store.call(clear_roster)
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
                if len(vehicles) + len(failures) >= _ROSTER_PIECE:
                    await self.store.call(add_to_roster, vehicles, failures)
                    vehicles, failures = [], []
        await self.store.call(add_to_roster, vehicles, failures)


async def _as_stream(
    vehicles: Iterable[VehicleRef] | AsyncIterable[VehicleRef],
) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    if isinstance(vehicles, AsyncIterable):
        async for vehicle in vehicles:
            yield vehicle
    else:
        for vehicle in vehicles:
            yield vehicle
