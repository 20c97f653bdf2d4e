"""`podero-async doctor`: a line for each finding, one JSON object, and the exit code that fits."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest
import trustme

from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import USER
from tests.cli.conftest import Call, end_of, settings, start

_NAMES = ["settings", "origin", "tls", "certificate", "clock", "token", "organization"]


async def test_all_is_well(call: Call, served: PoderoSimulator) -> None:
    """A line would be missing, or not say which thing it is about."""
    ended = await call("doctor")
    assert (ended.code, ended.err) == (0, "")
    lines = [line.split() for line in ended.out.splitlines()]
    assert [line[1] for line in lines] == _NAMES
    assert [line[0] for line in lines] == ["ok", "ok", "ok", "-", "ok", "ok", "ok"]
    assert str(served.org_id) in ended.out


async def test_missing_settings_are_exit_code_2(call: Call) -> None:
    """A deployment without its variables would pass, or nobody would learn which to set."""
    ended = await call("doctor")
    assert (ended.code, ended.err) == (2, "")
    first, *others = ended.out.splitlines()
    assert first.startswith("FAILED  settings      PODERO_ORG_ID is missing; the credentials are missing")
    assert first.endswith(" -> correct these settings")
    assert all("skipped: " in line for line in others)


async def test_another_organization_is_exit_code_2(
    call: Call, served: PoderoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong id would be looked for in the credentials."""
    monkeypatch.setenv("PODERO_ORG_ID", str(USER))
    ended = await call("doctor")
    assert ended.code == 2
    assert ended.out.splitlines()[-1].startswith("FAILED  organization  HTTP 404")
    assert ended.out.endswith(" -> check PODERO_ORG_ID\n")


async def test_a_wrong_secret_is_exit_code_3(
    call: Call, served: PoderoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong secret would be tried again, or be shown to whoever looks on."""
    monkeypatch.setenv("PODERO_CLIENT_SECRET", "a-wrong-secret-that-nobody-may-see")
    ended = await call("doctor", "--json")
    assert (ended.code, ended.err) == (3, "")
    report = json.loads(ended.out)
    assert report["is_ok"] is False
    assert [check["name"] for check in report["checks"]] == _NAMES
    assert [check["fault"] for check in report["checks"]] == [None, None, None, None, None, "credentials", None]
    assert [check["is_ok"] for check in report["checks"]][4:] == [True, False, None]


async def test_no_server_is_exit_code_4(
    call: Call, served: PoderoSimulator, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """A network that is down would look like a mistake of the user."""
    monkeypatch.setenv("PODERO_BASE_URL", f"http://127.0.0.1:{unused_tcp_port}")
    ended = await call("doctor")
    assert (ended.code, ended.err) == (4, "")
    assert "FAILED  origin        the server cannot be reached -> check the network" in ended.out


async def test_a_servers_words_stay_in_their_line(call: Call, served: PoderoSimulator) -> None:
    """A server could write lines of its own, such as one that says all is well."""
    words = json.dumps({"detail": "no\nok      token         from here\x1b[2J"})
    served.add_fault(Fault(kind="status", status=403, endpoint="users", body=words, content_type="application/json"))
    ended = await call("doctor")
    assert (ended.code, len(ended.out.splitlines())) == (3, len(_NAMES))
    assert "\x1b" not in ended.out


async def test_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An authority that the machine was told to trust would be trusted by one part of the client, and not by another."""
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    async with PoderoSimulator(users=1, vehicles=1, ssl_context=context) as simulator:
        for name, value in settings(simulator).items():
            monkeypatch.setenv(name, value)
        ended = await end_of(await start("doctor", "--json"))
    checks = {check["name"]: check for check in json.loads(ended.out)["checks"]}
    assert checks["tls"]["detail"] == "TLSv1.3"
    assert "days left, until " in checks["certificate"]["detail"]
    assert ended.code == 0
