"""The output of all commands besides their results: the log, errors as JSON, and help texts."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from podero_async import RetryPolicy
from podero_async.cli._main import COMMANDS
from podero_async.testing import Fault, PoderoSimulator
from tests._support.commands import Call, one_vehicle, whole_fleet

_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) \S.*")


async def test_verbose_shows_retries_on_stderr(call: Call, served: PoderoSimulator) -> None:
    """With `-v`, a retry is a line with time and level on stderr; stdout has the sessions only."""
    served.add_fault(Fault(kind="status", status=503, nth=1, endpoint="sessions"))
    quiet = await call(*one_vehicle(served))
    served.add_fault(Fault(kind="status", status=503, nth=1, endpoint="sessions"))
    ended = await call(*one_vehicle(served), "-v")
    assert (ended.code, ended.out, quiet.err) == (0, quiet.out, "")
    lines = ended.err.splitlines()
    assert [line for line in lines if not _LINE.fullmatch(line)] == []
    assert any("INFO attempt 1 failed" in line for line in lines)


async def test_a_log_file_is_appended_to(call: Call, served: PoderoSimulator, path: Path) -> None:
    """A log file gets the library's lines, and the summary, messages and exit code of each command, without secrets."""
    log = path.with_name("fleet.log")
    ended = await call(*whole_fleet(served, path), f"--log-file={log}")
    assert (ended.code, ended.err) == (0, "")
    first = log.read_text()
    *_, last, end = first.splitlines()
    assert end.endswith("INFO backfill has ended with exit code 0")
    assert " ".join(ended.out.splitlines()[-1].split()) in last
    failed = await call("status", "--store=/nowhere/x", f"--log-file={log}")
    text = log.read_text()
    assert text.startswith(first)
    assert [line for line in text.splitlines() if not _LINE.fullmatch(line)] == []
    assert "INFO token received" in first
    *_, message, end = text.splitlines()
    assert message.endswith(f"WARNING {failed.complaint}")
    assert end.endswith("INFO status has ended with exit code 5")
    assert served.client_secret not in text
    assert logging.getLogger("podero_async").level == logging.DEBUG  # as before: the level of the tests


async def test_a_log_file_that_cannot_be_opened(call: Call) -> None:
    """If the log file cannot be opened, nothing is done, and one line says so."""
    ended = await call("status", "--store=x", "--log-file=/nowhere/x.log")
    assert (ended.code, ended.out) == (2, "")
    assert ended.complaint == "cannot write the log file /nowhere/x.log: No such file or directory"


async def test_a_log_on_a_full_disk_does_not_end_the_command(call: Call, served: PoderoSimulator) -> None:
    """If the log file cannot be written, the command goes on and says so once."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    ended = await call(*one_vehicle(served), "--log-file=/dev/full")
    assert ended.code == 0
    assert ended.complaint == "the log file cannot be written: No space left on device"


@pytest.mark.parametrize("name", COMMANDS)
async def test_each_command_has_a_log(call: Call, name: str) -> None:
    """Each command takes `-v` and `--log-file`."""
    text = await call(name, "--help")
    assert "-v, --verbose" in text.out
    assert "--log-file FILE" in text.out


async def test_each_failure_is_one_object(
    call: Call, served: PoderoSimulator, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `--json`, a failure is one object on stdout with kind, message and exit code, and one line on stderr."""
    backfill = [*whole_fleet(served, filled), "--json"]
    failures = {
        "UsageError": ["backfill", "--json"],
        "NotAStoreError": ["status", f"--store={filled.parent}", "--json"],
        "StoreError": ["verify", f"--store={filled}.none", "--json"],
        "AuthenticationError": backfill,
        "ConfigurationError": backfill,
    }
    for kind, argv in failures.items():
        if kind == "AuthenticationError":
            monkeypatch.setenv("PODERO_CLIENT_SECRET", "a-wrong-secret")
        if kind == "ConfigurationError":
            monkeypatch.delenv("PODERO_CLIENT_SECRET")
        ended = await call(*argv)
        assert json.loads(ended.out) == {"error": {"kind": kind, "message": ended.complaint, "exit_code": ended.code}}
        assert ended.code
        if kind == "AuthenticationError":
            assert "PODERO_CLIENT_SECRET" in ended.complaint
            assert ended.complaint.endswith("with podero-async doctor")


async def test_an_outage_is_one_object_with_the_report(call: Call, served: PoderoSimulator, path: Path) -> None:
    """If the API is down, the object has the error, and the report of the vehicles that were read."""
    retry = RetryPolicy(backoff_initial=0.001, backoff_max=0.002, budget=1, max_elapsed=1.0)
    served.add_fault(Fault(kind="status", status=503, endpoint="sessions"))
    ended = await call(*whole_fleet(served, path), "--json", retry=retry)
    found = json.loads(ended.out)
    assert ended.code == found["error"]["exit_code"] == 4
    assert found["error"]["kind"] == "ApiDownError"
    assert (found["vehicles"], found["is_clean"]) == (len(served.vehicles), False)


async def test_helps_fit_a_narrow_terminal(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Help texts have lines of at most 80 characters, even on a terminal of 200 columns."""
    monkeypatch.setenv("COLUMNS", "200")
    for name in COMMANDS:
        text = await call(name, "--help")
        assert max(map(len, text.out.splitlines())) <= 80


@pytest.mark.slow
async def test_quiet_shows_no_progress(call: Call, served: PoderoSimulator, path: Path) -> None:
    """With `--quiet`, a backfill and an export that succeed print nothing; an alarm is printed in any case."""
    served.latency_s = 0.01
    loud = await call(*whole_fleet(served, path), line_every_s=0.001)
    assert "vehicles" in loud.err
    quiet = await call(*whole_fleet(served, path), "--fresh-for=0", "--quiet", line_every_s=0.001)
    exported = await call("export", f"--store={path}", f"--output={path}.parquet", "--quiet")
    assert [(ended.code, ended.out, ended.err) for ended in (quiet, exported)] == [(0, "", "")] * 2
    served.add_fault(Fault(kind="malformed_row"))
    alarmed = await call(*whole_fleet(served, path.with_name("new.duckdb")), "--quiet")
    assert (alarmed.code, alarmed.out) == (1, "")
    assert "could not be read" in alarmed.complaint
