"""`podero-async doctor`: a line for each check, one JSON object, and the exit code of the first failed check."""

from __future__ import annotations

import json
import re
import ssl
from pathlib import Path

import pytest
import trustme

from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import USER
from tests._support.commands import Call, end_of, settings_of, start

_NAMES = ["settings", "origin", "tls", "certificate", "clock", "token", "organization"]


async def test_all_is_well(call: Call, served: PoderoSimulator) -> None:
    """Each check is one line with its mark and its name."""
    ended = await call("doctor")
    assert (ended.code, ended.err) == (0, "")
    lines = [line.split() for line in ended.out.splitlines()]
    assert [line[1] for line in lines] == _NAMES
    assert [line[0] for line in lines] == ["ok", "ok", "ok", "-", "ok", "ok", "ok"]
    assert str(served.org_id) in ended.out


async def test_missing_settings_are_exit_code_2(call: Call) -> None:
    """If settings are missing, the first check names them with advice, and the other checks are skipped."""
    ended = await call("doctor")
    assert (ended.code, ended.err) == (2, "")
    first, *others = ended.out.splitlines()
    assert first.startswith("FAILED  settings      ")
    assert "PODERO_ORG_ID" in first
    assert " -> " in first
    assert all("skipped: " in line for line in others)


async def test_another_organization_is_exit_code_2(
    call: Call, served: PoderoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id of another organization fails the last check, with the advice to check it."""
    monkeypatch.setenv("PODERO_ORG_ID", str(USER))
    ended = await call("doctor")
    assert ended.code == 2
    assert ended.out.splitlines()[-1].startswith("FAILED  organization  HTTP 404")
    assert "PODERO_ORG_ID" in ended.out.splitlines()[-1].partition(" -> ")[2]


async def test_a_wrong_secret_is_exit_code_3(
    call: Call, served: PoderoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong secret fails the check of the token; the JSON report has each check with fixed keys."""
    monkeypatch.setenv("PODERO_CLIENT_SECRET", "a-wrong-secret")
    ended = await call("doctor", "--json")
    assert (ended.code, ended.err) == (3, "")
    report = json.loads(ended.out)
    assert report.keys() == {"is_ok", "checks"}
    assert report["is_ok"] is False
    assert {tuple(check) for check in report["checks"]} == {("name", "is_ok", "words", "advice", "fault")}
    assert [check["name"] for check in report["checks"]] == _NAMES
    assert [check["fault"] for check in report["checks"]] == [None, None, None, None, None, "credentials", None]
    assert [check["is_ok"] for check in report["checks"]][4:] == [True, False, None]


async def test_no_server_is_exit_code_4(
    call: Call, served: PoderoSimulator, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """If the server cannot be reached, the check of the origin fails."""
    monkeypatch.setenv("PODERO_BASE_URL", f"http://127.0.0.1:{unused_tcp_port}")
    ended = await call("doctor")
    assert (ended.code, ended.err) == (4, "")
    assert re.search(r"^FAILED  origin .+ -> .*network", ended.out, re.MULTILINE)


async def test_a_message_of_the_server_stays_in_its_line(call: Call, served: PoderoSimulator) -> None:
    """Line breaks and control characters in a message of the server are removed."""
    message = json.dumps({"detail": "no\nok      token         from here\x1b[2J"})
    served.add_fault(Fault(kind="status", status=403, endpoint="users", body=message, content_type="application/json"))
    ended = await call("doctor")
    assert (ended.code, len(ended.out.splitlines())) == (3, len(_NAMES))
    assert "\x1b" not in ended.out


@pytest.mark.slow
async def test_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An authority in SSL_CERT_FILE is trusted by all checks."""
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    async with PoderoSimulator(users=1, vehicles=1, ssl_context=context) as simulator:
        for name, value in settings_of(simulator).items():
            monkeypatch.setenv(name, value)
        ended = await end_of(await start("doctor", "--json"))
    checks = {check["name"]: check for check in json.loads(ended.out)["checks"]}
    assert checks["tls"]["words"] == "TLSv1.3"
    assert "days left, until " in checks["certificate"]["words"]
    assert ended.code == 0
