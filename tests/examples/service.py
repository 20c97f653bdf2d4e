"""A FastAPI service with one client for the application's lifetime. Run it: `uvicorn tests.examples.service:app`.

Several workers share one token by its file:

    TOKEN_FILE=token.json gunicorn --workers 2 --worker-class uvicorn_worker.UvicornWorker tests.examples.service:app

On SIGTERM, both let streams end and then close the client. `--timeout-graceful-shutdown` (uvicorn) and `--graceful-timeout`
(gunicorn) bound this time.
"""

import asyncio
import json
import logging
import math
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import date, timedelta
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

import attrs
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from podero_async import (
    ApiError,
    ChargingSession,
    Completeness,
    DecodeError,
    FileTokenStore,
    NotFoundError,
    PoderoClient,
    PoderoError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    SessionTotals,
    TransportError,
    VehicleSessions,
    http_status_of,
    summarize,
)

logger = logging.getLogger("service")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, PoderoClient]]:
    """Open the client when the application starts, and close it when the application stops."""
    # A person waits for each response, so a call fails after 10 s instead of waiting for the end of an outage.
    token_file = os.environ.get("TOKEN_FILE")
    store = FileTokenStore(token_file) if token_file else None
    async with PoderoClient.from_env(retry=RetryPolicy(max_elapsed=10.0), token_store=store) as client:
        yield {"client": client, "probing": client.with_options(retry=RetryPolicy(max_attempts=1, max_elapsed=1.0))}


def client_of(request: Request) -> PoderoClient:
    """Return the application's client."""
    client: PoderoClient = request.state.client
    return client


@contextmanager
def checked_arguments() -> Iterator[None]:
    """Refuse the request if the client refuses an argument, such as a first day after the last one.

    This is around calls alone, because a `ValueError` of any other code is a defect of the service.
    """
    try:
        yield
    except PoderoError:  # a ConfigurationError is a ValueError, too
        raise
    except ValueError as error:
        raise RequestValidationError([]) from error


Client = Annotated[PoderoClient, Depends(client_of)]
FromDay = Annotated[date, Query(alias="from")]
ToDay = Annotated[date, Query(alias="to")]


def first_day_of(month: Annotated[str, Query(pattern="^20[0-9]{2}-(0[1-9]|1[0-2])$", examples=["2026-05"])]) -> date:
    """Return the first day of a month, `YYYY-MM`."""
    return date.fromisoformat(f"{month}-01")


Month = Annotated[date, Depends(first_day_of)]


@attrs.frozen(kw_only=True)
class Savings(SessionTotals):
    """The sums of a customer's month."""

    complete: bool
    """False if a row could not be read, or a list was not proven complete, so that the sums may be too low."""


app = FastAPI(lifespan=lifespan)


@app.get("/users/{user_id}/sessions")
async def sessions(client: Client, user_id: UUID, first: FromDay, last: ToDay) -> StreamingResponse:
    """Stream the sessions of all vehicles of a user as lines of JSON. An error on the way cuts the response off."""
    with checked_arguments():
        vehicles = await client.electric_vehicles(user_id)
        lists = [client.sessions(user_id, vehicle.id, first, last) for vehicle in vehicles]

    async def lines() -> AsyncIterator[str]:
        for rows in lists:
            async with aclosing(rows):
                async for session in rows:
                    yield session.to_json() + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@app.get("/users/{user_id}/vehicles/{vehicle_id}/live")
async def live(client: Client, user_id: UUID, vehicle_id: UUID) -> ChargingSession | None:
    """Return the active session of a vehicle, or null."""
    return await client.current_session(user_id, vehicle_id)


@app.get("/customers/{external_id}/savings")
async def savings(client: Client, external_id: str, month: Month) -> Savings:
    """Return the sums of a month in Vienna's time for a customer, known by our own id. If a vehicle fails, so does the call."""
    with checked_arguments():
        user = await client.user_by_external_id(external_id)
        outcomes = await client.user_sessions(user.id, month - timedelta(days=1), month + timedelta(days=31))
    totals = summarize(outcomes, "month", time_zone="Europe/Vienna").get(month, SessionTotals())
    reads = [each for each in outcomes if isinstance(each, VehicleSessions)]
    is_complete = not any(each.rejected or each.completeness is Completeness.UNPROVEN for each in reads)
    return Savings(**attrs.asdict(totals), complete=is_complete)


@app.get("/health")
async def health(request: Request, response: Response) -> dict[str, bool | int | float]:
    """Return the client's statistics, with status 503 while the API is unavailable: a customer that does not exist is a 404.

    `is_breaker_open` would stay true if the service got no more traffic because of it.
    """
    client: PoderoClient = request.state.probing
    try:
        await client.user_by_external_id("health-check")
    except NotFoundError:
        pass
    except PoderoError:
        response.status_code = 503
    return attrs.asdict(client.statistics())


def problem(status: int, **headers: str) -> Response:
    """Return a response in the format of RFC 9457. It has no text of an error, which names ids and paths."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    return Response(json.dumps(body), status, headers, "application/problem+json")


def response_to(error: Exception) -> tuple[int, dict[str, str]]:
    """Return the status and the headers for a call that failed: 503 if a later call may succeed."""
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


@app.exception_handler(PoderoError)
async def call_failed(_: Request, error: Exception) -> Response:
    """Respond to a call of the client that failed."""
    status, headers = response_to(error)
    logger.warning("responding with %s", status, exc_info=error)
    return problem(status, **headers)


@app.exception_handler(RequestValidationError)
async def request_refused(_: Request, __: Exception) -> Response:
    """Respond to a mistyped id or day, which never reaches the client."""
    return problem(422)


class CancelOnDisconnect:
    """Cancels the handler of a request, and with it the handler's calls, as soon as the caller has disconnected."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        handler = asyncio.current_task()
        if scope["type"] != "http" or handler is None:
            await self.app(scope, receive, send)
            return
        messages: asyncio.Queue[Message] = asyncio.Queue()

        async def watch() -> None:
            message: Message = {"type": "http.request"}
            while message["type"] != "http.disconnect":
                message = await receive()
                messages.put_nowait(message)
            handler.cancel()

        async def send_until_the_end(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                watching.cancel()  # after a whole response, a disconnect means nothing
            await send(message)

        watching = asyncio.create_task(watch())
        try:
            await self.app(scope, messages.get, send_until_the_end)
        except asyncio.CancelledError:
            is_gone = watching.done() and not watching.cancelled()
            if not is_gone or handler.uncancel():
                raise
        finally:
            watching.cancel()


app.add_middleware(CancelOnDisconnect)
