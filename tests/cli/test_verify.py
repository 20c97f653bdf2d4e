"""`podero-async verify`: the API is asked again, and a difference is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from podero_async.testing import Fault, PoderoSimulator
from tests.cli.conftest import Call


async def test_a_store_that_is_right(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """A good store would be doubted, or be changed by the look at it."""
    before = filled.read_bytes()
    ended = await call("verify", f"--store={filled}")
    assert (ended.code, ended.err) == (0, "")
    assert "10 checked, with 10 requests" in ended.out
    assert "the same  10" in ended.out
    assert filled.read_bytes() == before


async def test_a_sample(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """A look at a large store would cost as many requests as filling it."""
    asked = served.counts.requests["sessions"]
    ended = await call("verify", f"--store={filled}", "--sample=3", "--json")
    report = json.loads(ended.out)
    assert (ended.code, report["checked"], report["is_clean"]) == (0, 3, True)
    assert served.counts.requests["sessions"] - asked == 3


async def test_differences_are_exit_code_1(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """A store that lacks sessions, or holds too many, would pass for right."""
    one, other = served.vehicles[:2]
    new = served.insert(one)
    gone = served.truth(other)[0]["id"]
    served.remove(other, gone)
    ended = await call("verify", f"--store={filled}")
    assert ended.code == 1
    assert "differ    2" in ended.out
    lines = sorted(ended.err.splitlines())
    assert [line.rpartition(": ")[2] for line in lines if str(one.vehicle_id) in line] == [
        "1 sessions missing in the store, 0 only there"
    ]
    assert any(str(other.vehicle_id) in line and "0 sessions missing in the store, 1 only" in line for line in lines)
    report = json.loads((await call("verify", f"--store={filled}", "--json")).out)
    assert {tuple(each["missing"] + each["surplus"]) for each in report["differences"]} == {(new["id"],), (gone,)}


async def test_failures_are_exit_code_1(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """What could not be checked would pass for checked."""
    served.add_fault(Fault(kind="status", status=404, endpoint="sessions", nth=1))
    ended = await call("verify", f"--store={filled}")
    assert ended.code == 1
    assert "failed    1" in ended.out
    assert "HTTP 404" in ended.complaint


async def test_an_api_that_is_down_is_exit_code_4(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """An outage would look like a store that differs."""
    served.add_fault(Fault(kind="status", status=503, endpoint="sessions"))
    ended = await call("verify", f"--store={filled}", "--sample=2", "--json")
    assert (ended.code, json.loads(ended.out)["failed"]) == (4, 2)


async def test_refused_credentials_are_exit_code_3(call: Call, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong secret would look like a store that differs."""
    monkeypatch.setenv("PODERO_CLIENT_SECRET", "a-wrong-secret-that-nobody-may-see")
    ended = await call("verify", f"--store={filled}")
    assert (ended.code, ended.out) == (3, "")
    assert "401" in ended.complaint


async def test_a_sample_of_nothing(call: Call, filled: Path) -> None:
    """A mistyped number would make every store right."""
    ended = await call("verify", f"--store={filled}", "--sample=0")
    assert ended.code == 2
    assert "--sample" in ended.complaint
