"""Wrong arguments and settings raise an error that names them, before anything is sent."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

from podero_async import (
    ClientCredentials,
    ConfigurationError,
    FileTokenStore,
    PoderoClient,
    RejectedItem,
    RetryPolicy,
    StaticToken,
    ThrottlePolicy,
    Timeouts,
    TokenEndpoint,
    VehicleRef,
)
from podero_async.backfill import SessionStore
from podero_async.otel import OpenTelemetryObserver
from podero_async.testing import PoderoSimulator
from tests._support.clients import ORG, client_of, page_body, serving, static_client, wire_row

IDS: dict[str, Any] = {"user_id": UUID(int=1), "vehicle_id": str(UUID(int=2))}
REF: dict[str, Any] = {"user_id": UUID(int=1), "vehicle_id": UUID(int=2)}
DAYS: dict[str, Any] = {"from_date": date(2026, 1, 1), "to_date": date(2026, 1, 31)}
BAD_DAYS: list[tuple[str, Any]] = [
    ("from_date", date(2026, 2, 1)),
    ("from_date", datetime(2026, 1, 1, tzinfo=UTC)),
    ("to_date", datetime(2026, 1, 31, tzinfo=UTC)),
    ("to_date", "2026-01-31"),
    ("from_date", None),
]
BAD_IDS: list[tuple[str, Any]] = [("user_id", "nobody"), ("user_id", None), ("vehicle_id", 5), ("vehicle_id", "")]
BAD_PAGES: list[tuple[str, Any]] = [
    *(("limit", value) for value in (0, 201, True, 5.0, "5")),
    *(("offset", value) for value in (-1, 1.5)),
]


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("no meter")


MISUSES: dict[str, Callable[[Any], object]] = {
    "client": lambda wrong: PoderoClient(ORG, wrong),
    "organization": lambda wrong: PoderoClient(wrong, StaticToken("token")),
    "token endpoint": lambda wrong: ClientCredentials("client", "secret", token_endpoint=wrong),
    "token store": lambda _: FileTokenStore("~nobody-has-this-name/token"),
    "vehicle": lambda wrong: VehicleRef(user_id=wrong, vehicle_id=wrong),
    "store": SessionStore,
    "simulator": lambda wrong: PoderoSimulator(seed=wrong),
    "observer": lambda wrong: OpenTelemetryObserver(meter_provider=wrong),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
def test_the_report_of_a_failed_constructor_can_show_local_variables(misuse: Callable[[Any], object]) -> None:
    """The object that a constructor has not finished has a repr, so a report with local variables shows the error."""
    with pytest.raises((ValueError, TypeError, RuntimeError)) as caught:
        misuse(SimpleNamespace(get_meter=fail))
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert type(caught.value).__name__ in "".join(report.format())
    assert not isinstance(caught.value, AttributeError)


@pytest.mark.parametrize("is_coroutine", [True, False])
async def test_a_callback_that_returns_an_awaitable_is_refused_when_it_is_called(is_coroutine: bool) -> None:
    """If `on_rejected` returns a coroutine or a future, which nothing would await, the stream raises `ValueError`."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=page_body(wire_row(1, is_at_home=5)))

    def on_rejected(item: RejectedItem) -> Any:
        return AsyncCallable()(item) if is_coroutine else asyncio.get_running_loop().create_future()

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(ValueError, match="on_rejected must be a function, not async"):
            _ = [session async for session in client.sessions(**IDS, **DAYS, on_rejected=on_rejected)]


class AsyncCallable:
    async def __call__(self, _: object) -> None: ...


async def assert_refused(simulator: PoderoSimulator, method: str, arguments: dict[str, Any], name: str) -> None:
    async with client_of(simulator) as client:
        with pytest.raises(ValueError, match=name):
            result = getattr(client, method)(**arguments)
            if inspect.isawaitable(result):
                await result
    assert simulator.counts.total_requests == 0


@pytest.mark.parametrize(("name", "value"), [*BAD_DAYS, *BAD_IDS])
@pytest.mark.parametrize("method", ["list_sessions", "sessions", "vehicle_sessions"])
async def test_a_wrong_day_or_id_is_named(simulator: PoderoSimulator, method: str, name: str, value: Any) -> None:
    """A call for sessions accepts two dates in order and two UUIDs; its error names the argument at fault."""
    await assert_refused(simulator, method, IDS | DAYS | {name: value}, name)


@pytest.mark.parametrize(("name", "value"), BAD_DAYS)
async def test_a_wrong_day_of_a_fleet_fetch_is_named(simulator: PoderoSimulator, name: str, value: Any) -> None:
    """`fetch_fleet` checks its days when it is called, before it is entered."""
    await assert_refused(simulator, "fetch_fleet", DAYS | {name: value}, name)


