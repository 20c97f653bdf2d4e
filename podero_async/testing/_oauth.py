"""The token endpoint in the three forms that are documented, without its HTTP: a call goes in, an answer comes out."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import attrs

from podero_async.testing._responses import Answer
from podero_async.testing._stats import Counts

TokenWay = Literal["json", "basic", "form"]
Grant = Literal["password", "refresh_token", "client_credentials"]
Refusal = Literal[400, 404, 405, 415, 422]

WAYS: frozenset[TokenWay] = frozenset(get_args(TokenWay))
GRANTS: frozenset[Grant] = frozenset(get_args(Grant))

_NEEDED = {
    "password": ("username", "password"),
    "refresh_token": ("refresh_token",),
    "client_credentials": ("client_id", "client_secret"),
}
_INVALID_CLIENT = Answer.of(401, {"error": "invalid_client"})
_BAD_REQUEST = Answer.of(400, {"error": "invalid_request"})
_BAD_REFRESH = Answer.of(400, {"error": "invalid_grant", "error_description": "The refresh token is not valid."})
_BAD_PASSWORD = {
    "json": Answer.detail(401, "Invalid username or password."),
    "form": Answer.of(400, {"error": "invalid_grant", "error_description": "Invalid credentials given."}),
}
_GRANT_ERROR = {
    "type": "literal_error",
    "loc": ["body", "payload", "grant_type"],
    "msg": "Input should be one of the grant types of this endpoint",
}
# How a server puts off a way that it does not speak. Never with 401: nothing is wrong with the credentials.
_REFUSALS: Mapping[int, Answer] = {
    400: Answer.of(400, {"error": "unsupported_grant_type"}),
    404: Answer.detail(404, "Not Found"),
    405: Answer.detail(405, "Method not allowed", {"Allow": "GET"}),
    415: Answer.detail(415, "Unsupported Media Type"),
    422: Answer.of(422, {"detail": [_GRANT_ERROR]}),
}


@attrs.frozen(kw_only=True)
class TokenCall:
    """One request for a token."""

    way: TokenWay | None
    """None where the path and the content type are those of no way."""
    body: bytes | Mapping[str, str]
    """A form's fields, or the bytes of what should be JSON."""
    client: tuple[str, str] | None
    """Client id and secret, from HTTP Basic."""


@attrs.define(kw_only=True)
class TokenDesk:
    """Issues, checks and revokes tokens. A refresh token is good for one use, and is replaced at it."""

    client_id: str
    client_secret: str
    username: str
    password: str
    ways: frozenset[str]
    json_grants: frozenset[str]
    refuse_with: Refusal
    lifetime_s: float
    clock: Callable[[], float]
    counts: Counts
    _expiry: dict[str, float] = attrs.field(factory=dict, init=False)
    _refresh_tokens: set[str] = attrs.field(factory=set, init=False)

    def is_good(self, token: str) -> bool:
        return self._expiry.get(token, float("-inf")) > self.clock()

    def revoke(self, token: str) -> None:
        self._expiry.pop(token, None)

    def revoke_all(self) -> None:
        self._expiry.clear()

    def revoke_refresh_tokens(self) -> None:
        self._refresh_tokens.clear()

    def issue(self, *, with_refresh: bool = False, lifetime_s: float | None = None) -> dict[str, Any]:
        """Make an access token and the answer that hands it over."""
        # No seed: a token of another run must never be good here.
        token = secrets.token_urlsafe(24)
        lifetime_s = self.lifetime_s if lifetime_s is None else lifetime_s
        self._expiry[token] = self.clock() + lifetime_s
        self.counts.tokens_issued += 1
        answer: dict[str, Any] = {
            "access_token": token,
            "expires_in": lifetime_s,
            "token_type": "Bearer",
            "scope": "read write",
        }
        if with_refresh:
            answer["refresh_token"] = secrets.token_urlsafe(24)
            self._refresh_tokens.add(answer["refresh_token"])
        return answer

    def answer(self, call: TokenCall, lifetime_s: float | None = None) -> Answer:
        """Answer a request for a token; `lifetime_s` overrides the usual one, this once."""
        if call.way is None or call.way not in self.ways:
            return _REFUSALS[self.refuse_with]
        if call.way == "json":
            return self._answer_json(call, lifetime_s)
        if call.way == "basic":
            return self._answer_basic(call, lifetime_s)
        return self._answer_form(call, lifetime_s)

    def _answer_json(self, call: TokenCall, lifetime_s: float | None) -> Answer:
        try:
            fields = _json_object(call.body)
        except ValueError:
            return Answer.detail(400, "Cannot parse request body")
        grant = fields.get("grant_type")
        if grant not in GRANTS:
            return _REFUSALS[422]
        if grant not in self.json_grants:
            return _REFUSALS[self.refuse_with]
        missing = [name for name in _NEEDED[grant] if not isinstance(fields.get(name), str)]
        if missing:
            errors = [
                {"type": "missing", "loc": ["body", "payload", name], "msg": "Field required"} for name in missing
            ]
            return Answer.of(422, {"detail": errors})
        return self._grant("json", grant, fields, lifetime_s)

    def _answer_basic(self, call: TokenCall, lifetime_s: float | None) -> Answer:
        try:
            fields = _json_object(call.body)
        except ValueError:
            return _BAD_REQUEST
        if fields.get("grant_type") != "client_credentials":
            return _REFUSALS[400]
        return self._grant("basic", "client_credentials", _with_client({}, call.client), lifetime_s)

    def _answer_form(self, call: TokenCall, lifetime_s: float | None) -> Answer:
        fields = _with_client(call.body if isinstance(call.body, Mapping) else {}, call.client)
        grant = fields.get("grant_type")
        if grant is None:
            return _BAD_REQUEST
        if grant not in GRANTS:
            return _REFUSALS[400]
        if grant != "client_credentials" and not all(name in fields for name in _NEEDED[grant]):
            return _BAD_REQUEST
        return self._grant("form", grant, fields, lifetime_s)

    def _grant(self, way: TokenWay, grant: str, fields: Mapping[str, Any], lifetime_s: float | None) -> Answer:
        if grant == "client_credentials":
            if not _same(fields, client_id=self.client_id, client_secret=self.client_secret):
                return _INVALID_CLIENT
            return Answer.of(200, self.issue(lifetime_s=lifetime_s))
        if grant == "password":
            if not _same(fields, username=self.username, password=self.password):
                return _BAD_PASSWORD[way]
        elif fields["refresh_token"] not in self._refresh_tokens:
            return _BAD_REFRESH
        else:
            self._refresh_tokens.remove(fields["refresh_token"])
        return Answer.of(200, self.issue(with_refresh=True, lifetime_s=lifetime_s))


def _json_object(body: bytes | Mapping[str, str]) -> dict[str, Any]:
    fields = json.loads(body) if isinstance(body, bytes) else None
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one error for all that is no JSON object
    # An unhashable grant type must not be looked up in a set.
    return fields if isinstance(fields.get("grant_type"), str | None) else fields | {"grant_type": None}


def _with_client(fields: Mapping[str, str], client: tuple[str, str] | None) -> dict[str, str]:
    return {**fields, "client_id": client[0], "client_secret": client[1]} if client else dict(fields)


def _same(fields: Mapping[str, Any], **wanted: str) -> bool:
    return all(fields.get(name) == value for name, value in wanted.items())
