"""Frames: the CPU time to make one of a fleet's outcomes, compared with dictionaries that a user would make by hand."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]

from benchmarks.fleet import FIRST_DAY, LAST_DAY, vehicles, wire_rows
from benchmarks.measuring import Figure, median, quartiles
from podero_async import Completeness, VehicleSessions
from podero_async._decode import decode_page
from podero_async.frames import to_arrow, to_pandas, to_polars

_AIM = 3.0
_ROWS = 199


def figures(count: int, pairs: int) -> Iterator[Figure]:
    """Compare each kind of frame in pairs of runs.

    Args:
        count: The vehicles of the fleet, each of 199 sessions.
        pairs: The pairs of runs.
    """
    outcomes = _outcomes(count)
    for name, ours, by_hand in (
        ("Arrow", to_arrow, lambda: pa.Table.from_pylist(_dictionaries(outcomes, text_ids=True))),
        ("pandas", to_pandas, lambda: pd.DataFrame(_dictionaries(outcomes))),
        ("polars", to_polars, lambda: pl.DataFrame(_dictionaries(outcomes, text_ids=True), infer_schema_length=None)),
    ):
        seconds = [(_cpu_s(lambda make=ours: make(outcomes)), _cpu_s(by_hand)) for _ in range(pairs)]  # type: ignore[misc]
        ratios = [theirs / own for own, theirs in seconds]
        own_us = median([own for own, _ in seconds]) / (count * _ROWS) * 1e6
        yield Figure(
            name=f"a frame of {name} from sessions, compared with dictionaries",
            value=f"{median(ratios):.1f} times as fast ({quartiles(ratios)}), {own_us:.1f} us of CPU a session",
            aim=f"{_AIM:.0f} times",
            reached=median(ratios) >= _AIM,
        )


def _outcomes(count: int) -> list[VehicleSessions]:
    body = b'{"total":%d,"items":[%s]}' % (_ROWS, b",".join(wire_rows(_ROWS)))
    return [
        VehicleSessions(
            vehicle=vehicle,
            from_date=FIRST_DAY,
            to_date=LAST_DAY,
            sessions=decode_page(body).items,
            completeness=Completeness.VERIFIED,
            total=_ROWS,
        )
        for vehicle in vehicles([_ROWS] * count)
    ]


def _dictionaries(outcomes: list[VehicleSessions], *, text_ids: bool = False) -> list[dict[str, Any]]:
    kind = str if text_ids else lambda value: value
    return [
        {
            "user_id": kind(outcome.vehicle.user_id),
            "vehicle_id": kind(outcome.vehicle.vehicle_id),
            **attrs.asdict(session),
            "id": kind(session.id),
        }
        for outcome in outcomes
        for session in outcome.sessions
    ]


def _cpu_s(make: Callable[[], object]) -> float:
    gc.collect()
    began = time.process_time()
    make()
    return time.process_time() - began
