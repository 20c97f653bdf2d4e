"""The README tells the truth: its code runs, its defaults are the real ones, and its links lead to files."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import shlex
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import attrs
import pytest

from podero_async import PoderoClient, RetryPolicy, ThrottlePolicy, Timeouts, VehicleRef, errors
from podero_async.backfill import SessionStore, backfill
from podero_async.cli import main
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of, wire_row

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
RUN_HERE = {"is_plugged_in", "nightly", "charged_this_week", "savings_in_october"}
"""The functions that the README's blocks define; a test below runs each."""


def block(name: str) -> SimpleNamespace:
    """Run the one code block that defines a name."""
    (code,) = (code for code in BLOCKS if re.search(rf"^(async )?def {name}\b", code, re.MULTILINE))
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    return SimpleNamespace(**names)


async def test_the_block_of_the_backend_runs(simulator: PoderoSimulator) -> None:
    """`is_plugged_in` runs for a vehicle of the fleet, and returns False for an unknown one."""
    is_plugged_in = block("is_plugged_in").is_plugged_in
    ref = simulator.vehicles[0]
    async with client_of(simulator) as client:
        assert isinstance(await is_plugged_in(client, str(ref.user_id), str(ref.vehicle_id)), bool)
        assert await is_plugged_in(client, str(ref.user_id), str(ref.user_id)) is False


async def test_the_block_of_the_backfill_runs(
    simulator: PoderoSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`nightly` fills a store and reports that it is complete."""
    monkeypatch.setattr(PoderoClient, "from_env", lambda: client_of(simulator))
    store = tmp_path / "fleet.duckdb"
    assert await block("nightly").nightly(str(store)) is True
    async with SessionStore(store, read_only=True) as reopened:
        assert (await reopened.status()).vehicles == len(simulator.vehicles)


async def test_the_block_of_the_bot_runs(simulator: PoderoSimulator) -> None:
    """`charged_this_week` returns the energy of a customer's sessions in kWh."""
    async with client_of(simulator) as client:
        users = [user async for user in client.users()]
        external_id = next(user.external_user_id for user in users if user.external_user_id)
        assert await block("charged_this_week").charged_this_week(client, external_id) >= 0.0


async def test_the_three_answers_to_a_partners_question_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shell, SQL and Python return the savings of the customer's October in Vienna, and of no other time."""
    moments = {  # in UTC, and whether it is October in Vienna
        "2026-09-30T21:59:00Z": False,
        "2026-09-30T22:00:00Z": True,
        "2026-10-25T01:30:00Z": True,  # summer time has just ended
        "2026-10-31T22:59:00Z": True,
        "2026-10-31T23:00:00Z": False,
    }
    rows = [wire_row(number, plug_in_time=at, actual_savings_eur=2.0**number) for number, at in enumerate(moments)]
    expected = sum(2.0**number for number, is_october in enumerate(moments.values()) if is_october)
    vehicle = VehicleRef(user_id=UUID(int=1), vehicle_id=UUID(int=2))
    store, days = tmp_path / "fleet.duckdb", (date(2026, 9, 1), date(2026, 11, 30))
    async with PoderoSimulator(rows={vehicle: rows}) as simulator, client_of(simulator) as client:
        external_id = simulator.external_ids[vehicle.user_id]
        assert await block("savings_in_october").savings_in_october(client, external_id) == expected
        async with SessionStore(store) as opened:
            await backfill(client, opened, *days)
            (sql,) = re.findall(r"```sql\n(.*?);\n```", README, re.DOTALL)
            assert await opened.query(sql.replace("customer_1", external_id)) == [{"actual_savings_eur": expected}]
    (line,) = (line for line in README.splitlines() if "monthly_savings_in" in line and line.startswith("podero-async"))
    program, *arguments = shlex.split(line.replace("customer_1", external_id).replace("fleet.duckdb", str(store)))
    assert (program, await asyncio.to_thread(main, arguments)) == ("podero-async", 0)
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert float(row["actual_savings_eur"]) == expected


def test_every_block_is_run_by_a_test() -> None:
    """Each code block defines a function that a test above runs."""
    defined = [set(re.findall(r"^(?:async )?def (\w+)", code, re.MULTILINE)) for code in BLOCKS]
    assert all(names & RUN_HERE for names in defined)


@pytest.mark.parametrize(
    "policy", [RetryPolicy(), ThrottlePolicy(), Timeouts()], ids=lambda policy: type(policy).__name__
)
def test_the_defaults_are_those_of_the_policies(policy: attrs.AttrsInstance) -> None:
    """The README's defaults of the three policies are the real ones."""
    name = type(policy).__name__
    match = re.search(rf"`{name}\((.*?)\)`: ", README)
    assert match, name
    for argument in match[1].replace(", ...", "").split(", "):
        knob, value = argument.split("=")
        assert str(getattr(policy, knob)) == value


def test_every_error_is_in_the_table() -> None:
    """The table of errors names every public error but `ApiError`, their base."""
    for name in set(errors.__all__) - {"ApiError"}:
        assert f"`{name}`" in README, name


def test_every_linked_file_exists() -> None:
    """Links of README and CONTRIBUTING to files of the project lead to a file."""
    for document in (ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md", ROOT / ".github" / "SECURITY.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_test_that_reliability_names_exists() -> None:
    """RELIABILITY.md names existing test files."""
    table = (ROOT / "tests" / "RELIABILITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)`", table)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / "tests" / name).exists()] == []
