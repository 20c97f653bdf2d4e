"""Tokens: the three documented token endpoint styles, as functions from a request to a response, without HTTP."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import attrs

from podero_async.testing._responses import Response
from podero_async.testing._stats import Counts

TokenStyle = Literal["json", "basic", "form"]
Grant = Literal["password", "refresh_token", "client_credentials"]
UnsupportedStatus = Literal[400, 404, 405, 415, 422]

TOKEN_STYLES: frozenset[TokenStyle] = frozenset(get_args(TokenStyle))
GRANTS: frozenset[Grant] = frozenset(get_args(Grant))

_REQUIRED_FIELDS = {
    "password": ("username", "password"),
    "refresh_token": ("refresh_token",),
    "client_credentials": ("client_id", "client_secret"),
}
_INVALID_CLIENT = Response.of(401, {"error": "invalid_client"})
_INVALID_REQUEST = Response.of(400, {"error": "invalid_request"})
_INVALID_REFRESH_TOKEN = Response.of(
    400, {"error": "invalid_grant", "error_description": "The refresh token is not valid."}
)
_INVALID_PASSWORD = {
    "json": Response.of_detail(401, "Invalid username or password."),
    "form": Response.of(400, {"error": "invalid_grant", "error_description": "Invalid credentials given."}),
}
_GRANT_ERROR = {
    "type": "literal_error",
    "loc": ["body", "payload", "grant_type"],
    "msg": "Input should be one of the grant types of this endpoint",
}
# Never 401, which would mean that the credentials are wrong.
_UNSUPPORTED: Mapping[int, Response] = {
    400: Response.of(400, {"error": "unsupported_grant_type"}),
    404: Response.of_detail(404, "Not Found"),
    405: Response.of_detail(405, "Method not allowed", {"Allow": "GET"}),
    415: Response.of_detail(415, "Unsupported Media Type"),
    422: Response.of(422, {"detail": [_GRANT_ERROR]}),
}


@attrs.frozen(kw_only=True)
class TokenRequest:
    """One request for a token."""

    style: TokenStyle | None
    """None if the path and the content type match no style."""
    body: bytes | Mapping[str, str]
    """The fields of a form, or the bytes of a JSON body."""
    client: tuple[str, str] | None
    """Client id and secret from HTTP Basic."""


@attrs.define(kw_only=True)
class TokenIssuer:
    """Issues, checks and revokes tokens. A refresh token can be used once, and is replaced then."""

    client_id: str
    client_secret: str
    username: str
    password: str
    styles: frozenset[str]
    json_grants: frozenset[str]
    unsupported_status: UnsupportedStatus
    lifetime_s: float
    clock: Callable[[], float]
    counts: Counts
    issued: set[str] = attrs.field(factory=set, init=False)
    """Every access and refresh token so far."""
    _expiry: dict[str, float] = attrs.field(factory=dict, init=False)
    _refresh_tokens: set[str] = attrs.field(factory=set, init=False)

    def is_valid(self, token: str) -> bool:
        return self._expiry.get(token, float("-inf")) > self.clock()

    def revoke(self, token: str) -> None:
        self._expiry.pop(token, None)

    def revoke_all(self) -> None:
        self._expiry.clear()

    def revoke_refresh_tokens(self) -> None:
        self._refresh_tokens.clear()

    def respond(self, request: TokenRequest, lifetime_s: float | None = None) -> Response:
        """Respond to a request for a token; `lifetime_s` overrides the usual lifetime."""
        if request.style is None or request.style not in self.styles:
            return _UNSUPPORTED[self.unsupported_status]
        if request.style == "json":
            return self._respond_json(request, lifetime_s)
        if request.style == "basic":
            return self._respond_basic(request, lifetime_s)
        return self._respond_form(request, lifetime_s)

    def _respond_json(self, request: TokenRequest, lifetime_s: float | None) -> Response:
        fields = _json_object(request.body)
        if fields is None:
            return Response.of_detail(400, "Cannot parse request body")
        grant = fields.get("grant_type")
        if grant not in GRANTS:
            return _UNSUPPORTED[422]
        if grant not in self.json_grants:
            return _UNSUPPORTED[self.unsupported_status]
        missing = [name for name in _REQUIRED_FIELDS[grant] if not isinstance(fields.get(name), str)]
        if missing:
            errors = [
                {"type": "missing", "loc": ["body", "payload", name], "msg": "Field required"} for name in missing
            ]
            return Response.of(422, {"detail": errors})
        return self._respond_grant("json", grant, fields, lifetime_s)

    def _respond_basic(self, request: TokenRequest, lifetime_s: float | None) -> Response:
        fields = _json_object(request.body)
        if fields is None:
            return _INVALID_REQUEST
        if fields.get("grant_type") != "client_credentials":
            return _UNSUPPORTED[400]
        return self._respond_grant("basic", "client_credentials", _with_client({}, request.client), lifetime_s)

    def _respond_form(self, request: TokenRequest, lifetime_s: float | None) -> Response:
        fields = _with_client(request.body if isinstance(request.body, Mapping) else {}, request.client)
        grant = fields.get("grant_type")
        if grant is None:
            return _INVALID_REQUEST
        if grant not in GRANTS:
            return _UNSUPPORTED[400]
        if grant != "client_credentials" and not all(name in fields for name in _REQUIRED_FIELDS[grant]):
            return _INVALID_REQUEST
        return self._respond_grant("form", grant, fields, lifetime_s)

    def _respond_grant(
        self, style: TokenStyle, grant: str, fields: Mapping[str, Any], lifetime_s: float | None
    ) -> Response:
        if grant == "client_credentials":
            if not _matches(fields, client_id=self.client_id, client_secret=self.client_secret):
                return _INVALID_CLIENT
            return self._issue(lifetime_s, with_refresh=False)
        if grant == "password":
            if not _matches(fields, username=self.username, password=self.password):
                return _INVALID_PASSWORD[style]
        elif fields["refresh_token"] not in self._refresh_tokens:
            return _INVALID_REFRESH_TOKEN
        else:
            self._refresh_tokens.remove(fields["refresh_token"])
        return self._issue(lifetime_s, with_refresh=True)

    def _issue(self, lifetime_s: float | None, *, with_refresh: bool) -> Response:
        # Not seeded: a token of another run must not be valid here.
        token = secrets.token_urlsafe(24)
        lifetime_s = self.lifetime_s if lifetime_s is None else lifetime_s
        self._expiry[token] = self.clock() + lifetime_s
        self.issued.add(token)
        self.counts.tokens_issued += 1
        body = {"access_token": token, "expires_in": lifetime_s, "token_type": "Bearer", "scope": "read write"}
        if with_refresh:
            body["refresh_token"] = refresh_token = secrets.token_urlsafe(24)
            self._refresh_tokens.add(refresh_token)
            self.issued.add(refresh_token)
        return Response.of(200, body)


def _json_object(body: bytes | Mapping[str, str]) -> dict[str, Any] | None:
    try:
        fields = json.loads(body) if isinstance(body, bytes) else None
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    # An unhashable grant type must not be looked up in a set.
    return fields if isinstance(fields.get("grant_type"), str | None) else fields | {"grant_type": None}


def _with_client(fields: Mapping[str, str], client: tuple[str, str] | None) -> dict[str, str]:
    return {**fields, "client_id": client[0], "client_secret": client[1]} if client else dict(fields)


def _matches(fields: Mapping[str, Any], **expected: str) -> bool:
    return all(fields.get(name) == value for name, value in expected.items())
