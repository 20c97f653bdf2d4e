"""The HTTP server: it counts requests, checks tokens, plays faults and sends the responses of the endpoints."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import partial
from math import inf
from threading import RLock

import attrs
from aiohttp import web

from podero_async.models import VehicleRef
from podero_async.testing._endpoints import BASIC_TOKEN_PATH, TOKEN_PATH, Endpoint, Endpoints
from podero_async.testing._faults import Fault, FaultPlan, FaultScript, RequestSummary
from podero_async.testing._responses import RefusedError, Response, Sleep, reset_connection, send, sleep_unless
from podero_async.testing._stats import Counts, RequestRecord

_MAX_RECORDS = 1000
_UNAUTHORIZED = Response.of_detail(401, "Unauthorized")

_AsyncEndpoint = Callable[[web.Request, FaultPlan], Awaitable[Response]]
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@attrs.define(kw_only=True)
class Server:
    """Serves the endpoints; `latency_s`, the delay of each response, may change while it runs."""

    endpoints: Endpoints
    faults: FaultScript
    counts: Counts
    lock: RLock
    clock: Callable[[], float]
    latency_s: float
    requests: deque[RequestRecord] = attrs.field(factory=lambda: deque(maxlen=_MAX_RECORDS), init=False)
    authorization_headers: set[str] = attrs.field(factory=set, init=False)
    _sleep: Sleep = attrs.field(init=False)
    _closing: asyncio.Future[None] = attrs.field(init=False)

    def app(self) -> web.Application:
        """Build the application for the running event loop."""
        self._closing = asyncio.get_running_loop().create_future()
        self._sleep = sleep_unless(self._closing)
        app = web.Application(middlewares=[self._serve_unrouted])
        app.on_response_prepare.append(_add_request_id)
        for name, path, endpoint in self.endpoints.routes():
            app.router.add_get(path, partial(self._serve, name, self._authorized(endpoint)), allow_head=False)
        for path in (TOKEN_PATH, BASIC_TOKEN_PATH):
            app.router.add_post(path, partial(self._serve, "token", self.endpoints.token))
        return app

    def close(self) -> None:
        """Wake all requests that sleep; their connections are reset."""
        self._closing.set_result(None)

    async def _serve(self, name: str, endpoint: _AsyncEndpoint, request: web.Request) -> web.StreamResponse:
        with self._in_flight(name, request):
            with self.lock:
                plan = self.faults.plan(_summary(name, request))
                fault = plan.breaking
                if fault is not None:
                    self.counts.faults[fault.kind] += 1
            is_open = await self._sleep(self.latency_s) and await self._sleep(_hang_s(fault))
            if not is_open or (fault is not None and fault.kind == "reset" and fault.after_bytes is None):
                return reset_connection(request)
            try:
                response = self._replacement(request, fault) or await endpoint(request, plan)
            except RefusedError as refused:
                response = refused.response
            if fault is not None and fault.kind == "malformed_json":
                response = attrs.evolve(response, body=response.body[: len(response.body) // 2])
            return await send(request, self._counted(response), fault, self._sleep)

    @contextmanager
    def _in_flight(self, name: str, request: web.Request) -> Iterator[None]:
        with self.lock:
            self._record(request, name)
            self.counts.begin(name)
        try:
            yield
        finally:
            with self.lock:
                self.counts.concurrent -= 1

    def _record(self, request: web.Request, name: str) -> None:
        self.requests.append(
            RequestRecord(
                method=request.method, path=request.path, query=dict(request.query), time=self.clock(), endpoint=name
            )
        )
        if header := request.headers.get("Authorization"):
            self.authorization_headers.add(header)

    def _counted(self, response: Response) -> Response:
        """Count the response, and add the time of the server, which is that of `clock` if one was given."""
        with self.lock:
            self.counts.responses[response.status] += 1
        return attrs.evolve(response, headers={"Date": formatdate(self.clock(), usegmt=True), **response.headers})

    def _authorized(self, endpoint: Endpoint) -> _AsyncEndpoint:
        async def respond(request: web.Request, plan: FaultPlan) -> Response:
            with self.lock:
                is_valid = self.endpoints.tokens.is_valid(_bearer(request))
            return endpoint(request, plan) if is_valid else _UNAUTHORIZED

        return respond

    def _replacement(self, request: web.Request, fault: Fault | None) -> Response | None:
        """Return the response that a fault sends instead of the good one, or None if it sends the good one."""
        match fault:
            case Fault(kind="status"):
                return _status_response(fault)
            case Fault(kind="empty"):
                return Response(200, b"")
            case Fault(kind="token_revoked"):
                with self.lock:
                    self.endpoints.tokens.revoke(_bearer(request))
                return _UNAUTHORIZED
        return None

    @web.middleware
    async def _serve_unrouted(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Respond in JSON if no route matches: 404 for an unknown path, 405 for an unsupported method."""
        try:
            return await handler(request)
        except web.HTTPException as refused:
            allow = {"Allow": refused.headers["Allow"]} if "Allow" in refused.headers else {}
            response = Response.of_detail(refused.status, refused.reason, allow)
        with self._in_flight("other", request):
            return await send(request, self._counted(response), None, self._sleep)


async def _add_request_id(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Request-ID"] = str(uuid.uuid4())


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def _summary(endpoint: str, request: web.Request) -> RequestSummary:
    path = request.match_info
    try:
        vehicle = VehicleRef(user_id=path["user_id"], vehicle_id=path["electric_vehicle_id"])
    except (KeyError, ValueError):
        vehicle = None
    return RequestSummary(endpoint=endpoint, is_first_page=request.query.get("offset", "0") == "0", vehicle=vehicle)


def _hang_s(fault: Fault | None) -> float:
    if fault is None or fault.kind != "hang":
        return 0.0
    return inf if fault.seconds is None else fault.seconds


def _status_response(fault: Fault) -> Response:
    status, headers = fault.status or 503, fault.headers or {}
    if fault.body is None:
        return Response.of_detail(status, f"Simulated {status}", headers)
    body = fault.body.encode() if isinstance(fault.body, str) else fault.body
    return Response(status, body, fault.content_type or "text/html; charset=utf-8", headers)