@pytest.mark.parametrize(("name", "value"), BAD_PAGES)
async def test_a_page_out_of_bounds_is_named(simulator: PoderoSimulator, name: str, value: Any) -> None:
    """`limit` is a whole number from 1 to 200, and `offset` one from 0."""
    await assert_refused(simulator, "list_sessions", IDS | DAYS | {name: value}, name)


@pytest.mark.parametrize(
    ("method", "arguments", "name"),
    [
        ("electric_vehicles", {"user_id": "nobody"}, "user_id"),
        ("current_session", {"user_id": UUID(int=1), "vehicle_id": "x"}, "vehicle_id"),
        ("user_by_external_id", {"external_id": ""}, "external_id"),
        ("user_by_external_id", {"external_id": ".."}, "external_id"),
        ("user_by_external_id", {"external_id": 5}, "external_id"),
        ("user_by_external_id", {"external_id": "jo\ud800hn"}, "external_id"),
        ("user_by_external_id", {"external_id": "john", "include_deleted": "false"}, "include_deleted"),
        ("users", {"include_deleted": "false"}, "include_deleted"),
        ("list_sessions", IDS | DAYS | {"keep_rejected": 1}, "keep_rejected"),
        ("sessions", IDS | DAYS | {"on_rejected": []}, "on_rejected must be a function, not list"),
        ("sessions", IDS | DAYS | {"on_rejected": asyncio.sleep}, "on_rejected must be a function, not async"),
        ("sessions", IDS | DAYS | {"on_rejected": AsyncCallable()}, "on_rejected must be a function, not async"),
        *(("fetch_fleet", DAYS | {"vehicles": value}, "vehicles") for value in (5, VehicleRef(**REF))),
        *(
            (method, IDS | DAYS | {"include_hidden": value}, "include_hidden")
            for method in ("list_sessions", "sessions", "vehicle_sessions")
            for value in ("false", 0, None)
        ),
        ("fetch_fleet", DAYS | {"include_hidden": "false"}, "include_hidden"),
    ],
)
async def test_another_wrong_argument_is_named(
    simulator: PoderoSimulator, method: str, arguments: Any, name: str
) -> None:
    """An id is refused if it would change the path of the request, and a flag if it is not True or False."""
    await assert_refused(simulator, method, arguments, name)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"org_id": "me", "credentials": StaticToken("t")}, "org_id"),
        ({"org_id": ORG, "credentials": "t0ken"}, "credentials"),
        ({"org_id": ORG, "credentials": StaticToken("t"), "session": "t0ken"}, "session"),
    ],
)
def test_a_wrong_argument_of_a_client_is_named(arguments: Any, name: str) -> None:
    """A client is not made with a wrong argument, and the error does not show its value."""
    with pytest.raises(ValueError, match=name) as caught:
        PoderoClient(**arguments)
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        *((Timeouts, {"total": value}) for value in (None, float("inf"))),
        *((Timeouts, {"read": value}) for value in ("30", -1)),
        (Timeouts, {"connect": 0}),
        *((RetryPolicy, {"max_attempts": value}) for value in (0, 1.5)),
        *((RetryPolicy, {"budget": value}) for value in (2.5, True)),
        *((RetryPolicy, {"max_elapsed": value}) for value in (None, 0, 10**400)),
        (TokenEndpoint, {"path": "/token", "form": "no"}),
        (TokenEndpoint, {"path": "/token", "basic": 1}),
        (RetryPolicy, {"backoff_initial": -1}),
        (RetryPolicy, {"backoff_max": float("nan")}),
        (RetryPolicy, {"retry_after_max": float("inf")}),
        *((ThrottlePolicy, {"max_concurrency": value}) for value in (0, True, 1.5, 10_001)),
        *((ThrottlePolicy, {"adaptive": value}) for value in ("false", 0, None)),
        *((ThrottlePolicy, {"requests_per_second": value}) for value in ("5", True, 0, -1, float("inf"))),
        (static_client, {"origin": "http://127.0.0.1:1", "retry": None}),
        (static_client, {"origin": "http://127.0.0.1:1", "throttle": 5}),
        (static_client, {"origin": "http://127.0.0.1:1", "timeouts": aiohttp.ClientTimeout(total=3)}),
    ],
)
def test_a_wrong_setting_is_named(make: Callable[..., object], settings: dict[str, Any]) -> None:
    """Policies and timeouts accept finite numbers above 0, and a client accepts only these classes."""
    with pytest.raises(ConfigurationError, match=[*settings][-1]):
        make(**settings)


def test_the_smallest_bounds_are_accepted() -> None:
    """One request at a time, one in two seconds, and a single attempt are valid."""
    assert ThrottlePolicy(max_concurrency=1, requests_per_second=0.5).requests_per_second == 0.5
    assert RetryPolicy(max_attempts=1, budget=1).max_attempts == 1
