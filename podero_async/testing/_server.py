"""The HTTP exchange: it counts requests, checks the bearer, plays the faults and sends the answers of the endpoints."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf

import attrs
from aiohttp import web

from podero_async.models import VehicleRef
from podero_async.testing._endpoints import BASIC_TOKEN_PATH, TOKEN_PATH, Endpoints, Respond
from podero_async.testing._faults import Call, Fault, FaultScript, Plan
from podero_async.testing._responses import Answer, Pause, RefusedError, deliver, pause_until, reset
from podero_async.testing._stats import Counts, RequestRecord

_MAX_RECORDS = 1000
_UNAUTHORIZED = Answer.detail(401, "Unauthorized")

_Respond = Callable[[web.Request, Plan], Awaitable[Answer]]
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@attrs.define(kw_only=True)
class Server:
    """Serves the endpoints. `latency_s`, the wait before each answer, may be changed while it runs."""

    endpoints: Endpoints
    faults: FaultScript
    counts: Counts
    clock: Callable[[], float]
    latency_s: float
    requests: deque[RequestRecord] = attrs.field(factory=lambda: deque(maxlen=_MAX_RECORDS), init=False)
    tokens_seen: set[str] = attrs.field(factory=set, init=False)
    _pause: Pause = attrs.field(init=False)
    _closing: asyncio.Future[None] = attrs.field(init=False)

    def app(self) -> web.Application:
        """Build the application, for the loop that runs now."""
        self._closing = asyncio.get_running_loop().create_future()
        self._pause = pause_until(self._closing)
        app = web.Application(middlewares=[self._answer_unrouted])
        app.on_response_prepare.append(_sign)
        for endpoint, path, respond in self.endpoints.routes():
            app.router.add_get(path, partial(self._serve, endpoint, self._authorized(respond)), allow_head=False)
        for path in (TOKEN_PATH, BASIC_TOKEN_PATH):
            app.router.add_post(path, partial(self._serve, "token", self.endpoints.token))
        return app

    def close(self) -> None:
        """End every wait: requests that hang or are late lose their connection."""
        self._closing.set_result(None)

    async def _serve(self, endpoint: str, respond: _Respond, request: web.Request) -> web.StreamResponse:
        self._record(request, endpoint)
        with self.counts.answering(endpoint):
            plan = self.faults.plan(_call(endpoint, request))
            fault = plan.breaking
            if fault is not None:
                self.counts.faults[fault.kind] += 1
            is_open = await self._pause(self.latency_s) and await self._pause(_hang_s(fault))
            if not is_open or (fault is not None and fault.kind == "reset" and fault.after_bytes is None):
                return reset(request)
            try:
                answer = self._instead(request, fault) or await respond(request, plan)
            except RefusedError as refused:
                answer = refused.answer
            if fault is not None and fault.kind == "malformed_json":
                answer = attrs.evolve(answer, body=answer.body[: len(answer.body) // 2])
            self.counts.responses[answer.status] += 1
            return await deliver(request, answer, fault, self._pause)

    def _record(self, request: web.Request, endpoint: str) -> None:
        self.requests.append(
            RequestRecord(
                method=request.method,
                path=request.path,
                query=dict(request.query),
                time=self.clock(),
                endpoint=endpoint,
            )
        )
        if header := request.headers.get("Authorization"):
            self.tokens_seen.add(header)

    def _authorized(self, respond: Respond) -> _Respond:
        async def answer(request: web.Request, plan: Plan) -> Answer:
            return respond(request, plan) if self.endpoints.tokens.is_good(_bearer(request)) else _UNAUTHORIZED

        return answer

    def _instead(self, request: web.Request, fault: Fault | None) -> Answer | None:
        """Return the answer that a fault gives in place of the good one, if it does."""
        match fault:
            case Fault(kind="status"):
                return _status(fault)
            case Fault(kind="empty"):
                return Answer(200, b"")
            case Fault(kind="token_revoked"):
                self.endpoints.tokens.revoke(_bearer(request))
                return _UNAUTHORIZED
        return None

    @web.middleware
    async def _answer_unrouted(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answer what has no route, as JSON: 404 for a path that is none, 405 for a method that the path has not."""
        try:
            return await handler(request)
        except web.HTTPException as refused:
            allow = {"Allow": refused.headers["Allow"]} if "Allow" in refused.headers else {}
            answer = Answer.detail(refused.status, refused.reason, allow)
        self._record(request, "other")
        with self.counts.answering("other"):
            self.counts.responses[answer.status] += 1
            return await deliver(request, answer, None, self._pause)


async def _sign(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Request-ID"] = str(uuid.uuid4())


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def _call(endpoint: str, request: web.Request) -> Call:
    path = request.match_info
    try:
        vehicle = VehicleRef(user_id=path["user_id"], vehicle_id=path["electric_vehicle_id"])
    except (KeyError, ValueError):
        vehicle = None
    return Call(endpoint=endpoint, is_first_page=request.query.get("offset", "0") == "0", vehicle=vehicle)


def _hang_s(fault: Fault | None) -> float:
    if fault is None or fault.kind != "hang":
        return 0.0
    return inf if fault.seconds is None else fault.seconds


def _status(fault: Fault) -> Answer:
    status, headers = fault.status or 503, fault.headers or {}
    if fault.body is None:
        return Answer.detail(status, f"Simulated {status}", headers)
    body = fault.body.encode() if isinstance(fault.body, str) else fault.body
    return Answer(status, body, fault.content_type or "text/html; charset=utf-8", headers)
