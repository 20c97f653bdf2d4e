r"""Services: status codes, outages, health checks, disconnects and task groups of a backend (FastAPI) or a bot.

`podero_async.guide.getting_started` shows how handlers share one client. `tests/examples/service.py` is a complete FastAPI
service.

# What does my service respond if a call fails, or in an outage (API down: 503)?

The status `http_status_of(error)`, and a text of your own, since the text of an error names ids and paths. During one
outage this status changes: 503 while the API responds, 502 once the client sends probes only or a gateway responds, 504
if requests hang. This makes all of them, and each other failure that may pass, one 503 with a `Retry-After`, which your
caller can act on:

```python
import math

from podero_async import (
    ApiError,
    DecodeError,
    PoderoClient,
    PoderoError,
    RateLimitError,
    ServerError,
    TransportError,
    http_status_of,
)


def response_to(error: Exception) -> tuple[int, dict[str, str]]:
    match error:
        case (
            TransportError(retryable=True)
            | DecodeError(retryable=True)
            | ApiError(is_from_gateway=True)
            | ServerError()
            | RateLimitError()
            | TimeoutError()
        ):
            retry_after = getattr(error, "retry_after", None) or 30
            return 503, {"Retry-After": str(math.ceil(retry_after))}
    return http_status_of(error), {}


async def handler(client: PoderoClient, user_id: str, vehicle_id: str) -> tuple[int, dict[str, str], str]:
    try:
        session = await client.current_session(user_id, vehicle_id)
    except (PoderoError, ValueError) as error:
        return *response_to(error), "the charging session is not available"
    return 200, {}, session.to_json() if session else "null"
```

The `ValueError` is a mistyped id, or a first day after the last one, which the client refuses before it sends anything.
Catch it around the calls, as here. A handler of the application for each `ValueError` would make a 422 of the defects
of your own code, too. A handler for `podero_async.PoderoError` is right: it also gets `podero_async.ConfigurationError`,
although that is a `ValueError`, and responds with 500.

# How do I reply within a second, beside a backfill or in an outage (circuit breaker, fail fast)?

Set `max_elapsed` below your own timeout, so that a call raises its cause and not a bare `TimeoutError`, and a small
`backoff_initial`, so that a second attempt fits in. Each request has `max_elapsed` for itself; the timeout bounds all
requests of a reply. In an outage, the circuit breaker opens (`is_breaker_open`), and each call waits for the next probe
until `max_elapsed`; without a token, each call waits for one. Let one call wait, and the others fail at once:

```python
import asyncio

from podero_async import PoderoClient, PoderoError, RetryPolicy

SORRY = "The charging data is not available at the moment."


class Replies:
    def __init__(self, client: PoderoClient) -> None:
        self.client = client.with_options(retry=RetryPolicy(max_elapsed=0.9, backoff_initial=0.1))
        self.under_way = 0

    async def live(self, user_id: str, vehicle_id: str) -> str:
        now = self.client.statistics()
        if self.under_way and (now.is_breaker_open or (now.waiting_for_token and now.is_token_failing)):
            return SORRY
        self.under_way += 1
        try:
            async with asyncio.timeout(1.0):
                session = await self.client.current_session(user_id, vehicle_id)
        except (PoderoError, TimeoutError):
            return SORRY
        finally:
            self.under_way -= 1
        return f"plugged in since {session.plug_in_time:%H:%M} UTC" if session else "not plugged in"


async def print_live(client: PoderoClient, user_id: str, vehicle_id: str) -> None:
    print(await Replies(client).live(user_id, vehicle_id))
```

Keep one such count for each kind of call: `is_breaker_open` is true if one endpoint is down, also for calls to the others.
If the API hangs, and `max_elapsed` is below the `read` of `podero_async.Timeouts`, the breaker stays closed, so each call
lasts until `max_elapsed`.

Single calls go before those of fleets and backfills of the same client. If replies are slow beside a backfill, the
server is: lower `max_concurrency` of the `podero_async.ThrottlePolicy`, but not below 20, since then no slot is kept for single
calls.

# How do I write a health check? Is the API down?

Ask the API; a small call that fails fast is enough. A customer that does not exist costs one request, and the 404 shows
that the API responds:

```python
from podero_async import NotFoundError, PoderoClient, PoderoError, RetryPolicy


async def is_api_up(client: PoderoClient) -> bool:
    quick = client.with_options(retry=RetryPolicy(max_attempts=1, max_elapsed=1.0))  # in a service, make it once
    try:
        await quick.user_by_external_id("health-check")
    except NotFoundError:
        return True
    except PoderoError:
        return False
    return True
```

A wrong organization has the same 404, so check it once, when the service starts: `podero_async.guide.errors`.

Do not decide by `is_breaker_open` of the statistics: it ends only when one of your own calls succeeds, so a service that
gets no traffic because of it would never be healthy again. The statistics do say why calls wait:
`podero_async.guide.tuning`. A liveness check, after which the process is restarted, should not ask the API at all: a
restart ends no outage.

# The client disconnects: is the handler cancelled?

If a handler is cancelled, its calls end at once, and their requests with them. aiohttp's server can cancel it
(`handler_cancellation=True`). FastAPI and Starlette do not: when the caller disconnects, an ordinary handler runs to its
end, and only a streaming response is cancelled. The middleware `CancelOnDisconnect` of `tests/examples/service.py` cancels
the others, too. To bound the time in any case: `async with asyncio.timeout(5)`.

# How do I stream sessions as NDJSON (JSON lines)?

`to_json` of each session is one line. Close the stream if the caller leaves early:

```python
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import date

from podero_async import PoderoClient


async def ndjson(client: PoderoClient, user_id: str, vehicle_id: str) -> AsyncIterator[str]:
    async with aclosing(client.sessions(user_id, vehicle_id, date(2026, 1, 1), date(2026, 6, 30))) as sessions:
        async for session in sessions:
            yield session.to_json() + "\n"


async def print_all(client: PoderoClient, user_id: str, vehicle_id: str) -> None:
    async with aclosing(ndjson(client, user_id, vehicle_id)) as lines:
        async for line in lines:
            print(line, end="")
```

In FastAPI: `StreamingResponse(ndjson(...), media_type="application/x-ndjson")`.

# In asyncio.TaskGroup, why is my `except NotFoundError` not reached (ExceptionGroup)?

A task group raises an `ExceptionGroup` of the errors of its tasks. Catch with `except*`, or catch within each task:

```python
import asyncio

from podero_async import NotFoundError, PoderoClient


async def both(client: PoderoClient, user_id: str, vehicle_id: str) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(client.electric_vehicles(user_id))
            group.create_task(client.current_session(user_id, vehicle_id))
    except* NotFoundError as errors:
        print("unknown:", [str(error) for error in errors.exceptions])
```

The first error cancels the other tasks. If one failure shall not end the others, use
`podero_async.PoderoClient.fetch_fleet` or `user_sessions`, which return failures as values.
"""
