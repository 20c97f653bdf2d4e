"""The columns of sessions: exact values, one schema, dictionaries that agree."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podero_async import ChargingSession, HiddenReason, SessionOutcome
from podero_async.frames._columns import encode_enum, session_columns
from podero_async.frames._schema import ENUMS, SESSION_SCHEMA
from tests._support.made_outcomes import session_of

_OFFSETS = st.integers(-86399, 86399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
_ZONES = st.one_of(st.just(UTC), _OFFSETS, st.sampled_from([ZoneInfo("Europe/Vienna"), ZoneInfo("America/New_York")]))
_MOMENTS = st.datetimes(datetime(1800, 1, 1), datetime(9000, 1, 1), timezones=_ZONES)  # noqa: DTZ001 - the zone is drawn
_FLOATS = st.none() | st.floats(allow_nan=False, allow_infinity=False)
_BOOLS = st.none() | st.booleans()
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_OUTCOMES = st.sampled_from(SessionOutcome) | _TEXTS.map(SessionOutcome)
_REASONS = st.none() | st.sampled_from(HiddenReason) | _TEXTS.map(HiddenReason)
_VALUES: dict[Any, st.SearchStrategy[Any]] = {
    UUID: st.uuids(),
    datetime: _MOMENTS,
    datetime | None: st.none() | _MOMENTS,
    float | None: _FLOATS,
    bool: st.booleans(),
    bool | None: _BOOLS,
    int | None: st.none() | st.integers(-(2**31), 2**31 - 1),
    SessionOutcome: _OUTCOMES,
    HiddenReason | None: _REASONS,
}
SESSIONS = st.builds(ChargingSession, **{field.name: _VALUES[field.type] for field in attrs.fields(ChargingSession)})


def _in_utc(_: object, __: object, value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def _batch(sessions: list[ChargingSession]) -> pa.RecordBatch:
    batch = pa.RecordBatch.from_arrays(session_columns(sessions), schema=SESSION_SCHEMA)
    batch.validate(full=True)
    return batch


@settings(max_examples=20)
@given(sessions=st.lists(SESSIONS, max_size=4))
def test_columns_hold_each_value_as_it_is(sessions: list[ChargingSession]) -> None:
    """A column has the value of each session: nulls as None, times of any offset at their moment,
    unknown texts as they are.
    """
    # In UTC, since Python takes no time of two zones for equal if its hour comes twice, or never, as the clocks change.
    expected = [attrs.asdict(session, value_serializer=_in_utc) for session in sessions]
    assert _batch(sessions).to_pylist() == expected


def test_the_schema_has_the_fields_of_a_session_in_order() -> None:
    """The schema names the fields of `ChargingSession` in their order."""
    assert SESSION_SCHEMA.names == [field.name for field in attrs.fields(ChargingSession)]


@given(texts=st.lists(st.none() | st.sampled_from(["optimized", "new", "newer", ""])))
def test_a_dictionary_begins_with_the_members(texts: list[str | None]) -> None:
    """A dictionary has all members of the enum first, then the unknown texts in order of appearance."""
    members = ENUMS["session_outcome"]
    encoded = encode_enum(pa.array(texts, pa.string()), members)
    unknown = dict.fromkeys(text for text in texts if text is not None and text not in members.to_pylist())
    assert encoded.dictionary.to_pylist() == [*SessionOutcome, *unknown]
    assert encoded.to_pylist() == texts


@pytest.mark.parametrize(
    "change",
    [
        {"plug_in_time": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))},
        {"unplug_time": datetime(9999, 12, 31, 23, 30, tzinfo=timezone(timedelta(hours=-1)))},
        {"reachable_soc_pct": 2**31},
        {"session_outcome": SessionOutcome("\ud800")},
        {"energy_charged_kwh": "7"},
    ],
)
def test_a_value_that_no_column_can_hold_is_refused(change: dict[str, Any]) -> None:
    """A value that a column would change, or that readers cannot read, raises a `ValueError`."""
    with pytest.raises(ValueError):
        session_columns([session_of(1, **change)])
