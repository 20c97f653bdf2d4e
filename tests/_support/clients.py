"""Make clients, sessions and responses for tests."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from yarl import URL

from podero_async import ClientCredentials, PoderoClient, RetryPolicy, StaticToken, ThrottlePolicy, Timeouts
from podero_async._http import Transport
from podero_async._http.response import Response
from podero_async.testing import PoderoSimulator

QUICK = RetryPolicy(backoff_initial=0.001, backoff_max=0.002)
"""Retries without a noticeable wait."""

ORG = uuid.UUID(int=1)
USER = uuid.UUID(int=2)
VEHICLE = uuid.UUID(int=3)


def client_of(simulator: PoderoSimulator, **options: Any) -> PoderoClient:
    """Return a client with the simulator's client credentials."""
    credentials = options.pop("credentials", ClientCredentials(simulator.client_id, simulator.client_secret))
    defaults = {"base_url": simulator.base_url, "retry": QUICK}
    return PoderoClient(simulator.org_id, credentials, **{**defaults, **options})


async def vehicles(client: PoderoClient) -> int:
    """Make a call of one request; return the number of the user's vehicles."""
    return len(await client.electric_vehicles(USER))


def around_sending(
    client: PoderoClient, around: Callable[[str, URL, Callable[[], Awaitable[Response]]], Awaitable[Response]]
) -> None:
    """Call `around` for each request of a client, with the method, the URL, and a function that sends the request.

    A lent session with a middleware would not do: only the client's own session sends each request exactly once.
    """
    session = client._transport.session
    send = session.send

    def send_around(method: str, url: URL, *rest: Any, **options: Any) -> Awaitable[Response]:
        return around(method, url, lambda: send(method, url, *rest, **options))

    session.send = send_around  # type: ignore[assignment, method-assign]


def wire_row(number: int = 1, /, **fields: Any) -> dict[str, Any]:
    """Return a session as the API sends it. Each number has an id and a plug-in time of its own."""
    return {
        "id": str(uuid.UUID(int=number)),
        "plug_in_time": f"2026-01-{1 + number // 1440 % 28:02}T{number // 60 % 24:02}:{number % 60:02}:00Z",
        "unplug_time": "2026-01-31T00:00:00Z",
        "inferred_session_end": None,
        "desired_charging_start_time": None,
        "desired_charging_end_time": None,
        "charge_deadline": None,
        "target_soc_pct": 80,
        "initial_soc_pct": 20.5,
        "final_soc_pct": None,
        "energy_charged_kwh": 12.25,
        "avg_charge_power_kw": None,
        "peak_charge_power_kw": None,
        "actual_cost_eur": None,
        "expected_savings_eur": None,
        "actual_savings_eur": None,
        "is_at_home": True,
        "session_outcome": "optimized",
        **fields,
    }


def page_body(*rows: Any, total: Any = None) -> bytes:
    """Return the body of a page."""
    return json.dumps({"total": len(rows) if total is None else total, "items": rows}).encode()


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    """Serve every request with one handler, and yield the origin."""
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def static_client(origin: str, **options: Any) -> PoderoClient:
    """Return a client with a static token."""
    return PoderoClient(ORG, StaticToken("token-1"), base_url=origin, **{"retry": QUICK, **options})


def static_transport(origin: str, **options: Any) -> Transport:
    """Return a transport with a static token, for tests of bounds that a client does not expose."""
    defaults: dict[str, Any] = {
        "session": None,
        "retry": QUICK,
        "throttle": ThrottlePolicy(),
        "timeouts": Timeouts(),
        "token_store": None,
    }
    return Transport(origin, StaticToken("token-1"), **{**defaults, **options})
