"""`podero-async forget`: erases a user or old days."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from podero_async.testing import PoderoSimulator
from tests._support.commands import Call, whole_fleet


@pytest.mark.slow
async def test_a_user_is_erased(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """The command erases the user's sessions, and the next backfill does not fetch them again."""
    user = served.vehicles[0].user_id
    counts = {True: 0, False: 0}
    for vehicle in served.vehicles:
        counts[vehicle.user_id == user] += len(served.truth(vehicle))
    ended = await call("forget", f"--store={filled}", f"--user={user}")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"{counts[True]} sessions erased; later runs leave the user out\n"
    assert (await call(*whole_fleet(served, filled), "--fresh-for=0")).code == 0
    again = await call("forget", f"--store={filled}", f"--user={user}", "--json")
    assert json.loads(again.out) == {"sessions": 0}
    status = json.loads((await call("status", f"--store={filled}", "--json")).out)
    assert status["sessions"] == counts[False]


@pytest.mark.slow
async def test_old_days_are_erased(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """The command erases the older sessions and says which days stay; later runs of older days are a usage error."""
    first, day = served.first_day, served.first_day + timedelta(days=10)
    forget, yesterday = ["forget", f"--store={filled}"], day - timedelta(days=1)
    old = sum(len(served.truth(vehicle, first, yesterday)) for vehicle in served.vehicles)
    ended = await call(*forget, f"--before={day}")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"{old} sessions erased; later runs read no day before {day}\n"
    again = await call(*forget, f"--before={first}")
    said = f"later runs read no day before {day}, since an earlier call has erased the days before {day}"
    assert again.out == f"0 sessions erased; {said}\n"
    assert json.loads((await call(*forget, f"--before={day}", "--json")).out) == {"sessions": 0}
    assert f"kept      days from {day} on; older ones were erased" in (await call("status", f"--store={filled}")).out
    for more in ((), ("--dry-run",)):
        refused = await call("backfill", f"--store={filled}", f"--from={first}", f"--to={yesterday}", *more)
        assert (refused.code, f"--to is {yesterday}, and the store keeps no day before {day}" in refused.complaint) == (
            2,
            True,
        )
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    assert (await call(*forget, f"--before={tomorrow}")).code == 2
    assert "not allowed with argument" in (await call(*forget, f"--before={day}", "--external-id=x")).complaint
