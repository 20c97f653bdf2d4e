"""The errors that calls raise."""

from __future__ import annotations

import copy
import copyreg
import pickle
from collections.abc import AsyncIterator
from datetime import date

import pytest
from aiohttp import web
from tblib.pickling_support import pickle_exception

from podero_async import ChargingSession, errors
from podero_async._failures import copy_of
from podero_async.errors import (
    ApiError,
    CompletenessError,
    ConfigurationError,
    DecodeError,
    PoderoError,
    RateLimitError,
    RequestTimeoutError,
    TransportError,
)
from tests._support.clients import USER, VEHICLE, page_body, serving, static_client, wire_row

DAYS = date(2026, 1, 1), date(2026, 1, 31)
SESSIONS_PATH = f"/users/{USER}/electric-vehicles/{VEHICLE}/sessions"
EXAMPLES = [
    ConfigurationError("limit"),
    TransportError("the connection was lost", "GET", "/x", retryable=False),
    RequestTimeoutError("no response in time", "GET", "/x"),
    *(
        kind(418, "detail", "GET", "/x", "request-1", 1.5)
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ApiError)
    ),
    DecodeError("expected a number", "$.items[3]", 3, method="GET", path="/x"),
    CompletenessError("the list is not sorted by plug-in time", 10, 12, "/x"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_pickle_and_copy(error: PoderoError) -> None:
    """An unpickled or copied error has the type, the message and the attributes of the original."""
    if isinstance(error, ApiError | DecodeError | TransportError):
        error.attempts, error.request_id = 7, "request-2"
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_the_copies_of_an_error_are_independent(error: PoderoError, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy has attributes of its own and no traceback, also where tblib is installed into pickle, as Dask does."""
    monkeypatch.setitem(copyreg.dispatch_table, type(error), pickle_exception)
    with pytest.raises(PoderoError) as caught:
        raise error
    twin = copy_of(caught.value)
    assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))
    assert twin.__traceback__ is None
    twin.attempts = 0  # type: ignore[attr-defined]
    assert getattr(error, "attempts", None) != 0


def test_every_error_is_a_podero_error() -> None:
    """`except PoderoError` catches every error of the module."""
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), PoderoError)
    assert {type(error).__name__ for error in EXAMPLES} | {"PoderoError"} == set(errors.__all__)


def test_an_api_error_names_its_request() -> None:
    """The message has the status, the detail, the method, the path, the attempts and the request id."""
    error = RateLimitError(429, "slow down", "GET", "/path", "request-1", 30.0)
    error.attempts = 3
    assert str(error) == "HTTP 429: slow down (GET /path, 3 attempts) [request request-1]"
    assert error.detail == "slow down"
    assert error.retry_after == 30.0


def test_a_decode_error_names_the_position() -> None:
    """The message has the JSON path of the unreadable value."""
    error = DecodeError("expected a number", "$.items[3].final_soc_pct", 3, path="/path")
    assert str(error) == "expected a number - at $.items[3].final_soc_pct (GET /path)"


def test_errors_are_the_built_in_errors_of_their_kind() -> None:
    """`except TimeoutError` catches a `RequestTimeoutError`, and `except ValueError` a `ConfigurationError`."""
    assert issubclass(RequestTimeoutError, TimeoutError)
    assert issubclass(ConfigurationError, ValueError)


async def test_an_unreadable_row_names_its_vehicle() -> None:
    """The `DecodeError` of a row has the path of the vehicle's sessions, for one page and for a stream."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=page_body(wire_row(is_at_home="maybe")))

    async with serving(handler) as origin, static_client(origin) as client:
        for call in (client.list_sessions(USER, VEHICLE, *DAYS), anext(client.sessions(USER, VEHICLE, *DAYS))):
            with pytest.raises(DecodeError, match=r"\$\.items\[0\]\.is_at_home \(GET ") as caught:
                await call
            assert caught.value.path.endswith(SESSIONS_PATH)


async def listed(sessions: AsyncIterator[ChargingSession]) -> list[ChargingSession]:
    return [session async for session in sessions]


async def test_an_unproven_list_names_its_vehicle() -> None:
    """The `CompletenessError` of a list without progress has the path of the vehicle's sessions."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=page_body(*map(wire_row, range(200)), total=1000))

    async with serving(handler) as origin, static_client(origin) as client:
        for call in (
            client.vehicle_sessions(USER, VEHICLE, *DAYS),
            listed(client.sessions(USER, VEHICLE, *DAYS)),
        ):
            with pytest.raises(CompletenessError, match="no progress") as caught:
                await call
            assert caught.value.path.endswith(SESSIONS_PATH)


def test_the_repr_of_a_decode_error_has_its_request() -> None:
    """The repr of a `DecodeError` has the method and path that it got after its creation."""
    error = DecodeError("expected JSON")
    error.method, error.path = "POST", "/token"
    assert repr(error) == "DecodeError('expected JSON', '$', 'POST', '/token')"
    assert repr(pickle.loads(pickle.dumps(error))) == repr(error)


def test_the_repr_of_a_timeout_has_its_path() -> None:
    """The repr of a `RequestTimeoutError` has its reason, method and path, which that of `TimeoutError` cuts off."""
    assert repr(RequestTimeoutError("late", "GET", "/users")) == "RequestTimeoutError('late', 'GET', '/users')"
