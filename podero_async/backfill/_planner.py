"""The planner of a backfill: lists the vehicles of a run. Coverage and the clock say which of their days it reads."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import attrs

from podero_async._client import PoderoClient
from podero_async._failures import is_outage_sign
from podero_async._paging.window import Window
from podero_async.backfill._alarms import vanished_alarm
from podero_async.backfill._client_access import discover_fleet, list_vehicles_of, owner_of
from podero_async.backfill._report import BackfillPlan, FailedVehicle, Progress
from podero_async.backfill._sharding import Shard
from podero_async.backfill._values import Bounds, Limits, Run, RunSettings, StoreOwner
from podero_async.backfill.errors import ForeignStoreError
from podero_async.backfill.store import SessionStore, StoreBackend
from podero_async.errors import CompletenessError
from podero_async.models import User, VehicleFailure, VehicleRef

__all__ = [
    "DEFAULT_BOUNDS",
    "DEFAULT_FRESH_FOR",
    "Planner",
    "Vehicles",
    "check_owner",
    "kept_window",
    "plan_backfill",
    "settings_of",
    "utc_now",
]

_logger = logging.getLogger("podero_async")

Vehicles = Iterable[VehicleRef] | AsyncIterable[VehicleRef] | None

DEFAULT_BOUNDS = Bounds()
DEFAULT_FRESH_FOR = timedelta(hours=12)
_MAX_SETTLE_DAYS = 36_500


def utc_now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)


def settings_of(
    from_date: date,
    to_date: date,
    *,
    include_hidden: bool,
    settle_days: int,
    fresh_for: timedelta,
    started: datetime,
    keep_unknown: bool = False,
) -> RunSettings:
    """Return the settings of a run; its window ends with the day of the run, since the API lists nothing later.

    Raises:
        ValueError: The days are not a window, the window lies in the future, or a setting is out of range.
    """
    window = Window.of(from_date, to_date, include_hidden=include_hidden)
    today = started.astimezone(UTC).date()
    if window.from_date > today:
        raise ValueError(f"from_date is {from_date}, today is {today} (UTC): nothing of this window has happened yet")
    if isinstance(settle_days, bool) or not isinstance(settle_days, int) or not 0 <= settle_days <= _MAX_SETTLE_DAYS:
        raise ValueError(f"settle_days must be a whole number from 0 to {_MAX_SETTLE_DAYS}, not {settle_days!r}")
    if not isinstance(fresh_for, timedelta) or fresh_for < timedelta():
        raise ValueError(f"fresh_for must be a timedelta of at least 0, not {fresh_for!r}")
    window = attrs.evolve(window, to_date=min(window.to_date, today))
    return RunSettings(window, settle_days, fresh_for, started, keep_unknown)


async def check_owner(store: SessionStore, owner: StoreOwner) -> None:
    """Check that a store is unclaimed or has the given owner.

    Raises:
        ForeignStoreError: The store has another owner. It is unchanged.
    """
    found = await store.backend.owner()
    if found is not None and found != owner:
        raise ForeignStoreError(f"the store is for {found}, not for {owner}", store.path)


async def kept_window(store: SessionStore, window: Window) -> Window:
    """Return the days of a window that a store keeps.

    Raises:
        ValueError: `SessionStore.forget_before` has erased all of them.
    """
    first_day = await store.backend.kept_from()
    if first_day is None or first_day <= window.from_date:
        return window
    if window.to_date < first_day:
        raise ValueError(
            f"to_date is {window.to_date}, and the store keeps no day before {first_day}: they were erased"
        )
    return attrs.evolve(window, from_date=first_day)


async def plan_backfill(
    client: PoderoClient,
    store: SessionStore,
    from_date: date,
    to_date: date,
    *,
    vehicles: Vehicles = None,
    only_failed: bool = False,
    include_hidden: bool = False,
    settle_days: int = 30,
    fresh_for: timedelta = DEFAULT_FRESH_FOR,
    shard: Shard | None = None,
    now: Callable[[], datetime] = utc_now,
) -> BackfillPlan:
    """Return the work that `backfill` would do with these arguments.

    The organization's vehicles are listed if none are given; no session is read. The store is unchanged.

    Raises:
        ValueError: As `backfill`.
        ForeignStoreError: The store belongs to another organization, or to the same one at another origin.
        PoderoError: The organization's users could not be listed.
    """
    settings = settings_of(
        from_date,
        to_date,
        include_hidden=include_hidden,
        settle_days=settle_days,
        fresh_for=fresh_for,
        started=now(),
    )
    planner = Planner(client, store, settings, shard, Progress(), DEFAULT_BOUNDS, Limits(), only_failed)
    await planner.list_vehicles(vehicles)
    plan = await store.backend.draft_run(planner.settings)
    return attrs.evolve(plan, failures=tuple(planner.progress.failures))


@attrs.define
class Planner:
    """Lists the vehicles of a call, and plans its run."""

    client: PoderoClient
    store: SessionStore
    settings: RunSettings
    """Its window is cut to the days that the store keeps, when the vehicles are listed."""
    shard: Shard | None
    progress: Progress
    bounds: Bounds
    limits: Limits
    only_failed: bool = False
    keep_external_ids: bool = True
    is_of_fleet: bool = attrs.field(default=True, init=False)
    """Whether the vehicles are those of a discovery."""

    async def plan_run(self, vehicles: Vehicles) -> Run:
        """Store the record of a new run, and plan its work items."""
        incomplete = await self.list_vehicles(vehicles)
        backend, progress = self.store.backend, self.progress
        self.is_of_fleet = vehicles is None and not self.only_failed
        if self.is_of_fleet:
            found = await backend.record_fleet(
                self.shard,
                self.settings.started,
                self.bounds.max_vanished,
                is_complete=incomplete is None,
                keep_external_ids=self.keep_external_ids,
            )
            progress.vanished = found.vanished
            progress.alarms += vanished_alarm(found, self.bounds)
        if incomplete is not None:
            progress.alarms.append(f"some users may be missing, and their vehicles with them: {incomplete}")
        scope = "the fleet" if self.is_of_fleet else "failed vehicles" if self.only_failed else "a list of vehicles"
        if self.shard is not None:
            scope += f", shard {self.shard}"
        run = await backend.start_run(self.settings, scope, is_of_fleet=self.is_of_fleet)
        progress.vehicles, progress.work_items, progress.skipped = run.vehicles, run.work_items, run.skipped
        return run

    async def list_vehicles(self, vehicles: Vehicles) -> CompletenessError | None:
        """Fill the roster with the vehicles of the call; return the error if the list of users is incomplete."""
        if self.only_failed and vehicles is not None:
            raise ValueError("only_failed reads the failed vehicles of the store: do not pass vehicles as well")
        await check_owner(self.store, owner_of(self.client))  # before the first request
        await self._cut_window()
        if self.only_failed:
            await self._fill_roster(self._failed())
            return None
        if vehicles is not None:
            await self._fill_roster(_as_stream(vehicles))
            return None
        incomplete = await self._discover()
        if incomplete is not None:
            failed = FailedVehicle(
                user_id=None, vehicle_id=None, kind=type(incomplete).__name__, message=str(incomplete)
            )
            self.progress.count_failure(failed, is_outage=False)
        return incomplete

    async def _cut_window(self) -> None:
        asked = self.settings.window
        window = await kept_window(self.store, asked)
        if window != asked:
            _logger.info("days before %s were erased, so they are not read again", window.from_date)
            self.settings = attrs.evolve(self.settings, window=window)

    async def _failed(self) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
        """Yield the vehicles that failed, and list those of users with a failed list again."""
        for user_id, vehicle_id in await self.store.backend.failed():
            if vehicle_id is not None:
                yield VehicleRef(user_id=user_id, vehicle_id=vehicle_id)
            else:
                for found in await list_vehicles_of(self.client, user_id, self.progress):
                    yield found

    async def _discover(self) -> CompletenessError | None:
        """Fill the roster with all vehicles that are found; return the error if the list of users is incomplete."""
        self.progress.phase = "discovering"
        incomplete: CompletenessError | None = None
        users: list[User] = []
        forgotten = await self.store.backend.forgotten_users()

        def takes(user: User) -> bool:
            is_taken = self._is_in_shard(user.id) and user.id not in forgotten
            if is_taken:
                users.append(user)
            return is_taken

        async def found() -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
            nonlocal incomplete
            try:
                async with aclosing(discover_fleet(self.client, self.progress, takes)) as vehicles:
                    async for vehicle in vehicles:
                        yield vehicle
            except CompletenessError as error:
                incomplete = error

        await self._fill_roster(found(), users)
        return incomplete

    def _is_in_shard(self, user_id: UUID) -> bool:
        return self.shard is None or self.shard.holds(user_id)

    async def _fill_roster(
        self, found: AsyncGenerator[VehicleRef | VehicleFailure, None], users: list[User] | None = None
    ) -> None:
        """Add to the roster: vehicles, failures and, for a discovery, the users that it has appended to `users`."""
        backend = self.store.backend
        await backend.clear_roster()
        forgotten = await backend.forgotten_users()
        users = [] if users is None else users
        vehicles: list[VehicleRef] = []
        failures: list[VehicleFailure] = []
        async with aclosing(found):
            async for each in found:
                if each.user_id in forgotten or not self._is_in_shard(each.user_id):
                    continue
                if isinstance(each, VehicleFailure):
                    failures.append(each)
                    self.progress.count_failure(FailedVehicle.of(each), is_outage=is_outage_sign(each.error))
                else:
                    vehicles.append(each)
                    self.progress.vehicles += 1
                if len(users) + len(vehicles) + len(failures) >= self.limits.roster_slice:
                    await _add(backend, users, vehicles, failures)
        await _add(backend, users, vehicles, failures)


async def _add(
    backend: StoreBackend, users: list[User], vehicles: list[VehicleRef], failures: list[VehicleFailure]
) -> None:
    """Add users, vehicles and failures to the roster, and empty the lists."""
    added = users.copy(), vehicles.copy(), failures.copy()
    for each in (users, vehicles, failures):
        each.clear()
    await backend.add_to_roster(*added)


async def _as_stream(
    vehicles: Iterable[VehicleRef] | AsyncIterable[VehicleRef],
) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    if isinstance(vehicles, AsyncIterable):
        async for vehicle in vehicles:
            yield vehicle
    else:
        for vehicle in vehicles:
            yield vehicle
