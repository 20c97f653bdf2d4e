"""`podero-async publish`: its output, its exit codes, and the passwords that it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from podero_async.testing import PoderoSimulator
from tests._support.commands import Call
from tests._support.expected_rows import truth_of
from tests._support.postgres import Postgres, assert_published


@pytest.mark.slow
async def test_a_store_is_published(
    call: Call, server: Postgres, served: PoderoSimulator, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command prints the number of rows, or one object; libpq's variables complete the URL."""
    monkeypatch.setenv("PGHOST", str(server.directory))
    monkeypatch.setenv("PGPORT", str(server.port))
    monkeypatch.setenv("PGUSER", "podero")
    publish = ["publish", f"--store={filled}", "--to=postgresql:///postgres"]
    users, vehicles = len({vehicle.user_id for vehicle in served.vehicles}), len(served.vehicles)
    ended = await call(*publish)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"{len(truth_of(served)):,} sessions, {users} users, {vehicles} vehicles and ")
    assert_published(server, filled)
    shown = json.loads((await call(*publish, "--json")).out)
    assert (shown["sessions"], shown["is_full"]) == (0, False)
    monkeypatch.setenv("PGPORT", "1")
    ended = await call(*publish, "--json")
    assert (ended.code, json.loads(ended.out)["error"]["kind"]) == (4, "TargetError")


@pytest.mark.parametrize("option", ["--to=", "--tp=", ""])
async def test_a_password_in_the_arguments_is_refused_and_not_shown(
    call: Call, filled: Path, tmp_path: Path, option: str
) -> None:
    """A URL with a password is refused in one line that does not show it, also if the option was mistyped."""
    log = tmp_path / "log"
    given = [f"--store={filled}", f"--log-file={log}", *([] if option == "--to=" else ["--to=postgresql:///x"])]
    ended = await call("publish", *given, f"{option}postgresql://user:c4n4ry@host/x", "--json")
    assert ended.code == 2
    assert "c4n4ry" not in ended.out + ended.err + (log.read_text() if log.exists() else "")
    if option == "--to=":
        assert "PGPASSWORD" in ended.complaint
        assert "~/.pgpass" in ended.complaint
