"""What callers get wrong is named at the call, before anything is sent."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from podero_async import ConfigurationError, PoderoClient, RetryPolicy, StaticToken, ThrottlePolicy, Timeouts
from podero_async.testing import PoderoSimulator
from tests._support.clients import ORG, client_of, static_client

GOOD: dict[str, Any] = {
    "user_id": UUID(int=1),
    "vehicle_id": str(UUID(int=2)),
    "from_date": date(2026, 1, 1),
    "to_date": date(2026, 1, 31),
}
READS = ("list_sessions", "sessions", "vehicle_sessions")
BAD_DAYS: list[tuple[str, Any]] = [
    ("from_date", date(2026, 2, 1)),
    ("from_date", datetime(2026, 1, 1, tzinfo=UTC)),
    ("to_date", datetime(2026, 1, 31, tzinfo=UTC)),
    ("to_date", "2026-01-31"),
    ("from_date", None),
]
BAD_IDS: list[tuple[str, Any]] = [("user_id", "nobody"), ("user_id", None), ("vehicle_id", 5), ("vehicle_id", "")]


async def _call(call: Callable[..., Any], **arguments: Any) -> None:
    result = call(**arguments)
    if inspect.isawaitable(result):
        await result


@pytest.mark.parametrize(("name", "value"), [*BAD_DAYS, *BAD_IDS])
@pytest.mark.parametrize("method", READS)
async def test_a_bad_day_or_id_is_named(simulator: PoderoSimulator, method: str, name: str, value: Any) -> None:
    """A typo would come back as a puzzling 422, or as an empty list."""
    async with client_of(simulator) as client:
        with pytest.raises(ValueError, match=name):
            await _call(getattr(client, method), **(GOOD | {name: value}))
    assert simulator.counts.total_requests == 0


@pytest.mark.parametrize(("name", "value"), BAD_DAYS)
async def test_a_fleets_bad_day_is_named(simulator: PoderoSimulator, name: str, value: Any) -> None:
    """A night's run would begin with the wrong window."""
    days = {key: GOOD[key] for key in ("from_date", "to_date")}
    async with client_of(simulator) as client:
        with pytest.raises(ValueError, match=name):
            client.fetch_fleet(**(days | {name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [("limit", 0), ("limit", 201), ("limit", True), ("limit", 5.0), ("limit", "5"), ("offset", -1), ("offset", 1.5)],
)
async def test_a_page_out_of_bounds_is_named(simulator: PoderoSimulator, name: str, value: Any) -> None:
    """The server would refuse it, or clamp it without a word."""
    async with client_of(simulator) as client:
        with pytest.raises(ValueError, match=name):
            await client.list_sessions(**GOOD, **{name: value})
    assert simulator.counts.total_requests == 0


@pytest.mark.parametrize(
    ("method", "arguments", "name"),
    [
        ("electric_vehicles", {"user_id": "nobody"}, "user_id"),
        ("current_session", {"user_id": UUID(int=1), "vehicle_id": "x"}, "vehicle_id"),
        ("user_by_external_id", {"external_id": ""}, "external_id"),
        ("user_by_external_id", {"external_id": ".."}, "external_id"),
        ("user_by_external_id", {"external_id": 5}, "external_id"),
        ("user_by_external_id", {"external_id": "jo\ud800hn"}, "external_id"),
    ],
)
async def test_the_other_calls_name_theirs(simulator: PoderoSimulator, method: str, arguments: Any, name: str) -> None:
    """A path would be asked for that the caller never meant."""
    async with client_of(simulator) as client:
        with pytest.raises(ValueError, match=name):
            await _call(getattr(client, method), **arguments)
    assert simulator.counts.total_requests == 0


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"org_id": "me", "credentials": StaticToken("t")}, "org_id"),
        ({"org_id": ORG, "credentials": "t0ken"}, "credentials"),
        ({"org_id": ORG, "credentials": StaticToken("t"), "base_url": "http://app.podero.com"}, "base_url"),
    ],
)
def test_a_client_names_what_it_cannot_use(arguments: Any, name: str) -> None:
    """A misconfigured service would start, and fail at its first request."""
    with pytest.raises(ValueError, match=name) as caught:
        PoderoClient(**arguments)
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize(
    ("policy", "settings"),
    [
        (Timeouts, {"total": None}),
        (Timeouts, {"read": "30"}),
        (RetryPolicy, {"max_elapsed": None}),
        (RetryPolicy, {"budget": 2.5}),
        (ThrottlePolicy, {"requests_per_second": "5"}),
        (ThrottlePolicy, {"requests_per_second": True}),
        (static_client, {"origin": "http://127.0.0.1:1", "retry": None}),
        (static_client, {"origin": "http://127.0.0.1:1", "throttle": 5}),
        (static_client, {"origin": "http://127.0.0.1:1", "timeouts": aiohttp.ClientTimeout(total=3)}),
    ],
)
def test_a_setting_of_the_wrong_kind_is_named(policy: Callable[..., object], settings: dict[str, Any]) -> None:
    """It would be a TypeError from deep inside, or pass until the first request."""
    with pytest.raises(ConfigurationError, match=[*settings][-1]):
        policy(**settings)
