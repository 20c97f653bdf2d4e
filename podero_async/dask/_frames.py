"""The frames of sessions and outcomes, of which each is a part of the rows that the tasks return."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date

import dask
import dask.dataframe as dd
import pandas as pd  # type: ignore[import-untyped]

from podero_async import _validation as arguments
from podero_async._flow.policies import ThrottlePolicy
from podero_async.dask._read import MARK, OUTCOME_COLUMNS, Read, Share, empty_rows
from podero_async.frames import frame_schema
from podero_async.models import VehicleRef

__all__ = ["read_outcomes", "read_sessions"]


def read_sessions(
    vehicles: Collection[VehicleRef],
    from_date: date,
    to_date: date,
    *,
    partitions: int,
    requests_per_second: float | None = None,
    include_hidden: bool = False,
) -> dd.DataFrame:
    """Return the sessions of a fleet as a Dask frame, without sending anything.

    A vehicle that fails has no rows: look at `read_outcomes`.

    Args:
        vehicles: The vehicles, such as a list of those that `PoderoClient.discover_vehicles` found.
        from_date: The first UTC day.
        to_date: The last UTC day, inclusive.
        partitions: How many tasks read the vehicles; some for each thread of the cluster, so that a worker that dies costs little.
        requests_per_second: Upper bound of the requests that all tasks of a computation start per second; None for no bound.
        include_hidden: Whether the sessions that the server hides are included.

    Raises:
        ValueError: An argument is wrong.
    """
    rows = _rows(vehicles, from_date, to_date, partitions, requests_per_second, include_hidden)
    return _part_of(rows, [*frame_schema().names], _sessions_of)


def read_outcomes(
    vehicles: Collection[VehicleRef],
    from_date: date,
    to_date: date,
    *,
    partitions: int,
    requests_per_second: float | None = None,
    include_hidden: bool = False,
) -> dd.DataFrame:
    """Return the outcome of each vehicle as a Dask frame, from the tasks of a `read_sessions` with the same arguments.

    The arguments and errors are those of `read_sessions`.
    """
    rows = _rows(vehicles, from_date, to_date, partitions, requests_per_second, include_hidden)
    return _part_of(rows, OUTCOME_COLUMNS, _outcomes_of)


def _rows(
    vehicles: Collection[VehicleRef],
    from_date: date,
    to_date: date,
    partitions: int,
    requests_per_second: float | None,
    include_hidden: bool,
) -> dd.DataFrame:
    """Return sessions and outcomes as the rows of one frame, so that one task makes both."""
    arguments.instance("vehicles", vehicles, Collection, "a list of VehicleRef")  # an iterator could be read once only
    from_date, to_date = arguments.days(from_date, to_date)
    arguments.flag("include_hidden", include_hidden)
    if not arguments.is_whole_number(partitions) or partitions < 1:
        raise ValueError(f"partitions must be a whole number of at least 1, not {partitions!r}")
    ThrottlePolicy(requests_per_second=requests_per_second)  # checks it
    known = list(vehicles)
    for vehicle in known:
        arguments.instance("vehicles", vehicle, VehicleRef, "a list of VehicleRef")
    partitions = max(1, min(partitions, len(known)))
    read = Read(from_date, to_date, include_hidden, requests_per_second, partitions)
    shares = [Share(known[first::partitions]) for first in range(partitions)]
    with dask.config.set({"dataframe.convert-string": False}):  # the frames have one schema
        return dd.from_map(  # type: ignore[no-any-return, no-untyped-call]
            read, shares, meta=empty_rows(), enforce_metadata=True, label="podero-read"
        )


def _part_of(rows: dd.DataFrame, columns: list[str], select: Callable[[pd.DataFrame], pd.DataFrame]) -> dd.DataFrame:
    # Not a filter expression: `len` of one would read the partitions twice, once for the filter and once for its frame.
    return rows[[*columns, MARK]].map_partitions(  # type: ignore[no-any-return]
        select, meta=empty_rows()[columns], enforce_metadata=False, required_columns=[MARK]
    )


def _sessions_of(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[~rows[MARK]].drop(columns=MARK)


def _outcomes_of(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows[MARK]].drop(columns=MARK)
