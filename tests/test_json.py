"""Models as JSON: the wire's names and order, values that survive, and FastAPI's response types."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given, settings

from podero_async import (
    ChargingSession,
    Completeness,
    ElectricVehicle,
    HiddenReason,
    SessionOutcome,
    User,
    VehicleSessions,
    summarize,
)
from podero_async._decode import decode_listed_vehicles, decode_page, decode_user
from podero_async.testing import PoderoSimulator
from tests._support.clients import page_body, wire_row
from tests._support.made_outcomes import outcome_of, session_of
from tests.frames.test_columns import SESSIONS

CONTRACT = yaml.safe_load((Path(__file__).parent / "simulator" / "description.yaml").read_text(encoding="utf-8"))
SESSION_ITEM = CONTRACT["components"]["schemas"]["SessionItem"]["properties"]


def test_a_session_has_the_names_and_the_order_of_the_wire() -> None:
    """A session as JSON has the properties of the contract's `SessionItem` in their order, and no others."""
    assert list(session_of(1).to_dict()) == list(SESSION_ITEM)
    assert list(json.loads(session_of(1).to_json())) == list(SESSION_ITEM)


async def test_a_row_comes_back_as_it_was_sent() -> None:
    """Each row of the simulator, decoded and made JSON again, is the row that the server sent."""
    with_unknown = wire_row(1, session_outcome="brand_new", is_hidden=True, hidden_reason="new_reason")
    filled = {"is_hidden": False, "hidden_reason": None, "target_reachable": None, "reachable_soc_pct": None}
    simulator = PoderoSimulator(vehicles=3, sessions_per_vehicle=60)
    rows = [row for vehicle in simulator.vehicles for row in simulator.truth(vehicle, include_hidden=True)]
    assert len(rows) == 180
    for row in [*rows, with_unknown]:
        (session,) = decode_page(page_body(row)).items
        assert session.to_dict() == filled | row
        assert json.loads(session.to_json()) == session.to_dict()


@settings(max_examples=40)
@given(session=SESSIONS)
def test_a_session_survives_json(session: ChargingSession) -> None:
    """A session that is made JSON in UTC and decoded again is equal, for any values and unknown enum texts."""
    times = [field.name for field in attrs.fields(ChargingSession) if "datetime" in str(field.type)]
    in_utc = {name: value.astimezone(UTC) for name in times if (value := getattr(session, name))}
    expected = attrs.evolve(session, **in_utc)
    assert decode_page(page_body(expected.to_dict())).items == [expected]


def test_times_end_in_z_or_their_offset() -> None:
    """A time in UTC is written as the API does, with a Z, and another one with its offset."""
    vienna = session_of(1, plug_in_time=datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))).to_dict()
    assert vienna["plug_in_time"] == "2026-07-01T12:00:00+02:00"
    assert vienna["unplug_time"] == "2026-10-02T06:00:00Z"


def test_other_models_become_json() -> None:
    """An outcome, a user, a vehicle and totals become JSON with all that they contain."""
    outcome = outcome_of(1, session_of(1)).to_dict()
    assert outcome["sessions"] == [session_of(1).to_dict()]
    assert (outcome["from_date"], outcome["completeness"]) == ("2026-10-01", "verified")
    assert outcome["vehicle"]["vehicle_id"] == "00000000-0000-0000-0000-0000000007d1"
    ids = {"id": "00000000-0000-0000-0000-000000000001"}
    user = decode_user(json.dumps(ids | {"joined_at": "2026-01-01T00:00:00Z"}).encode())
    assert user.to_dict().items() >= {"joined_at": "2026-01-01T00:00:00Z", **ids}.items()
    (vehicle,) = decode_listed_vehicles(json.dumps([ids | {"device_model": {"model": "i4"}}]).encode())
    assert isinstance(vehicle, ElectricVehicle)
    assert vehicle.to_dict()["device_model"] == {"manufacturer": None, "model": "i4", "year": None}
    assert json.loads(summarize([session_of(1)])[()].to_json())["sessions"] == 1


# --- FastAPI ----------------------------------------------------------------------------------------------------------

UNKNOWN = session_of(1, session_outcome=SessionOutcome("brand_new"), hidden_reason=HiddenReason("new_reason"))
MODELS: list[tuple[Any, Any]] = [
    (ChargingSession, UNKNOWN),
    (ChargingSession | None, None),
    (list[ChargingSession], [UNKNOWN, session_of(2)]),
    (VehicleSessions, outcome_of(1, UNKNOWN)),
    (dict[str, SessionOutcome], {"outcome": SessionOutcome("brand_new")}),
]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [each.to_dict() for each in value]
    return value.to_dict() if hasattr(value, "to_dict") else value


