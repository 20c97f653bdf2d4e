"""The sessions of a fleet in Spark 4, as a Python data source: the driver discovers the vehicles, and each task fetches a share.

    spark.dataSource.register(Podero)
    spark.read.format("podero").options(**{"from": "2026-01-01", "to": "2026-06-30", "partitions": 8}).load()

The driver and the workers read the variables of `PoderoClient.from_env` in their environment.
"""

import asyncio
from collections.abc import Iterator
from datetime import date
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.pandas.types import from_arrow_schema

from podero_async import PoderoClient, ThrottlePolicy, VehicleRef
from podero_async.frames import arrow_batches, frame_schema

DICTIONARIES = {field: field.with_type(pa.string()) for field in frame_schema() if pa.types.is_dictionary(field.type)}
SCHEMA = pa.schema([DICTIONARIES.get(field, field) for field in frame_schema(text_ids=True)])


class Podero(DataSource):  # type: ignore[misc]
    """Options: `from`, `to`, `partitions`, and `requests_per_second`, of which each partition sends an equal part."""

    def schema(self) -> Any:
        return from_arrow_schema(SCHEMA)

    def reader(self, schema: Any) -> DataSourceReader:
        return Reader(self.options)


class Reader(DataSourceReader):  # type: ignore[misc]
    def __init__(self, options: dict[str, str]) -> None:
        self.days = date.fromisoformat(options["from"]), date.fromisoformat(options["to"])
        self.count = int(options.get("partitions", 1))
        rate = float(options.get("requests_per_second", 0))
        self.throttle = ThrottlePolicy(requests_per_second=rate / self.count or None)

    def partitions(self) -> list[InputPartition]:
        async def discover() -> list[VehicleRef]:
            async with PoderoClient.from_env() as client:
                return [vehicle async for vehicle in client.discover_vehicles()]

        vehicles = asyncio.run(discover())
        return [InputPartition(vehicles[first :: self.count]) for first in range(self.count)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        async def fetch() -> list[pa.RecordBatch]:
            async with PoderoClient.from_env(throttle=self.throttle) as client:
                async with client.fetch_fleet(
                    *self.days, partition.value
                ) as fleet:  # a vehicle's failure fails the task
                    return [batch.cast(SCHEMA) async for batch in arrow_batches(fleet, text_ids=True)]

        return iter(asyncio.run(fetch()))
