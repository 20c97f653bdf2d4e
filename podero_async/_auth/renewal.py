"""Token requests: the endpoint styles and grants that are tried, and the memory of refused credentials."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

from podero_async._auth.credentials import (
    ClientCredentials,
    Credentials,
    PasswordCredentials,
    TokenEndpoint,
    is_header_safe,
)
from podero_async._auth.grants import (
    TokenRequest,
    TokenResponse,
    grant_parameters,
    refresh_parameters,
    token_endpoints,
    token_request,
)
from podero_async._auth.store import Token
from podero_async._decode import decode_json, is_markup, oauth_error_code
from podero_async._failures import copy_of, is_retryable
from podero_async.errors import AuthenticationError, DecodeError, PoderoError
from podero_async.observer import Observer, TokenRenewal

__all__ = ["TokenRequester"]

_logger = logging.getLogger("podero_async")

_OK = 200
_UNSUPPORTED_STATUSES = frozenset({400, 404, 405, 415, 422})  # the server may not support this token endpoint style ...
_WRONG_CREDENTIALS = frozenset({"invalid_client", "invalid_grant"})  # ... but with these error codes it does
_MAX_CLOCK_SKEW_S = 20.0  # between the server's clock and ours
_MAX_SKEW_SHARE = 0.05  # of a token's life, so that a short-lived token stays usable
_RENEW_AT_SHARE = (0.8, 0.9)  # of a token's life, drawn at random, so that processes do not renew all at once
_REFUSAL_MEMORY_S = 60.0  # one attempt per minute does not lock an account, and soon notices a repaired one


class TokenRequester:
    """Request tokens. Refused credentials are not sent again for a while.

    Attributes:
        endpoint: The token endpoint that gave the last token; None if none has given one yet.
        refresh_token: The newest refresh token; None before the first one, or after the server refused it.
        refused_refresh_token: The last refresh token that the server refused; a store may still hold it.
    """

    def __init__(
        self,
        credentials: Credentials,
        send: Callable[[TokenRequest], Awaitable[TokenResponse]],
        *,
        refusal_memory_s: float = _REFUSAL_MEMORY_S,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer
        self._credentials = credentials
        self._send = send
        self._can_refresh = isinstance(credentials, PasswordCredentials)  # RFC 6749, 4.4.3: never for a client's grant
        self._refusal_memory_s = refusal_memory_s
        self._refusal: AuthenticationError | DecodeError | None = None
        self._refused_until = 0.0
        self._met_a_page = False  # of a gateway, in place of the last refusal
        self.endpoint: TokenEndpoint | None = None
        self.refresh_token: str | None = None
        self.refused_refresh_token: str | None = None

    async def request(self, now: Callable[[], float] = time.time) -> Token:
        """Request a token: with the refresh token if there is one, otherwise with the credentials.

        Args:
            now: The clock of the token's life, in seconds since the epoch.

        Raises:
            AuthenticationError: The server refused the credentials, now or less than a minute ago. In the second case
                nothing is sent, and `attempts` is 0.
            TransportError, ServerError, RateLimitError: The token endpoint could not be reached, failed or throttled.
            DecodeError: The response holds no token. This is remembered like a refusal; an HTML page is not.
        """
        clock = asyncio.get_running_loop().time
        if self._refusal is not None and clock() < self._refused_until:
            error = copy_of(self._refusal)
            error.attempts = 0
            raise error
        try:
            token = await self._request(now)
        except PoderoError as error:
            self._tell(type(error))
            is_transient = self._met_a_page or is_retryable(error)
            if isinstance(error, AuthenticationError | DecodeError) and not is_transient:
                self._refusal, self._refused_until = copy_of(error), clock() + self._refusal_memory_s
            raise
        self._tell(None)
        return token

    def _tell(self, error: type[PoderoError] | None) -> None:
        if self._observer is not None:
            self._observer.token_renewed(TokenRenewal(error=error))

    async def _request(self, now: Callable[[], float]) -> Token:
        credentials = cast("ClientCredentials | PasswordCredentials", self._credentials)  # a static token never expires
        endpoints = sorted(token_endpoints(credentials), key=lambda endpoint: endpoint != self.endpoint)
        if self.refresh_token:
            response = await self._send(token_request(endpoints[0], refresh_parameters(self.refresh_token)))
            if response.status == _OK:
                return self._decode(response, endpoints[0], now())
            self.refused_refresh_token, self.refresh_token = self.refresh_token, None
        grant = grant_parameters(credentials)
        self._met_a_page, refusals = False, []
        for endpoint in endpoints:
            response = await self._send(token_request(endpoint, grant))
            status = response.status
            if status == _OK:
                token = self._decode(response, endpoint, now())
                self.endpoint = endpoint
                return token
            code = oauth_error_code(response.body)
            self._met_a_page = is_markup(response.body)
            page = " with an HTML page" if self._met_a_page else ""
            refusals.append(f"{endpoint}: {code or f'HTTP {status}'}{page}")
            if status not in _UNSUPPORTED_STATUSES or code in _WRONG_CREDENTIALS:
                refusals = refusals[-1:]
                break
        detail = f"no token from {'; '.join(refusals)}"
        raise AuthenticationError(status, detail, "POST", endpoint.path, response.request_id)

    def _decode(self, response: TokenResponse, endpoint: TokenEndpoint, now: float) -> Token:
        fields = decode_json(response.body)
        value = fields.get("access_token") if isinstance(fields, Mapping) else None
        if not isinstance(value, str) or not is_header_safe(value):
            error = DecodeError("expected a token", "$.access_token", method="POST", path=endpoint.path)
            error.request_id = response.request_id
            raise error
        refresh_token = fields.get("refresh_token")
        if isinstance(refresh_token, str) and is_header_safe(refresh_token) and self._can_refresh:
            self.refresh_token = refresh_token
        life_s = _seconds_in(fields.get("expires_in"))
        if life_s is None:
            _logger.info("token received from %s, valid until it is refused", endpoint)
            return Token(value=value, refresh_token=self.refresh_token)
        _logger.info("token received from %s, valid for %.0f s", endpoint, life_s)
        return Token(
            value=value,
            refresh_token=self.refresh_token,
            renew_at=now + life_s * random.uniform(*_RENEW_AT_SHARE),
            usable_until=now + life_s - min(_MAX_CLOCK_SKEW_S, life_s * _MAX_SKEW_SHARE),
        )


def _seconds_in(expires_in: object) -> float | None:
    """Return a token's life; None if it has no end, for which some servers send 0."""
    try:
        life_s = float(cast("float", expires_in))
    except (TypeError, ValueError, OverflowError):
        return None
    return life_s if 0 < life_s < math.inf else None
