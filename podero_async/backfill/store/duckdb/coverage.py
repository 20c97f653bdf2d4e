"""Coverage: the spans of days that were read, per vehicle, and how a batch of reads changes them.

The rule is `backfill._coverage.fold`. It runs in Python, vehicle by vehicle, since the joins and window functions of an SQL
form take several times as long, for small and for full batches.
"""

# ruff: noqa: S608 - the SQL is composed of constants of this package

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import TypeAlias

import attrs
import duckdb
import pyarrow as pa  # type: ignore[import-untyped]

from podero_async.backfill._coverage import Days, ProvenRead, Span, fold

__all__ = ["insert_folded", "record"]

_IDS = "user_id::VARCHAR, vehicle_id::VARCHAR"
_IS_PROVEN = "completeness <> 'unproven'"

_READS = f"""
SELECT {_IDS}, include_hidden, work_item, from_date, least(to_date, fetched_at::DATE), settle_to,
    epoch_us(fetched_at), "count" = 0
FROM arrow_reads WHERE {_IS_PROVEN} AND from_date <= fetched_at::DATE
"""
_UNSETTLED = "SELECT work_item, day FROM arrow_unsettled UNION SELECT work_item, day FROM absent"
_SPAN = f"{_IDS}, include_hidden, from_date, to_date, is_settled, epoch_us(read_at)"
_FACTS = f"SELECT {_SPAN} FROM facts"
_KNOWN = f"""
SELECT {_SPAN} FROM coverage SEMI JOIN (FROM arrow_reads WHERE {_IS_PROVEN}) USING (user_id, vehicle_id)
"""
_DELETE = """
DELETE FROM coverage c USING (SELECT DISTINCT user_id::UUID AS user_id, vehicle_id::UUID AS vehicle_id FROM arrow_spans) n
WHERE c.user_id = n.user_id AND c.vehicle_id = n.vehicle_id
"""
_INSERT = "INSERT INTO coverage BY NAME FROM arrow_spans"
_SPANS = pa.schema(
    [
        ("user_id", pa.string()),
        ("vehicle_id", pa.string()),
        ("include_hidden", pa.bool_()),
        ("from_date", pa.date32()),
        ("to_date", pa.date32()),
        ("is_settled", pa.bool_()),
        ("read_at", pa.timestamp("us", tz="UTC")),
    ]
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Row: TypeAlias = tuple[str, str, bool, date, date, bool, datetime]


@attrs.define
class _Vehicle:
    """The known days and the new reads of a vehicle under one user, by whether they include hidden sessions."""

    known: dict[bool, list[Span]] = attrs.field(factory=lambda: defaultdict(list))
    reads: dict[bool, list[ProvenRead]] = attrs.field(factory=lambda: defaultdict(list))
    unsettled: list[Days] = attrs.field(factory=list)

    def folded(self) -> Iterator[tuple[bool, Span]]:
        for include_hidden in (False, True):
            for span in fold(self.known[include_hidden], self.reads[include_hidden], self.unsettled):
                yield include_hidden, span


def record(con: duckdb.DuckDBPyConnection) -> None:
    """Record the proven reads of a batch, within its transaction.

    Reads the tables `arrow_reads`, `arrow_unsettled` and `absent`. A day in one of the last two becomes provisional.
    """
    vehicles = _vehicles(con)
    if not vehicles:
        return
    has_known = False
    for user_id, vehicle_id, include_hidden, first, last, is_settled, read_at in con.execute(_KNOWN).fetchall():
        if vehicle := vehicles.get((vehicle_id, user_id)):
            vehicle.known[include_hidden].append(Span(first, last, is_settled, _moment(read_at)))
            has_known = True
    _insert(con, vehicles, replaces=has_known)


def insert_folded(con: duckdb.DuckDBPyConnection) -> None:
    """Insert the spans of the table `facts`, which may overlap, as disjoint ones; a day provisional in one stays so."""
    vehicles: dict[tuple[str, str], _Vehicle] = defaultdict(_Vehicle)
    for user_id, vehicle_id, include_hidden, first, last, is_settled, read_at in con.execute(_FACTS).fetchall():
        vehicle = vehicles[vehicle_id, user_id]
        vehicle.known[include_hidden].append(Span(first, last, is_settled, _moment(read_at)))
        if not is_settled:
            vehicle.unsettled.append((first, last))
    if vehicles:
        _insert(con, vehicles)


def _insert(
    con: duckdb.DuckDBPyConnection, vehicles: dict[tuple[str, str], _Vehicle], *, replaces: bool = False
) -> None:
    rows: list[_Row] = [
        (user_id, vehicle_id, include_hidden, *span)
        for (vehicle_id, user_id), vehicle in sorted(vehicles.items(), key=lambda item: item[0])
        for include_hidden, span in vehicle.folded()
    ]
    con.register("arrow_spans", pa.table(list(map(list, zip(*rows, strict=True))), schema=_SPANS))
    if replaces:
        con.execute(_DELETE)
    con.execute(_INSERT)


def _vehicles(con: duckdb.DuckDBPyConnection) -> dict[tuple[str, str], _Vehicle]:
    """Return the vehicles with proven reads, by the ids of vehicle and user."""
    unsettled: dict[int, list[date | None]] = defaultdict(list)
    for work_item, day in con.execute(_UNSETTLED).fetchall():
        unsettled[work_item].append(day)
    vehicles: dict[tuple[str, str], _Vehicle] = defaultdict(_Vehicle)
    for user_id, vehicle_id, include_hidden, work_item, first, last, settle_to, at, is_empty in con.execute(
        _READS
    ).fetchall():
        vehicle = vehicles[vehicle_id, user_id]
        vehicle.reads[include_hidden].append(ProvenRead(first, last, settle_to, _moment(at), is_empty))
        vehicle.unsettled += [(first, last) if day is None else (day, day) for day in unsettled[work_item]]
    return vehicles


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
