"""The simulator and the models conform to the API description (`description.yaml`)."""

from __future__ import annotations

import asyncio
import copy
import enum
import threading
import typing
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
import requests
import schemathesis
import yaml  # type: ignore[import-untyped]

from podero_async.models import ChargingSession, HiddenReason, SessionOutcome, SessionsPage
from podero_async.testing import PoderoSimulator

DESCRIPTION: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("description.yaml").read_text(encoding="utf-8"))
SCHEMAS: dict[str, Any] = DESCRIPTION["components"]["schemas"]
FORMATS = {"uuid": uuid.UUID, "date-time": datetime}
TYPES = {"boolean": bool, "integer": int, "number": float, "string": str}
ENUMS: dict[str, type[enum.Enum]] = {"SessionOutcome": SessionOutcome, "HiddenReason": HiddenReason}


INVALID_SCENARIOS = {"value_above_maximum", "value_below_minimum", "incorrect_type"}
CONFIG = {
    "seed": 1,
    "generation": {"deterministic": True, "max-examples": 10},
    # The description cannot tell whether a well-formed password is also correct.
    "checks": {"positive_data_acceptance": {"enabled": False}},
}


def small_simulator() -> PoderoSimulator:
    return PoderoSimulator(seed=1, users=3, vehicles=3, sessions_per_vehicle=30)


def narrowed_description() -> dict[str, Any]:
    """Restrict the ids of the description to those of a simulator, since random ones would all lead to 404."""
    simulator = small_simulator()
    vehicle = simulator.vehicles[0]
    ids = {"OrgId": simulator.org_id, "UserId": vehicle.user_id, "ElectricVehicleId": vehicle.vehicle_id}
    description = copy.deepcopy(DESCRIPTION)
    for name, value in ids.items():
        description["components"]["parameters"][name]["schema"]["enum"] = [str(value)]
    return description


@pytest.fixture(scope="module")
def served() -> Iterator[PoderoSimulator]:
    """Run a simulator in another thread, since the fuzzer blocks the event loop."""
    simulator = small_simulator()
    loop, started, done = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with simulator:
            started.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(60)
    yield simulator
    loop.call_soon_threadsafe(done.set)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def headers(served: PoderoSimulator) -> dict[str, str]:
    body = {"grant_type": "password", "username": served.username, "password": served.password}
    response = requests.post(f"{served.base_url}/api/partners/v2.0/auth/token", json=body, timeout=60)
    return {"Authorization": f"Bearer {response.json()['access_token']}"}


schema = schemathesis.openapi.from_dict(narrowed_description(), config=schemathesis.Config.from_dict(CONFIG))


@pytest.mark.slow
@schema.parametrize()
def test_simulator_conforms_to_the_description(
    case: schemathesis.Case[Any], served: PoderoSimulator, headers: dict[str, str]
) -> None:
    """Every response of the simulator, to valid and to invalid requests, conforms to the description."""
    response = case.call(base_url=served.base_url, headers=headers)
    case.validate_response(response)
    # `negative_data_rejection` does not check each invalid query parameter if there is also a valid one.
    if has_invalid_query_parameter(case):
        assert 400 <= response.status_code < 500, (case.query, response.status_code)


def has_invalid_query_parameter(case: schemathesis.Case[Any]) -> bool:
    data = case.meta.phase.data if case.meta else None
    scenario = getattr(data, "scenario", None)
    location = getattr(data, "parameter_location", None)
    return (
        scenario is not None
        and scenario.value in INVALID_SCENARIOS
        and location is not None
        and location.value == "query"
    )


def fields_of(name: str) -> list[tuple[str, Any, bool, Any]]:
    """Read a schema of the description as (name, Python type, required, default) of each property, in its order."""
    described = SCHEMAS[name]
    return [
        (field, type_of(prop), field in described["required"], prop.get("default"))
        for field, prop in described["properties"].items()
    ]


def type_of(prop: dict[str, Any]) -> Any:
    if "$ref" in prop:
        return ENUMS[prop["$ref"].rpartition("/")[2]]
    if "anyOf" in prop:
        (one,) = (type_of(choice) for choice in prop["anyOf"] if choice != {"type": "null"})
        return one | None
    return FORMATS[prop["format"]] if "format" in prop else TYPES[prop["type"]]


def fields_of_model(model: type[attrs.AttrsInstance]) -> list[tuple[str, Any, bool, Any]]:
    hints = typing.get_type_hints(model)
    return [
        (
            field.name,
            hints[field.name],
            field.default is attrs.NOTHING,
            None if field.default is attrs.NOTHING else field.default,
        )
        for field in attrs.fields(model)
    ]


def test_charging_session_has_the_fields_of_the_description() -> None:
    """`ChargingSession` has the description's fields, in its order, with its types and defaults."""
    assert fields_of_model(ChargingSession) == fields_of("SessionItem")


def test_sessions_page_has_the_fields_of_the_description() -> None:
    """`SessionsPage` has the description's fields first, and requires no field that the server does not send."""
    total, items, *own = fields_of_model(SessionsPage)
    assert total == ("total", int, True, None)
    assert items == ("items", list[ChargingSession], True, None)
    assert list(SCHEMAS["SessionsListResponse"]["properties"]) == SCHEMAS["SessionsListResponse"]["required"]
    assert SCHEMAS["SessionsListResponse"]["required"] == ["total", "items"]
    # Fields that the description lacks have defaults.
    assert not any(required for _, _, required, _ in own)


@pytest.mark.parametrize("name", sorted(ENUMS))
def test_enums_have_the_values_of_the_description(name: str) -> None:
    """Each enum has the description's values, in its order."""
    assert [member.value for member in ENUMS[name]] == SCHEMAS[name]["enum"]
