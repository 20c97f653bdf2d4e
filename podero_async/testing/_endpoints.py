"""What each endpoint of the API answers to a valid request; what is not valid raises `RefusedError`."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable
from itertools import count
from urllib.parse import parse_qsl, unquote_plus

import attrs
from aiohttp import web

from podero_async.models import VehicleRef
from podero_async.testing._faults import Plan
from podero_async.testing._oauth import TokenCall, TokenDesk, TokenWay
from podero_async.testing._pagination import cut_page
from podero_async.testing._parameters import PageRequest, Parameters
from podero_async.testing._responses import Answer, RefusedError
from podero_async.testing._state import Fleet
from podero_async.testing._stats import Counts

PREFIX = "/api/partners/v2.0"
TOKEN_PATH = f"{PREFIX}/auth/token"
BASIC_TOKEN_PATH = "/oauth2/token/"  # noqa: S105 - a path

_ORGANIZATION = f"{PREFIX}/org/{{org_id}}"
_VEHICLES = f"{_ORGANIZATION}/users/{{user_id}}/electric-vehicles"
_SESSIONS = f"{_VEHICLES}/{{electric_vehicle_id}}/sessions"
_WAYS: dict[tuple[str, str], TokenWay] = {
    (TOKEN_PATH, "application/json"): "json",
    (TOKEN_PATH, "application/x-www-form-urlencoded"): "form",
    (BASIC_TOKEN_PATH, "application/json"): "basic",
}

Respond = Callable[[web.Request, Plan], Answer]


@attrs.define(kw_only=True)
class Endpoints:
    """Answers for a fleet. All but `token` are synchronous: nothing changes while an answer is made."""

    fleet: Fleet
    tokens: TokenDesk
    counts: Counts
    users_as_pages: bool
    before_answer: Callable[[PageRequest], None] | None
    _page_numbers: count[int] = attrs.field(factory=lambda: count(1), init=False)

    def routes(self) -> list[tuple[str, str, Respond]]:
        """List the endpoints that want a bearer token: name, path, method."""
        return [
            ("sessions", _SESSIONS, self.sessions),
            ("current", f"{_SESSIONS}/current", self.current),
            ("users", f"{_ORGANIZATION}/users", self.users),
            ("user", f"{_ORGANIZATION}/users/by-ext-id/{{external_id}}", self.user),
            ("vehicles", _VEHICLES, self.electric_vehicles),
        ]

    def sessions(self, request: web.Request, plan: Plan) -> Answer:
        query = Parameters(request)
        org_id = query.path_uuid("org_id")
        asked = PageRequest(
            number=next(self._page_numbers),
            vehicle=query.vehicle(),
            from_date=query.day("from"),
            to_date=query.day("to"),
            limit=query.limit(),
            offset=query.offset(),
            include_hidden=query.flag("include_hidden"),
        )
        query.check()
        self._check_vehicle(org_id, asked.vehicle)
        if self.before_answer is not None:
            self.before_answer(asked)
        return Answer(200, cut_page(self.fleet.sessions(asked.vehicle), asked, plan.shaping, self.counts))

    def current(self, request: web.Request, _: Plan) -> Answer:
        query = Parameters(request)
        org_id, vehicle = query.path_uuid("org_id"), query.vehicle()
        query.check()
        self._check_vehicle(org_id, vehicle)
        return Answer.of(200, {"session": self.fleet.current(vehicle)})

    def users(self, request: web.Request, _: Plan) -> Answer:
        query = Parameters(request)
        org_id, include_deleted = query.path_uuid("org_id"), query.flag("include_deleted")
        limit, offset = (query.limit(), query.offset()) if self.users_as_pages else (0, 0)
        query.check()
        self._check_organization(org_id)
        rows = self.fleet.user_rows(include_deleted=include_deleted)
        if self.users_as_pages:
            return Answer.of(200, {"total": len(rows), "items": rows[offset : offset + limit]})
        return Answer.of(200, rows)

    def user(self, request: web.Request, _: Plan) -> Answer:
        query = Parameters(request)
        org_id, include_deleted = query.path_uuid("org_id"), query.flag("include_deleted")
        query.check()
        self._check_organization(org_id)
        row = self.fleet.user_by_external_id(request.match_info["external_id"], include_deleted=include_deleted)
        if row is None:
            raise RefusedError(Answer.detail(404, "Not Found"))
        return Answer.of(200, row)

    def electric_vehicles(self, request: web.Request, _: Plan) -> Answer:
        query = Parameters(request)
        org_id, user_id = query.path_uuid("org_id"), query.path_uuid("user_id")
        query.check()
        self._check_organization(org_id)
        if not self.fleet.has_user(user_id):
            raise RefusedError(Answer.detail(404, "Not Found"))
        return Answer.of(200, self.fleet.vehicle_rows(user_id))

    async def token(self, request: web.Request, plan: Plan) -> Answer:
        body = await request.read()
        way = _WAYS.get((request.path, request.content_type))
        call = TokenCall(
            way=way,
            body=dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True)) if way == "form" else body,
            client=_basic(request.headers.get("Authorization", "")),
        )
        armed = plan.shaping.get("token_expiring")
        answer = self.tokens.answer(call, armed.fault.seconds if armed else None)
        if armed and answer.status == 200:  # noqa: PLR2004 - no token was issued otherwise
            self.counts.faults["token_expiring"] += 1
        return answer

    def _check_organization(self, org_id: uuid.UUID) -> None:
        if org_id != self.fleet.org_id:
            raise RefusedError(Answer.detail(404, "Not Found"))

    def _check_vehicle(self, org_id: uuid.UUID, vehicle: VehicleRef) -> None:
        self._check_organization(org_id)
        if not self.fleet.has_vehicle(vehicle):
            raise RefusedError(Answer.detail(404, "Not Found"))


def _basic(header: str) -> tuple[str, str] | None:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    # RFC 6749, 2.3.1: both are form-encoded before they go into the header.
    return (unquote_plus(client_id), unquote_plus(secret)) if colon else None
