"""The protocol of a store's backend: the operations that a database must offer to hold a fleet's sessions.

Each operation is atomic: if it fails or the process is killed, the store stays as it was before. If the caller of an
operation is cancelled, the operation may still take effect. The operations of one store run one after another.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import date, datetime
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

from podero_async.backfill._report import BackfillPlan, Findings, Written
from podero_async.backfill._values import Limits, Run, RunSettings, StoreOwner, WorkItem
from podero_async.backfill.store._status import Exported, StoreStatus
from podero_async.models import VehicleFailure, VehicleRef, VehicleSessions

__all__ = ["BatchBuilder", "CommitBatch", "StoreBackend", "SupportsExport", "SupportsQuery", "SupportsSnapshot"]

CommitBatch = Callable[[], Awaitable[Written]]
"""Commits a sealed batch in one transaction, and returns its effect on the table of sessions."""


class BatchBuilder(Protocol):
    """Gathers the outcomes of a run in the form in which the backend writes them."""

    @property
    def is_empty(self) -> bool:
        """Whether the current batch has no outcome."""

    @property
    def is_full(self) -> bool:
        """Whether the current batch is large enough to be committed."""

    async def add(self, item: WorkItem, outcome: VehicleSessions, at: datetime) -> None:
        """Add the sessions of a vehicle; long lists are converted a slice at a time, so that the loop is not blocked.

        The sessions are added to one batch, all or none: if the caller is cancelled, none of them was added.
        """

    def add_failure(self, item: WorkItem, error: Exception, at: datetime) -> None:
        """Add a vehicle that failed."""

    def seal(self) -> CommitBatch:
        """Close the current batch, start an empty one, and return a function that commits the closed batch."""


class StoreBackend(Protocol):
    """A database that stores sessions, receipts, failures, and runs with their work items."""

    async def open(self) -> None:
        """Open the store; create it if it does not exist."""

    async def close(self) -> None:
        """Finish the current operation and close the store."""

    async def owner(self) -> StoreOwner | None:
        """Return the owner of the store; None if no backfill has claimed it yet."""

    async def claim(self, owner: StoreOwner) -> None:
        """Store the owner, unless the store has one."""

    async def clear_roster(self) -> None:
        """Empty the roster: the vehicles of the next run. A roster is not persistent."""

    async def add_to_roster(self, vehicles: list[VehicleRef], failures: list[VehicleFailure]) -> None:
        """Add vehicles; if a user's vehicle list failed, add the user's vehicles that are in the store."""

    async def roster_scope(self) -> str:
        """Return the scope of a run over the roster (`scope_of_list`), which does not depend on the order."""

    async def resume_run(self, settings: RunSettings, today: date) -> Run | None:
        """Return the unfinished run with these settings, if it started today or its window had ended when it started.

        If the window includes the day of the run, another day has more sessions and needs a run of its own.
        """

    async def start_run(self, settings: RunSettings, now: datetime) -> Run:
        """Store a new run over the roster; older unfinished runs of the same scope are discarded."""

    async def draft_run(self, settings: RunSettings, unfinished: Run | None) -> BackfillPlan:
        """Return the rest of an unfinished run, or the plan of a new run over the roster. Nothing is stored."""

    async def findings_of(self, run_id: int) -> Findings:
        """Return the problems that earlier calls of a run found."""

    def work_items(self, run_id: int, include_hidden: bool, slice_size: int) -> AsyncGenerator[WorkItem, None]:
        """Yield the work items of a run that have no receipt yet, loaded `slice_size` at a time."""

    def new_batch(self, run_id: int, complete_until: date, limits: Limits) -> BatchBuilder:
        """Return a builder of batches.

        Args:
            run_id: The run of the outcomes.
            complete_until: The last day that had ended when the run started: later days are not complete yet.
            limits: The size of a full batch.
        """

    async def finish_run(self, run_id: int, now: datetime) -> None:
        """Close a run after every vehicle was tried, and keep only the newest row of sessions that changed vehicles."""

    async def status(self) -> StoreStatus:
        """Return a summary of the store."""

    async def sample_receipts(self, sample: int | None) -> list[tuple[WorkItem, str]]:
        """Return the newest receipt of each window with its digest; at most `sample` of them, drawn at random."""

    async def stored_ids(self, item: WorkItem) -> set[UUID]:
        """Return the ids of the stored sessions of a window, without withdrawn ones."""


@runtime_checkable
class SupportsQuery(Protocol):
    """A backend that runs SQL queries of users."""

    async def query(self, sql: str, values: Sequence[Any] | None) -> list[dict[str, Any]]:
        """Run a query and return its rows."""


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

    async def snapshot(self, target: str) -> int:
        """Write a consistent copy of the store, replace an older one with it, and return its size in bytes."""
