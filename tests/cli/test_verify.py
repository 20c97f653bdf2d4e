"""`podero-async verify`: differences between a store and the API, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

from podero_async.testing import Fault, PoderoSimulator
from tests._support.commands import Call

_REPORT_KEYS = "checked matching differing unproven failed requests differences failures is_clean"


async def test_a_store_that_equals_the_api(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """Equal windows are exit code 0, and the store is not changed."""
    before = filled.read_bytes()
    ended = await call("verify", f"--store={filled}")
    assert (ended.code, ended.err) == (0, "")
    assert "10 checked, with 10 requests" in ended.out
    assert "equal     10" in ended.out
    assert filled.read_bytes() == before


async def test_a_sample(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """`--sample` reads that many vehicles; the JSON report has fixed keys."""
    asked = served.counts.requests["sessions"]
    ended = await call("verify", f"--store={filled}", "--sample=3", "--json")
    report = json.loads(ended.out)
    assert report.keys() == set(_REPORT_KEYS.split())
    assert (ended.code, report["checked"], report["is_clean"]) == (0, 3, True)
    assert served.counts.requests["sessions"] - asked == 3


async def test_differences_are_exit_code_1(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """A window with other sessions is one line on stderr, with the counts of both sides."""
    one, other = served.vehicles[:2]
    new = served.insert(one)
    gone = served.truth(other)[0]["id"]
    served.remove(other, gone)
    ended = await call("verify", f"--store={filled}")
    assert ended.code == 1
    assert "different 2" in ended.out
    lines = sorted(ended.err.splitlines())
    assert [line.rpartition(": ")[2] for line in lines if str(one.vehicle_id) in line] == [
        "1 sessions only in the API, 0 only in the store"
    ]
    assert any(
        str(other.vehicle_id) in line and "0 sessions only in the API, 1 only in the store" in line for line in lines
    )
    report = json.loads((await call("verify", f"--store={filled}", "--json")).out)
    assert {tuple(each["missing"] + each["surplus"]) for each in report["differences"]} == {(new["id"],), (gone,)}


async def test_failures_are_exit_code_1(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """If a window cannot be read, it is one line on stderr, and the exit code is 1."""
    served.add_fault(Fault(kind="status", status=404, endpoint="sessions", nth=1))
    ended = await call("verify", f"--store={filled}")
    assert ended.code == 1
    assert "failed    1" in ended.out
    assert "HTTP 404" in ended.complaint


async def test_an_api_that_is_down_is_exit_code_4(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """If no window can be read, the exit code is 4."""
    served.add_fault(Fault(kind="status", status=503, endpoint="sessions"))
    ended = await call("verify", f"--store={filled}", "--sample=2", "--json")
    assert (ended.code, json.loads(ended.out)["failed"]) == (4, 2)
