"""`podero-async report`: the figures on a terminal, as JSON, and as a page."""

from __future__ import annotations

import json
import re
import sys
from datetime import date
from pathlib import Path

import pytest

from podero_async.backfill import SessionStore
from podero_async.cli.commands import report as command
from podero_async.report import build_report
from podero_async.testing import PoderoSimulator
from tests._support.commands import Call, end_of, start


async def test_the_figures_are_printed(call: Call, filled: Path, served: PoderoSimulator) -> None:
    """Without `--html`, the figures are printed as tables with bars, without credentials and without a request."""
    asked = len(served.requests)
    ended = await call("report", f"--store={filled}", "--time-zone=Europe/Vienna", "--by=vehicle")
    assert (ended.code, ended.err) == (0, "")
    sessions = sum(len(served.truth(vehicle)) for vehicle in served.vehicles)
    assert re.search(rf"^sessions +{sessions} +10 vehicles, 8 customers$", ended.out, re.MULTILINE)
    for title in ("Savings a month", "When cars are plugged in", "How sessions went", "Coverage by day"):
        assert f"\n{title}\n" in ended.out
    assert re.search(r"^Charged at the cheapest times +\d+.% +\d+ +█{16}$", ended.out, re.MULTILINE)
    assert "\nVehicles with the most savings\n" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80
    assert len(served.requests) == asked


async def test_json_has_the_figures_of_the_python_call(call: Call, filled: Path) -> None:
    """`--json` prints the report that `build_report` returns for the same days."""
    ended = await call("report", f"--store={filled}", "--from=2026-06-01", "--to=2026-06-30", "--json")
    async with SessionStore(filled, read_only=True) as store:
        report = await build_report(store)
    found = json.loads(ended.out)
    assert (found["from_date"], found["to_date"]) == ("2026-06-01", "2026-06-30")
    (june,) = [each.totals for each in report.months if each.month == date(2026, 6, 1)]
    assert found["totals"]["sessions"] == june.sessions < report.totals.sessions


async def test_a_page_replaces_an_older_one(call: Call, filled: Path, tmp_path: Path) -> None:
    """`--html` writes the page, names the file, and leaves no other one."""
    target = tmp_path / "pages" / "report.html"
    target.parent.mkdir()
    target.write_text("older")
    ended = await call("report", f"--store={filled}", f"--html={target}")
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(rf"page +{re.escape(str(target))}, \d+ kB\n", ended.out)
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.slow
async def test_a_page_can_go_to_a_pipe(filled: Path) -> None:
    """`--html /dev/stdout` writes the page to the output before the line that says so."""
    ended = await end_of(await start("report", f"--store={filled}", "--html=/dev/stdout"))
    assert ended.code == 0
    assert ended.out.startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--time-zone=Mars/Base"], 2, "unknown time zone 'Mars/Base'"),
        (["--from=2026-02-01", "--to=2026-01-01"], 2, "--from must not be after --to: 2026-02-01 is after 2026-01-01"),
        (["--html=/nonexistent/report.html"], 2, "No such file or directory: /nonexistent/report.html"),
    ],
)
async def test_wrong_arguments(arguments: list[str], code: int, complaint: str, call: Call, filled: Path) -> None:
    """A wrong argument ends the command with one line that names the value."""
    ended = await call("report", f"--store={filled}", *arguments)
    assert (ended.code, ended.complaint) == (code, complaint)


async def test_a_missing_extra_is_named(
    call: Call, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without jinja2, a page is refused with the extra to install, before the store is read."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "podero_async.report._page", raising=False)
    monkeypatch.setattr(command, "build_report", None)
    ended = await call("report", f"--store={filled}", f"--html={tmp_path / 'report.html'}")
    assert (ended.code, ended.complaint) == (2, "a page needs jinja2: install podero_async[report]")
    assert not (tmp_path / "report.html").exists()
