"""The protocol of a store's backend: the operations that a database must offer to hold a fleet's sessions.

Each operation is atomic: if it fails or the process is killed, the store stays as it was before. If the caller of an
operation is cancelled, the operation may still take effect. The operations of one store run one after another.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import date, datetime
from typing import Any, Protocol, TypeVar, runtime_checkable
from uuid import UUID

from podero_async._fleet.vehicle import FetchedSessions
from podero_async._paging.window import Window
from podero_async.backfill._alarms import FailureCounts, Unread, Vanished
from podero_async.backfill._comparison import Compared, Drawn
from podero_async.backfill._coverage import DayCounts
from podero_async.backfill._forgotten import ForgottenUsers
from podero_async.backfill._report import BackfillPlan, BackfillReport, Written
from podero_async.backfill._sharding import Shard
from podero_async.backfill._values import Limits, Run, RunSettings, StoreOwner, WorkItem
from podero_async.backfill.store._status import Exported, Merged, RunStatus, StoreStatus
from podero_async.backfill.store._tables import StoreTables
from podero_async.models import User, VehicleFailure, VehicleRef

__all__ = [
    "BatchBuilder",
    "CommitBatch",
    "StoreBackend",
    "SupportsExport",
    "SupportsForget",
    "SupportsMerge",
    "SupportsQuery",
    "SupportsSnapshot",
    "SupportsTables",
]

T = TypeVar("T")

CommitBatch = Callable[[datetime], Awaitable[Written]]
"""Commits a sealed batch in one transaction, with the given time, and returns its effect on the table of sessions."""


class BatchBuilder(Protocol):
    """Gathers the outcomes of a run in the form in which the backend writes them."""

    @property
    def is_empty(self) -> bool:
        """Whether the current batch has no outcome."""

    @property
    def is_full(self) -> bool:
        """Whether the current batch is large enough to be committed."""

    def add(self, item: WorkItem, outcome: FetchedSessions, at: datetime, settle_to: date | None) -> None:
        """Add the sessions of a vehicle.

        Args:
            item: The work item.
            outcome: Its sessions.
            at: The time of the read.
            settle_to: The last day that the read settles, if it is proven; None if it settles none.
        """

    def add_failure(self, item: WorkItem, error: Exception, at: datetime) -> None:
        """Add a vehicle that failed."""

    def seal(self) -> CommitBatch:
        """Close the current batch, start an empty one, and return a function that commits the closed batch."""


class StoreBackend(Protocol):
    """A database that stores sessions, coverage, failures, and the records of reads and runs."""

    async def open(self) -> None:
        """Open the store; create it if it does not exist."""

    async def close(self) -> str:
        """Finish the current operation and close the store; return a warning, or an empty text if all is well."""

    async def owner(self) -> StoreOwner | None:
        """Return the owner of the store; None if no backfill has claimed it yet."""

    async def forgotten_users(self) -> ForgottenUsers:
        """Return the users that runs leave out."""

    async def kept_from(self) -> date | None:
        """Return the first day that the store keeps; None if no day was erased."""

    async def clear_roster(self) -> None:
        """Empty the roster: the vehicles of the next run. A roster is not persistent."""

    async def add_to_roster(
        self, users: list[User], vehicles: list[VehicleRef], failures: list[VehicleFailure]
    ) -> None:
        """Add users and vehicles; if a user's vehicle list failed, add the user's known vehicles."""

    async def failed(self) -> list[tuple[UUID, UUID | None]]:
        """Return the pairs of user and vehicle of failures, in order; for a failed vehicle list, the vehicle is None."""

    async def draft_run(self, settings: RunSettings) -> BackfillPlan:
        """Return the plan of a run over the roster. Nothing is stored."""

    async def record_fleet(
        self,
        shard: Shard | None,
        now: datetime,
        max_vanished: float,
        *,
        is_complete: bool,
        keep_external_ids: bool,
    ) -> Vanished:
        """Record the listed users and vehicles and, unless they are too many, those that have gone.

        Args:
            shard: The shard of the roster.
            now: The time of the discovery.
            max_vanished: The largest share of known vehicles that is recorded as gone.
            is_complete: Whether all users were listed; if not, no vehicle counts as gone.
            keep_external_ids: Whether to store the partner's own ids of users. If not, those that are stored are removed.
        """

    async def record_read(self, run_id: int, now: datetime, *, keep_external_ids: bool) -> None:
        """Record the vehicles that a run over given vehicles has read, and their users, with what the caller knows."""

    async def start_run(self, settings: RunSettings, scope: str, *, is_of_fleet: bool) -> Run:
        """Store the record of a run over the roster, and plan its work items.

        Args:
            settings: The window of the run, and the rules of its coverage.
            scope: A description of its vehicles, for the record.
            is_of_fleet: Whether the vehicles were discovered, so that failures to list users are replaced.
        """

    def work_items(self, include_hidden: bool, slice_size: int) -> AsyncGenerator[WorkItem, None]:
        """Yield the work items of the run, loaded `slice_size` at a time: first the vehicles that were never tried."""

    def new_batch(self, run_id: int, limits: Limits, owner: StoreOwner, *, keep_unknown: bool = False) -> BatchBuilder:
        """Return a builder of batches.

        Args:
            run_id: The run of the outcomes.
            limits: The size of a full batch.
            owner: Claims the store with the first read, unless the store has an owner.
            keep_unknown: Whether to store the unknown fields of the sessions. If not, those that are stored stay.
        """

    async def is_in_roster(self, vehicle: VehicleRef) -> bool:
        """Return whether the run's roster has the vehicle under its user."""

    async def absent_share(self, run_id: int) -> tuple[int, int]:
        """Return how many stored sessions the run's reads did not return, and how many there are in their windows."""

    async def confirming_items(self, include_hidden: bool, first_number: int) -> list[WorkItem]:
        """Return the work items that decide about absent sessions; numbered from `first_number` on."""

    async def withdraw_absent(self, run_id: int, done: set[int], now: datetime) -> int:
        """Mark the absent sessions as withdrawn whose confirming work items are done; return their number."""

    async def count_failures(self, run_id: int, now: datetime) -> FailureCounts:
        """Count the vehicles that failed or were not proven complete in a run, and the unreadable rows of its vehicles."""

    async def count_days(self, settings: RunSettings) -> tuple[DayCounts, Unread]:
        """Count the roster's vehicle-days in the run's window: by state, and those that are missing without a failure."""

    async def end_run(self, run_id: int, report: BackfillReport, finished_at: datetime | None) -> None:
        """Store the counts and the alarms of a run; if it is finished, delete the records past their retention."""

    async def status(self, now: datetime) -> StoreStatus:
        """Return a summary of the store."""

    async def count_window(self, window: Window, today: date) -> DayCounts:
        """Count the vehicle-days of a window by state, for all known vehicles that are not gone."""

    async def runs(self, limit: int | None) -> list[RunStatus]:
        """Return the newest runs, the newest first."""

    async def draw_comparison(self, sample: int | None, *, include_provisional: bool) -> Drawn:
        """Choose vehicles to compare with the API, at random if it is a sample, and their settled days.

        Args:
            sample: The largest number of vehicles; None chooses all.
            include_provisional: Whether to choose provisional days, too.
        """

    async def draw_differing(self) -> Drawn:
        """Choose the vehicles that differed in the comparison, and the same days again."""

    def compared_items(self, slice_size: int) -> AsyncGenerator[WorkItem, None]:
        """Yield a work item for each chosen vehicle, loaded `slice_size` at a time."""

    def new_comparison(self, limits: Limits, on_compared: Callable[[Compared], None]) -> BatchBuilder:
        """Return a builder of batches of proven reads that are compared with the store instead of written.

        Args:
            limits: The size of a full batch.
            on_compared: Is called with the result of each batch.
        """

    async def unsettle_differing(self) -> list[tuple[bool, date]]:
        """Make the days of the vehicles that differed provisional, and due to be read, and remove doubled rows.

        Returns:
            Pairs of `include_hidden` and the last day to read.
        """

    def differing_vehicles(self, include_hidden: bool, slice_size: int) -> AsyncGenerator[VehicleRef, None]:
        """Yield the vehicles that differed, each once for each of its users, loaded `slice_size` at a time."""


