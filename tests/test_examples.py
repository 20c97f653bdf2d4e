"""The examples in tests/examples run as they stand, against the simulator."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import podero_async.backfill
from podero_async.backfill import SessionStore
from tests._support.clients import wire_row
from tests._support.postgres import LOGIN, PASSWORD, Postgres
from tests._support.written_store import Read
from tests.examples import fleet, nightly, own_tests
from tests.publish.conftest import StoreFile, made

__all__ = ["made"]

EXAMPLES = Path(__file__).parent / "examples"


@pytest.mark.usefixtures("podero_environment")
async def test_fleet(capsys: pytest.CaptureFixture[str]) -> None:
    """The fleet example prints a line for each vehicle and then the summary."""
    await fleet.main()
    printed = capsys.readouterr().out
    assert printed.count("verified\n") == 10
    assert "FleetSummary(vehicles=10, failures=0" in printed


@pytest.mark.slow
@pytest.mark.usefixtures("podero_environment")
async def test_nightly(tmp_path: Path) -> None:
    """The nightly example fills a store, and succeeds again on the next night."""
    path = str(tmp_path / "fleet.duckdb")
    assert await nightly.nightly(path) is True
    assert await nightly.nightly(path) is True


test_own_tests = own_tests.test_no_session_is_lost


@pytest.mark.usefixtures("podero_environment")
async def test_nightly_queries(tmp_path: Path) -> None:
    """The SQL in the documentation of `podero_async.backfill` returns rows from a store."""
    path = str(tmp_path / "fleet.duckdb")
    await nightly.nightly(path)
    queries = re.findall(r"^    (SELECT .*?;)$", podero_async.backfill.__doc__ or "", re.DOTALL | re.MULTILINE)
    assert len(queries) == 4
    async with SessionStore(path, read_only=True) as store:
        for query in queries:
            assert await store.query(query)


def _destination(kind: str, tmp_path: Path, server: Postgres) -> Any:
    dlt = pytest.importorskip("dlt")
    if kind == "duckdb":
        return dlt.destinations.duckdb(str(tmp_path / "target.duckdb"))
    return dlt.destinations.postgres(server.tcp_url.replace(LOGIN, f"{LOGIN}:{PASSWORD}"))


def _check_recipe(
    name: str, destination: Any, made: StoreFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run a recipe twice, before and after a change, and compare the destination with the store."""
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    dlt, recipe = pytest.importorskip("dlt"), import_module(f"tests.examples.{name}")
    read = {"dlt_changes": "changed_sessions", "dlt_tables": "store_tables"}[name]
    pipeline = dlt.pipeline(
        name, pipelines_dir=str(tmp_path / "pipelines"), destination=destination, dataset_name=f"podero_{name}"
    )
    for rows in (4, 2, 0):
        pipeline.run(getattr(recipe, read)(str(made.path)))
        counts = pipeline.last_trace.last_normalize_info.row_counts if pipeline.last_trace.last_normalize_info else {}
        assert counts.get("sessions", 0) == rows
        with pipeline.sql_client() as client:
            found = client.execute_sql("SELECT id, energy_charged_kwh FROM sessions ORDER BY id")
        expected = made.query("SELECT id, energy_charged_kwh FROM sessions ORDER BY id")
        assert [(str(id_), energy) for id_, energy in found] == [(str(id_), energy) for id_, energy in expected]
        if rows == 4:
            made.write(Read(1, [wire_row(1, energy_charged_kwh=99.0), wire_row(2), wire_row(5)]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_dlt_changes(
    kind: str, server: Postgres, made: StoreFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe brings the rows that have changed, and no others, to DuckDB and to PostgreSQL."""
    _check_recipe("dlt_changes", _destination(kind, tmp_path, server), made, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_dlt_tables(
    kind: str, server: Postgres, made: StoreFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe brings changed sessions, and the users, vehicles and coverage, to DuckDB and to PostgreSQL."""
    _check_recipe("dlt_tables", _destination(kind, tmp_path, server), made, tmp_path, monkeypatch)


def test_every_example_has_a_test() -> None:
    """Each example has a test of its name in this module, or a module of tests beside it."""
    names = {path.stem for path in EXAMPLES.glob("*.py")} - {"__init__"}
    modules = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    assert all(f"test_{name}" in globals() or f"test_{name}" in modules for name in names)
