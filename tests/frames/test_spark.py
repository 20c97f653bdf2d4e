"""Spark reads the frames, if Java and pyspark are installed: `pip install pyspark`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet  # type: ignore[import-untyped]

from podero_async import ChargingSession
from podero_async.frames import to_arrow, to_pandas
from tests._support.made_outcomes import outcome_of, session_of

pytest.importorskip("pyspark", minversion="4")
sql = pytest.importorskip("pyspark.sql")
pytest.importorskip("pandas")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java"),
    pytest.mark.filterwarnings("default"),  # pyspark's own
]

SESSIONS: list[ChargingSession] = [session_of(1), session_of(2, energy_charged_kwh=None, reachable_soc_pct=70)]
OUTCOMES = [outcome_of(3, *SESSIONS)]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    builder = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    session = builder.config("spark.sql.session.timeZone", "UTC").getOrCreate()
    yield session
    session.stop()


@pytest.mark.parametrize("source", ["arrow", "parquet", "pandas"])
def test_spark_has_the_values_and_joins_by_id(spark: Any, source: str, tmp_path: Path) -> None:
    """Spark reads a table, a Parquet file and a pandas frame with the same values, and joins another table by id."""
    table = to_arrow(OUTCOMES, text_ids=True)
    if source == "parquet":
        parquet.write_table(table, tmp_path / "sessions.parquet")
        frame = spark.read.parquet(str(tmp_path / "sessions.parquet"))
    else:
        frame = spark.createDataFrame(table if source == "arrow" else to_pandas(OUTCOMES))
    names = spark.createDataFrame([(str(OUTCOMES[0].vehicle.vehicle_id), "c")], ["vehicle_id", "name"])
    rows = [row.asDict() for row in frame.join(names, "vehicle_id").orderBy("id").collect()]
    assert len(rows) == 2
    for row, session in zip(rows, SESSIONS, strict=True):
        assert row["id"] == str(session.id)
        assert row["plug_in_time"].astimezone(UTC) == session.plug_in_time
        assert row["session_outcome"] == session.session_outcome
        assert row["energy_charged_kwh"] == session.energy_charged_kwh or source == "pandas"
        assert row["reachable_soc_pct"] == session.reachable_soc_pct
        assert row["hidden_reason"] is None
