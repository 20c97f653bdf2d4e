"""The verification of a store: reads the windows of its receipts again and compares."""

from collections import Counter
from datetime import date
from typing import Literal, get_args
from uuid import UUID

import attrs

from podero_async._client import PoderoClient
from podero_async._fleet.worker_pool import Outcome
from podero_async.backfill._client_access import owner_of, read_items
from podero_async.backfill._planner import check_owner
from podero_async.backfill._report import FailedVehicle
from podero_async.backfill._values import WorkItem, digest_of
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
    """The result of comparing receipts with the current state of the API."""

    checked: int
    matching: int
    """The API has the sessions of the receipt."""
    superseded: int
    """The API has other sessions, and a later read of the same days has stored them."""
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
        """Whether every checked receipt is matching or superseded."""
        return self.matching + self.superseded == self.checked


async def verify(client: PoderoClient, store: SessionStore, sample: int | None = None) -> VerifyReport:
    """Read the windows of receipts again and compare them with the store, which is unchanged.

    A difference is not necessarily an error: sessions that ended after the last run are missing until the next run.

    Args:
        client: Reads the sessions.
        store: An open store.
        sample: The number of receipts to check, drawn at random; None checks all of them.

    Raises:
        ValueError: `sample` is less than 1.
        ForeignStoreError: The store belongs to another organization.
        AuthenticationError: The credentials were refused.
    """
    if sample is not None and sample < 1:
        raise ValueError(f"sample must be at least 1, not {sample}")
    await check_owner(store, owner_of(client))
    drawn = await store.backend.sample_receipts(sample)
    comparison = _Comparison(store, {item.number: digest for item, digest in drawn})
    async with read_items(client, (item for item, _ in drawn)) as stream:
        async for item, outcome in stream:
            comparison.requests += outcome.requests
            comparison.verdicts[await comparison.compare(item, outcome)] += 1
    return comparison.report()


_Verdict = Literal["matching", "superseded", "differing", "unproven", "failed"]


@attrs.define
class _Comparison:
    store: SessionStore
    digests: dict[int, str]
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
        if digest_of(shown) == self.digests[item.number]:
            return "matching"
        stored = await self.store.backend.stored_ids(item)
        if shown == stored:
            return "superseded"
        if len(self.differences) < _MAX_LISTED:
            self.differences.append(_difference(item, missing=shown - stored, surplus=stored - shown))
        return "differing"

    def report(self) -> VerifyReport:
        return VerifyReport(
            checked=len(self.digests),
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
