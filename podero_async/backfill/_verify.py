"""Ask the API again, and hold what it says against the receipts and the rows of the store."""

from datetime import date
from uuid import UUID

import attrs

from podero_async._client import PoderoClient
from podero_async._fleet.worker_pool import Outcome
from podero_async.backfill._client_access import owner_of_client, reads
from podero_async.backfill._planner import check_owner
from podero_async.backfill._report import FailedVehicle
from podero_async.backfill._values import WorkItem, digest_of
from podero_async.backfill.store._session_store import SessionStore
from podero_async.models import Completeness, VehicleFailure, VehicleRef

__all__ = ["Difference", "VerifyReport", "verify"]

_MAX_LISTED = 100


@attrs.frozen(kw_only=True)
class Difference:
    """A window of a vehicle in which the API and the store do not hold the same sessions."""

    vehicle: VehicleRef
    from_date: date
    to_date: date
    include_hidden: bool
    missing: tuple[str, ...]
    """Ids that the API shows, and the store does not hold."""
    surplus: tuple[str, ...]
    """Ids that the store holds, and the API does not show."""


@attrs.frozen(kw_only=True)
class VerifyReport:
    """How receipts compare with what the API says now."""

    checked: int
    matching: int
    """The API shows the very sessions that the receipt was written for."""
    superseded: int
    """It shows others, which the store has learned of since, by a later read of the same days."""
    differing: int
    unproven: int
    """The read could not be proven complete, so it says nothing."""
    failed: int
    requests: int
    differences: tuple[Difference, ...]
    """The first hundred of them."""
    failures: tuple[FailedVehicle, ...]

    @property
    def is_clean(self) -> bool:
        """Whether all that was checked is as the store has it."""
        return self.matching + self.superseded == self.checked


async def verify(client: PoderoClient, store: SessionStore, sample: int | None = None) -> VerifyReport:
    """Read the windows of receipts again, and compare; the store is not changed.

    A difference need not be a fault: sessions that ended since the last run are missing until the next.

    Args:
        client: Where to read.
        store: What to check; open.
        sample: How many receipts, drawn at random; None checks all of them.

    Raises:
        ValueError: The sample is not at least 1.
        ForeignStoreError: The store is for another organization.
        AuthenticationError: The credentials were refused.
    """
    from podero_async.backfill.store.duckdb.queries import sample_receipts  # noqa: PLC0415

    if sample is not None and sample < 1:
        raise ValueError("sample must be at least 1")
    await check_owner(store, owner_of_client(client))
    drawn = await store.call(sample_receipts, sample)
    digests = {task.number: digest for task, digest in drawn}
    checking = _Checking(store, digests)
    async with reads(client, (task for task, _ in drawn)) as stream:
        async for task, result in stream:
            await checking.take(task, result)
    return checking.report()


@attrs.define
class _Checking:
    store: SessionStore
    digests: dict[int, str]
    matching: int = 0
    superseded: int = 0
    differing: int = 0
    unproven: int = 0
    requests: int = 0
    differences: list[Difference] = attrs.field(factory=list)
    failures: list[FailedVehicle] = attrs.field(factory=list)

    async def take(self, task: WorkItem, result: Outcome) -> None:
        from podero_async.backfill.store.duckdb.queries import held_ids  # noqa: PLC0415

        self.requests += result.requests
        if isinstance(result, VehicleFailure):
            self.failures.append(FailedVehicle.of(result))
        elif result.completeness is Completeness.UNPROVEN:
            self.unproven += 1
        elif digest_of(row.id for row in result.sessions) == self.digests[task.number]:
            self.matching += 1
        else:
            shown = {row.id for row in result.sessions}
            held = await self.store.call(held_ids, task)
            if shown == held:
                self.superseded += 1
            else:
                self.differing += 1
                self._differ(task, missing=shown - held, surplus=held - shown)

    def _differ(self, task: WorkItem, *, missing: set[UUID], surplus: set[UUID]) -> None:
        if len(self.differences) < _MAX_LISTED:
            difference = Difference(
                vehicle=task.vehicle,
                from_date=task.window.from_date,
                to_date=task.window.to_date,
                include_hidden=task.window.include_hidden,
                missing=tuple(sorted(map(str, missing))),
                surplus=tuple(sorted(map(str, surplus))),
            )
            self.differences.append(difference)

    def report(self) -> VerifyReport:
        return VerifyReport(
            checked=len(self.digests),
            matching=self.matching,
            superseded=self.superseded,
            differing=self.differing,
            unproven=self.unproven,
            failed=len(self.failures),
            requests=self.requests,
            differences=tuple(self.differences),
            failures=tuple(self.failures),
        )
