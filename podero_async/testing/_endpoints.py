"""The endpoints of the API: each maps a request to a response, and raises `RefusedError` for an invalid request."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable
from itertools import count
from threading import RLock
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import attrs
from aiohttp import web

from podero_async.models import VehicleRef
from podero_async.testing._faults import FaultPlan
from podero_async.testing._oauth import TokenIssuer, TokenRequest, TokenStyle
from podero_async.testing._pagination import cut_page
from podero_async.testing._parameters import PageRequest, Parameters
from podero_async.testing._responses import RefusedError, Response
from podero_async.testing._state import Fleet
from podero_async.testing._stats import Counts

PREFIX = "/api/partners/v2.0"
TOKEN_PATH = f"{PREFIX}/auth/token"
BASIC_TOKEN_PATH = "/oauth2/token/"  # noqa: S105 - a path

_ORGANIZATION = f"{PREFIX}/org/{{org_id}}"
_VEHICLES = f"{_ORGANIZATION}/users/{{user_id}}/electric-vehicles"
_SESSIONS = f"{_VEHICLES}/{{electric_vehicle_id}}/sessions"
_TOKEN_STYLES: dict[tuple[str, str], TokenStyle] = {
    (TOKEN_PATH, "application/json"): "json",
    (TOKEN_PATH, "application/x-www-form-urlencoded"): "form",
    (BASIC_TOKEN_PATH, "application/json"): "basic",
}

_NOT_FOUND = Response.of_detail(404, "Not Found")

Endpoint = Callable[[web.Request, FaultPlan], Response]


@attrs.define(kw_only=True)
class Endpoints:
    """The endpoints for a fleet. Each holds the lock while it reads the fleet, so a response shows one state of it."""

    fleet: Fleet
    tokens: TokenIssuer
    counts: Counts
    lock: RLock
    users_as_pages: bool
    before_page: Callable[[PageRequest], None] | None
    _page_numbers: count[int] = attrs.field(factory=lambda: count(1), init=False)

    def routes(self) -> list[tuple[str, str, Endpoint]]:
        """List the endpoints that require a bearer token: name, path, method."""
        return [
            ("sessions", _SESSIONS, self.sessions),
            ("current", f"{_SESSIONS}/current", self.current),
            ("users", f"{_ORGANIZATION}/users", self.users),
            ("user", f"{_ORGANIZATION}/users/by-ext-id/{{external_id}}", self.user),
            ("vehicles", _VEHICLES, self.electric_vehicles),
        ]

    def sessions(self, request: web.Request, plan: FaultPlan) -> Response:
        query = Parameters(request)
        org_id = query.path_uuid("org_id")
        page = PageRequest(
            number=next(self._page_numbers),
            vehicle=query.vehicle(),
            from_date=query.day("from"),
            to_date=query.day("to"),
            limit=query.limit(),
            offset=query.offset(),
            include_hidden=query.flag("include_hidden"),
        )
        query.check()
        with self.lock:
            self._check_known(org_id, page.vehicle)
        if self.before_page is not None:  # without the lock, since it may wait for another thread's change
            self.before_page(page)
        with self.lock:
            self._check_known(org_id, page.vehicle)
            return Response(200, cut_page(self.fleet.sessions(page.vehicle), page, plan.shaping, self.counts))

    def current(self, request: web.Request, _: FaultPlan) -> Response:
        query = Parameters(request)
        org_id, vehicle = query.path_uuid("org_id"), query.vehicle()
        query.check()
        with self.lock:
            self._check_known(org_id, vehicle)
            return Response.of(200, {"session": self.fleet.current(vehicle)})

    def users(self, request: web.Request, plan: FaultPlan) -> Response:
        query = Parameters(request)
        org_id, include_deleted = query.path_uuid("org_id"), query.flag("include_deleted")
        limit, offset = (query.limit(), query.offset()) if self.users_as_pages else (0, 0)
        query.check()
        with self.lock:
            self._check_known(org_id)
            rows = self._unless_empty(plan, self.fleet.user_rows(include_deleted=include_deleted))
        if self.users_as_pages:
            return Response.of(200, {"total": len(rows), "items": rows[offset : offset + limit]})
        return Response.of(200, rows)

    def user(self, request: web.Request, _: FaultPlan) -> Response:
        query = Parameters(request)
        org_id, include_deleted = query.path_uuid("org_id"), query.flag("include_deleted")
        query.check()
        with self.lock:
            self._check_known(org_id)
            row = self.fleet.user_by_external_id(request.match_info["external_id"], include_deleted=include_deleted)
        if row is None:
            raise RefusedError(_NOT_FOUND)
        return Response.of(200, row)

    def electric_vehicles(self, request: web.Request, plan: FaultPlan) -> Response:
        query = Parameters(request)
        org_id, user_id = query.path_uuid("org_id"), query.path_uuid("user_id")
        query.check()
        with self.lock:
            self._check_known(org_id)
            if not self.fleet.has_user(user_id):
                raise RefusedError(_NOT_FOUND)
            return Response.of(200, self._unless_empty(plan, self.fleet.vehicle_rows(user_id)))

    def _unless_empty(self, plan: FaultPlan, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if "empty_list" not in plan.shaping:
            return rows
        self.counts.faults["empty_list"] += 1
        return []

    async def token(self, request: web.Request, plan: FaultPlan) -> Response:
        body = await request.read()
        style = _TOKEN_STYLES.get((request.path, request.content_type))
        token_request = TokenRequest(
            style=style,
            body=dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True)) if style == "form" else body,
            client=_basic_credentials(request.headers.get("Authorization", "")),
        )
        armed = plan.shaping.get("token_expiring")
        with self.lock:
            response = self.tokens.respond(token_request, armed.fault.seconds if armed else None)
            if armed and response.status == 200:  # noqa: PLR2004 - otherwise no token was issued
                self.counts.faults["token_expiring"] += 1
            return response

    def _check_known(self, org_id: uuid.UUID, vehicle: VehicleRef | None = None) -> None:
        if org_id != self.fleet.org_id or (vehicle is not None and not self.fleet.has_vehicle(vehicle)):
            raise RefusedError(_NOT_FOUND)


def _basic_credentials(header: str) -> tuple[str, str] | None:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    # Both are form-encoded in the header: https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1
    return (unquote_plus(client_id), unquote_plus(secret)) if colon else None
