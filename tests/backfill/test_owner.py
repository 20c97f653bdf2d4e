"""A store belongs to one organization at one origin; all others are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from podero_async import ClientCredentials, PoderoClient, PoderoError
from podero_async.backfill import ForeignStoreError, SessionStore, backfill, plan_backfill, verify
from podero_async.testing import PoderoSimulator
from tests._support.clients import ORG, QUICK, client_of
from tests._support.expected_rows import FIRST, LAST
from tests.backfill.conftest import AGAIN, Clock


def _client_of_another(sim: PoderoSimulator) -> PoderoClient:
    """Make a client for another organization at the same origin."""
    credentials = ClientCredentials(sim.client_id, sim.client_secret)
    return PoderoClient(ORG, credentials, base_url=sim.base_url, retry=QUICK)


async def _fill(path: Path, client: PoderoClient, clock: Clock) -> None:
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)


async def _do_backfill(client: PoderoClient, store: SessionStore, clock: Clock) -> None:
    await backfill(client, store, FIRST, LAST, now=clock)


async def _do_plan(client: PoderoClient, store: SessionStore, clock: Clock) -> None:
    await plan_backfill(client, store, FIRST, LAST, now=clock)


async def _do_verify(client: PoderoClient, store: SessionStore, _: Clock) -> None:
    await verify(client, store)


@pytest.mark.parametrize("do", [_do_backfill, _do_plan, _do_verify])
async def test_another_organization_is_refused(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, do: Callable[..., Any]
) -> None:
    """A client of another organization is refused without a request, and the store's file is unchanged."""
    await _fill(path, client, clock)
    before, asked = path.read_bytes(), sim.counts.total_requests
    async with _client_of_another(sim) as other, SessionStore(path) as store:
        with pytest.raises(ForeignStoreError) as refused:
            await do(other, store, clock)
    ours, theirs = (f"organization {org_id} at {sim.base_url}" for org_id in (sim.org_id, ORG))
    assert str(refused.value) == f"the store is for {ours}, not for {theirs}: {path}"
    assert (path.read_bytes(), sim.counts.total_requests) == (before, asked)


async def test_the_same_organization_at_another_origin_is_refused(
    client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A client of the same organization at another origin is refused without a request."""
    await _fill(path, client, clock)
    async with PoderoSimulator(users=6, vehicles=12, sessions_per_vehicle=30, seed=3) as sandbox:
        async with client_of(sandbox) as other, SessionStore(path) as store:
            with pytest.raises(ForeignStoreError, match="not for organization"):
                await backfill(other, store, FIRST, LAST, now=clock)
        assert sandbox.counts.total_requests == 0


@pytest.mark.slow
@pytest.mark.parametrize("was_stopped", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_a_store_without_an_owner_is_claimed_by_the_first_backfill(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, was_stopped: bool
) -> None:
    """A backfill that reads a vehicle claims a store that an older release left without an owner."""
    stop = asyncio.Event()
    sim.before_page = lambda asked: stop.set() if was_stopped and asked.number == 7 else None
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, stop=stop, now=clock)
    with duckdb.connect(str(path)) as con:
        con.execute("DELETE FROM meta WHERE key IN ('organization', 'origin')")
    async with SessionStore(path) as store:
        assert (await store.status()).org_id is None
        report = await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
        assert report.is_clean
        await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
        assert await store.query("SELECT count(*) AS rows FROM meta") == [{"rows": 5}], "the owner is stored once"
        status = await store.status()
        assert (status.org_id, status.origin) == (str(sim.org_id), sim.base_url)
        async with _client_of_another(sim) as other:
            with pytest.raises(ForeignStoreError):
                await backfill(other, store, FIRST, LAST, now=clock)


@pytest.mark.slow
async def test_a_run_without_a_read_claims_no_store(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A run over given vehicles with another organization's client fails, and leaves the store to the right one."""
    async with _client_of_another(sim) as mistyped, SessionStore(path) as store:
        report = await backfill(mistyped, store, FIRST, LAST, vehicles=sim.vehicles, now=clock)
        assert (report.done, report.failed) == (0, 12)
        assert (await store.status(clock)).org_id is None
        assert (await backfill(client, store, FIRST, LAST, now=clock)).is_clean
        assert (await store.status(clock)).org_id == str(sim.org_id)


async def test_an_organization_that_cannot_be_listed_claims_no_store(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If the organization cannot be listed, the backfill does not claim the store."""
    async with _client_of_another(sim) as mistyped, SessionStore(path) as store:
        with pytest.raises(PoderoError):
            await backfill(mistyped, store, FIRST, LAST, now=clock)
        assert (await backfill(client, store, FIRST, LAST, now=clock)).is_clean