@runtime_checkable
class SupportsQuery(Protocol):
    """A backend that runs SQL queries of users."""

    async def query(self, sql: str, values: Sequence[Any] | None) -> list[dict[str, Any]]:
        """Run a query and return its rows."""

    def stream(self, sql: str, max_rows: int) -> AsyncGenerator[tuple[list[str], list[tuple[Any, ...]]], None]:
        """Run a query; yield its column names with at most `max_rows` rows at a time, and with no rows at the end.

        If the caller is cancelled, the query ends soon.
        """


@runtime_checkable
class SupportsExport(Protocol):
    """A backend that writes the table of sessions to files."""

    async def export(
        self,
        target: str,
        kind: str,
        *,
        partition_by: str | None,
        include_withdrawn: bool,
        since: datetime | None,
        overwrite: bool,
    ) -> Exported:
        """Write the sessions to a file or directory; replace it only after the new content is complete."""


@runtime_checkable
class SupportsSnapshot(Protocol):
    """A backend that copies itself to a file."""

    async def check_snapshot(self, target: str) -> None:
        """Check that a copy can be written to a file."""

    async def snapshot(self, target: str) -> int:
        """Write a consistent copy of the store, replace an older one with it, and return its size in bytes."""


@runtime_checkable
class SupportsMerge(Protocol):
    """A backend that writes several stores into a new one."""

    async def merge(self, target: str, stores: Sequence[str], *, overwrite: bool) -> Merged:
        """Write a store with the rows of others; replace an earlier merge only if `overwrite` is true."""


@runtime_checkable
class SupportsForget(Protocol):
    """A backend that erases a user, or old days."""

    async def forget(self, user_id: UUID) -> int:
        """Erase a user, remember a hash of the id, and return the number of erased sessions."""

    async def forget_before(self, day: date) -> int:
        """Erase all days before a day, remember the day, and return the number of erased sessions."""


@runtime_checkable
class SupportsTables(Protocol):
    """A backend that streams its tables."""

    async def read_tables(self, read: Callable[[StoreTables], T], on_cancel: Callable[[], object]) -> T:
        """Call a function in the store's thread, and return its result.

        If the caller is cancelled, `on_cancel` is called until the function has ended.
        """
