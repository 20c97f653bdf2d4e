"""The verification of a store: reads its days again and compares the sessions."""

from collections import Counter
from datetime import date
from typing import Literal, get_args
from uuid import UUID

import attrs

from podero_async._client import PoderoClient
from podero_async._fleet.worker_pool import Outcome
from podero_async.backfill._client_access import owner_of, read_windows
from podero_async.backfill._planner import check_owner
from podero_async.backfill._report import FailedVehicle
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store import SessionStore
from podero_async.models import Completeness, VehicleFailure, VehicleRef

__all__ = ["Difference", "VerifyReport", "verify"]

_MAX_LISTED = 100


@attrs.frozen(kw_only=True)
class Difference:
    """A window of a vehicle for which the API and the store have different sessions."""

    vehicle: VehicleRef
    from_date: date
    to_date: date
    include_hidden: bool
    missing: tuple[str, ...]
    """Ids that only the API has."""
    surplus: tuple[str, ...]
    """Ids that only the store has."""


@attrs.frozen(kw_only=True)
class VerifyReport:
    """The result of comparing the stored days of vehicles with the current state of the API."""

    checked: int
    """Windows of vehicles."""
    matching: int
    """The API and the store have the same sessions."""
    differing: int
    unproven: int
    """The new read could not be proven complete, so it was not compared."""
    failed: int
    requests: int
    differences: tuple[Difference, ...]
    """At most 100 of the differences."""
    failures: tuple[FailedVehicle, ...]

    @property
    def is_clean(self) -> bool:
        """Whether every checked window is matching."""
        return self.matching == self.checked


async def verify(client: PoderoClient, store: SessionStore, sample: int | None = None) -> VerifyReport:
    """Read the days that the store has again and compare the sessions; the store is unchanged.

    A difference is not necessarily an error: sessions that ended after the last run are missing until the next run.

    Args:
        client: Reads the sessions.
        store: An open store.
        sample: The number of vehicles to check, drawn at random; None checks all of them.

    Raises:
        ValueError: `sample` is less than 1.
        ForeignStoreError: The store belongs to another organization.
        AuthenticationError: The credentials were refused.
    """
    if sample is not None and sample < 1:
        raise ValueError(f"sample must be at least 1, not {sample}")
    await check_owner(store, owner_of(client))
    drawn = await store.backend.sample_windows(sample)
    comparison = _Comparison(store, len(drawn))
    async with read_windows(client, iter(drawn)) as stream:
        async for item, outcome in stream:
            comparison.requests += outcome.requests
            comparison.verdicts[await comparison.compare(item, outcome)] += 1
    return comparison.report()


_Verdict = Literal["matching", "differing", "unproven", "failed"]


@attrs.define
class _Comparison:
    store: SessionStore
    checked: int
    requests: int = 0
    verdicts: Counter[_Verdict] = attrs.field(factory=Counter)
    differences: list[Difference] = attrs.field(factory=list)
    failures: list[FailedVehicle] = attrs.field(factory=list)

    async def compare(self, item: WorkItem, outcome: Outcome) -> _Verdict:
        if isinstance(outcome, VehicleFailure):
            self.failures.append(FailedVehicle.of(outcome))
            return "failed"
        if outcome.completeness is Completeness.UNPROVEN:
            return "unproven"
        shown = {row.id for row in outcome.sessions}
        stored = await self.store.backend.stored_ids(item)
        if shown == stored:
            return "matching"
        if len(self.differences) < _MAX_LISTED:
            self.differences.append(_difference(item, missing=shown - stored, surplus=stored - shown))
        return "differing"

    def report(self) -> VerifyReport:
        return VerifyReport(
            checked=self.checked,
            **{verdict: self.verdicts[verdict] for verdict in get_args(_Verdict)},
            requests=self.requests,
            differences=tuple(self.differences),
            failures=tuple(self.failures),
        )


def _difference(item: WorkItem, *, missing: set[UUID], surplus: set[UUID]) -> Difference:
    return Difference(
        vehicle=item.vehicle,
        **attrs.asdict(item.window),
        missing=tuple(sorted(map(str, missing))),
        surplus=tuple(sorted(map(str, surplus))),
    )
