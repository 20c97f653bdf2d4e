"""Psql, SQLAlchemy and Grafana read the published sessions as the README shows."""

from __future__ import annotations

import re
import subprocess

import pytest

from podero_async.backfill import SessionStore
from podero_async.publish import publish
from tests._support.postgres import USER, Postgres
from tests.publish.conftest import StoreFile

ENERGY = [("customer_1", 24.5), ("customer_2", 24.5)]
QUERY = "SELECT external_user_id, sum(energy_charged_kwh) FROM podero.live_sessions GROUP BY 1 ORDER BY 1"
GRAFANA = """
SELECT date_trunc('month', plug_in_time, 'Europe/Vienna') AS time, sum(energy_charged_kwh) AS kwh
FROM podero.live_sessions WHERE $__timeFilter(plug_in_time) GROUP BY 1 ORDER BY 1
"""


@pytest.mark.slow
async def test_psql_sqlalchemy_and_grafana_read_the_sessions(server: Postgres, made: StoreFile) -> None:
    """Each of them gets the customers' energy, or that of a month in local time, from the view."""
    async with SessionStore(made.path, read_only=True) as store:
        await publish(store, server.url)

    psql = ["psql", "-X", "-A", "-t", "-h", str(server.directory), "-p", str(server.port), "-U", USER, "postgres"]
    shown = subprocess.run([*psql, "-c", QUERY], check=True, capture_output=True, text=True).stdout
    assert shown.split() == ["|".join(map(str, row)) for row in ENERGY]

    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text(QUERY)).all() == ENERGY
    engine.dispose()

    bounds = r"\1 BETWEEN '2025-12-31T00:00:00Z' AND '2026-02-28T00:00:00Z'"  # as Grafana replaces the macro
    ((month, kwh),) = server.execute(re.sub(r"\$__timeFilter\((\w+)\)", bounds, GRAFANA))
    assert (month.isoformat(), kwh) == ("2025-12-31T23:00:00+00:00", 49.0)
