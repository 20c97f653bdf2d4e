"""A backfill of a fleet whose list of users is shorter than its total."""

from __future__ import annotations

import asyncio
from datetime import date
from pathlib import Path
from uuid import UUID

import pytest

from podero_async.backfill import Progress, SessionStore, backfill, plan_backfill
from podero_async.cli._output.report import list_failures
from tests._support.directory import Directory

DAYS = date(2026, 1, 1), date(2026, 1, 31)


@pytest.mark.slow
async def test_a_backfill_with_an_incomplete_list_of_users_reads_all_listed_and_is_not_clean(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All listed vehicles are read, and the plan, the report and the command's output say that some may be missing."""
    directory = Directory(list(range(60)), total_is_off_by=1)
    async with directory.client() as client, SessionStore(path) as store:
        plan = await plan_backfill(client, store, *DAYS)
        assert [(failed.user_id, failed.kind) for failed in plan.failures] == [(None, "CompletenessError")]
        for _ in range(2):
            report = await backfill(client, store, *DAYS)
            assert (report.finished, report.vehicles, report.failed, report.is_clean) == (True, 60, 1, False)
            (failed,) = report.failures
            assert "60 rows delivered, the server counts 61" in failed.message
            (alarm,) = report.alarms
            assert alarm.startswith("some users may be missing")
        list_failures(report.failures, report.failed)
        assert capsys.readouterr().err.endswith(f"some vehicles may be missing: {failed.message}\n")
        directory.total_is_off_by = 0
        assert (await backfill(client, store, *DAYS)).is_clean


@pytest.mark.slow
async def test_the_users_are_listed_again_after_an_unfinished_run(path: Path) -> None:
    """After a stop, the next call lists the users again, so it does not end clean while users are missing."""
    directory = Directory(list(range(60)), total_is_off_by=1)
    stop, progress = asyncio.Event(), Progress()
    async with directory.client() as client, SessionStore(path) as store:
        reading = asyncio.create_task(backfill(client, store, *DAYS, stop=stop, progress=progress))
        while progress.phase in ("starting", "discovering"):
            await asyncio.sleep(0.001)
        stop.set()
        assert not (await reading).finished
        again = await backfill(client, store, *DAYS)
        assert (again.finished, again.is_clean) == (True, False)


@pytest.mark.slow
async def test_a_backfill_with_unreadable_ids_reads_all_others_and_is_not_clean(path: Path) -> None:
    """A user and a vehicle without a readable id are failures of every run, and no vehicle counts as gone."""
    directory = Directory(list(range(60)))
    async with directory.client() as client, SessionStore(path) as store:
        assert (await backfill(client, store, *DAYS)).is_clean
        directory.without_id, directory.with_odd_vehicle = {7}, {9}
        for _ in range(2):
            report = await backfill(client, store, *DAYS)
            assert (report.finished, report.vehicles, report.vanished, report.is_clean) == (True, 59, 0, False)
            failed = {failure.user_id: failure.message for failure in report.failures}
            assert set(failed) == {None, str(UUID(int=9))}
            assert "a user cannot be read" in failed[None]
            assert "expected a uuid" in failed[str(UUID(int=9))]
        directory.without_id, directory.with_odd_vehicle = set(), set()
        assert (await backfill(client, store, *DAYS)).is_clean