@pytest.mark.parametrize(("kind", "value"), MODELS, ids=lambda value: str(value)[:40])
async def test_fastapi_accepts_models_as_response_types(kind: Any, value: Any) -> None:
    """FastAPI returns a model as `to_dict` does, in the same order, unknown enum values included."""
    fastapi = pytest.importorskip("fastapi")
    httpx = pytest.importorskip("httpx")
    app = fastapi.FastAPI()
    app.get("/", response_model=kind)(lambda: value)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as http:
        response = await http.get("/")
        assert (response.status_code, response.json()) == (200, _plain(value))
        assert list(response.json() or ()) == list(_plain(value) or ())
        assert (await http.get("/openapi.json")).status_code == 200


def test_openapi_describes_a_session_as_the_contract_does() -> None:
    """The schema for OpenAPI has the contract's types, apart from enums, which are texts since they grow."""
    pydantic = pytest.importorskip("pydantic")
    for mode in ("validation", "serialization"):
        schema = pydantic.TypeAdapter(ChargingSession).json_schema(mode=mode)
        assert list(schema["properties"]) == list(SESSION_ITEM)
        for name, described in schema["properties"].items():
            if name in {"session_outcome", "hidden_reason"}:
                assert "enum" not in json.dumps(described)
            else:
                assert {key: described[key] for key in described if key not in {"default", "title"}} == {
                    key: SESSION_ITEM[name][key] for key in SESSION_ITEM[name] if key != "default"
                }


def test_pydantic_reads_a_session() -> None:
    """A pydantic model reads sessions from JSON and from plain values, and keeps a session as it is."""
    pydantic = pytest.importorskip("pydantic")
    adapter = pydantic.TypeAdapter(ChargingSession)
    assert adapter.validate_python(UNKNOWN) is UNKNOWN
    for read in (adapter.validate_json(UNKNOWN.to_json()), adapter.validate_python(UNKNOWN.to_dict())):
        assert read == UNKNOWN
        assert isinstance(read.session_outcome, SessionOutcome)
    with pytest.raises(pydantic.ValidationError):
        adapter.validate_python({"id": "no uuid"})
    for model in (User, ElectricVehicle, VehicleSessions):
        assert pydantic.TypeAdapter(model).json_schema()["title"] == model.__name__


def test_pydantic_reads_a_time_without_an_offset_as_utc() -> None:
    """A time without an offset is read as UTC, as it is from the API."""
    pydantic = pytest.importorskip("pydantic")
    row = session_of(1).to_dict() | {"plug_in_time": "2026-10-01T10:00:00"}
    read = pydantic.TypeAdapter(ChargingSession).validate_python(row)
    assert read.plug_in_time == datetime(2026, 10, 1, 10, tzinfo=UTC)


def test_pydantic_leaves_out_what_is_excluded() -> None:
    """`include` and `exclude`, as FastAPI's `response_model_exclude` passes them, act on a model and on nested ones."""
    pydantic = pytest.importorskip("pydantic")
    user = decode_user(b'{"id": "00000000-0000-0000-0000-000000000001", "email": "ann@example.com"}')
    adapter = pydantic.TypeAdapter(User)
    assert "email" not in adapter.dump_python(user, exclude={"email"}, mode="json")
    assert list(adapter.dump_python(user, include={"id"}, mode="json")) == ["id"]
    nested = pydantic.TypeAdapter(VehicleSessions).dump_python(
        outcome_of(1, UNKNOWN), exclude={"vehicle": {"user_id"}, "sessions": {"__all__": {"id"}}}, mode="json"
    )
    assert "user_id" not in nested["vehicle"]
    assert "id" not in nested["sessions"][0]


def test_verdicts_and_days_are_texts() -> None:
    """pydantic writes a verdict and a day as `to_dict` does."""
    pydantic = pytest.importorskip("pydantic")
    outcome = outcome_of(1)
    assert json.loads(pydantic.TypeAdapter(VehicleSessions).dump_json(outcome)) == outcome.to_dict()
    assert outcome.completeness is Completeness.VERIFIED
    assert outcome.from_date == date(2026, 10, 1)
