"""`podero-async forget`: erases a user."""

from __future__ import annotations

import json
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
