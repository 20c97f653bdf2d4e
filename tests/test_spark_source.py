"""The recipe for Spark, if Java and pyspark are installed: `pip install pyspark`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from podero_async.testing import PoderoSimulator
from tests._support.expected_rows import truth_of

pytest.importorskip("pyspark", minversion="4")

JOB = """
import json, sys
from pyspark.sql import SparkSession
from tests.examples.spark_source import Podero

spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
spark.dataSource.register(Podero)
options = {"from": sys.argv[1], "to": sys.argv[2], "partitions": 2, "requests_per_second": 500}
rows = spark.read.format("podero").options(**options).load()
print(json.dumps(sorted((row.vehicle_id, row.id) for row in rows.select("vehicle_id", "id").collect())))
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")
@pytest.mark.podero(vehicles=5, sessions_per_vehicle=(0, 250))
def test_spark_has_each_session_once(podero_simulator: PoderoSimulator) -> None:
    """The data source of the recipe has the sessions of all vehicles."""
    environment = {**os.environ, **podero_simulator.environment, "PYSPARK_PYTHON": sys.executable}
    days = map(str, (podero_simulator.first_day, podero_simulator.last_day))
    ended = subprocess.run(
        [sys.executable, "-c", JOB, *days], env=environment, capture_output=True, text=True, check=True
    )
    found = [tuple(pair) for pair in json.loads(ended.stdout.splitlines()[-1])]
    assert found == sorted(truth_of(podero_simulator))
