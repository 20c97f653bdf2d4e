"""The token cache: one token for all calls of a client, requested once, renewed early, and shared through a store.

The cache decides when a token is needed; the `send` function that it is given makes the HTTP request.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

from podero_async._auth.credentials import (
    ClientCredentials,
    Credentials,
    PasswordCredentials,
    StaticToken,
    TokenEndpoint,
    is_header_safe,
    store_key,
)
from podero_async._auth.grants import TokenRequest, grant_parameters, refresh_parameters, token_endpoints, token_request
from podero_async._auth.store import Token, TokenStore
from podero_async._decode import decode_json, oauth_error_code
from podero_async.errors import AuthenticationError, ConfigurationError, DecodeError, PoderoError

__all__ = ["TokenCache"]

_logger = logging.getLogger("podero_async")

_OK = 200
_UNSUPPORTED_STATUSES = frozenset({400, 404, 405, 415, 422})  # the server may not support this token endpoint style ...
_WRONG_CREDENTIALS = frozenset({"invalid_client", "invalid_grant"})  # ... but with these error codes it does
_MAX_CLOCK_SKEW_S = 20.0  # between the server's clock and ours
_MAX_SKEW_SHARE = 0.05  # of a token's life, so that a short-lived token stays usable
_RENEW_AT_SHARE = (0.8, 0.9)  # of a token's life, drawn at random, so that processes do not renew all at once
_EARLY_RETRY_S = 5.0  # after a failed renewal, if the old token is still usable


class TokenCache:
    """Hold one token, request it once for all waiting callers, and renew it before it expires.

    The renewal runs in the background after 80 to 90 % of the token's life, so calls do not wait for it. If it fails,
    the old token is used until it expires. The renewal is a task of the cache, so a cancelled caller does not cancel it.
    """

    def __init__(
        self,
        credentials: Credentials,
        send: Callable[[TokenRequest], Awaitable[tuple[int, bytes]]],
        *,
        origin: str,
        store: TokenStore | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._credentials = credentials
        self._send = send
        self._store = store
        self._store_key = store_key(origin, credentials)
        self._now = now
        self._token: Token | None = None
        self._refresh_token: str | None = None
        self._can_refresh = isinstance(credentials, PasswordCredentials)  # RFC 6749, 4.4.3: never for a client's grant
        # The store may still hold tokens that the server has refused.
        self._refused_token: str | None = None
        self._refused_refresh_token: str | None = None
        self._endpoint: TokenEndpoint | None = None
        self._renewal: asyncio.Task[Token] | None = None
        self._next_early_renewal = 0.0
        if isinstance(credentials, StaticToken):
            self._token = Token(value=credentials.token)

    def __repr__(self) -> str:
        token, now, endpoint = self._token, self._now(), self._endpoint and str(self._endpoint)
        times = (
            f"renews_in_s={token.renew_at - now:.0f}, expires_in_s={token.usable_until - now:.0f}, " if token else ""
        )
        is_renewing = self._renewal is not None
        return f"TokenCache(has_token={token is not None}, {times}{is_renewing=}, {endpoint=})"

    @property
    def endpoint(self) -> TokenEndpoint | None:
        """The token endpoint that gave the last token; None if none has been asked yet."""
        return self._endpoint

    @property
    def replays(self) -> int:
        """How often a call may be sent again after a 401: twice with a store, because its token may be revoked, too."""
        return 1 if self._store is None else 2

    def current(self) -> str | None:
        """Return the token if it is usable now; start its renewal in the background if that is due."""
        token = self._token
        if token is None:
            return None
        now = self._now()
        if now >= token.renew_at:
            if now >= token.usable_until:
                return None
            if self._renewal is None and now >= self._next_early_renewal:
                self._start_renewal()
        return token.value

    async def get(self) -> str:
        """Return a usable token, or wait for the one token request that all callers share.

        Raises:
            AuthenticationError: The server refused the credentials.
            TransportError: The token endpoint could not be reached.
            DecodeError: The response holds no token.
            ConfigurationError: The client was closed.
        """
        token = self.current()
        if token is not None:
            return token
        renewal = self._renewal or self._start_renewal()
        try:
            return (await asyncio.shield(renewal)).value
        except PoderoError as error:
            raise copy.copy(error) from None  # a shared error would collect the tracebacks of all callers
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if renewal.cancelled() and not (task and task.cancelling()):
                raise ConfigurationError("the client is closed") from None
            raise

    def invalidate(self, value: str) -> bool:
        """Drop the token that a 401 refused, unless it was replaced already; return whether another can be requested."""
        if isinstance(self._credentials, StaticToken):
            return False
        if self._token is not None and self._token.value == value:
            self._token = None
            self._refused_token = value
        return True

    async def aclose(self) -> None:
        """Cancel a renewal that is under way, and wait for its end."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])

    def _start_renewal(self) -> asyncio.Task[Token]:
        self._renewal = asyncio.create_task(self._renew(), name="podero_async token renewal")
        self._renewal.add_done_callback(self._on_renewed)
        return self._renewal

    def _on_renewed(self, renewal: asyncio.Task[Token]) -> None:
        self._renewal = None
        if not renewal.cancelled() and (error := renewal.exception()) is not None:
            self._next_early_renewal = self._now() + _EARLY_RETRY_S
            _logger.warning("token request failed: %s", error)

    async def _renew(self) -> Token:
        if self._store is None:
            self._token = await self._request()
            return self._token
        async with self._store.lock(self._store_key):
            token = await self._store.load(self._store_key)
            if token is not None:  # another process may have rotated the refresh token, or lost it
                is_refused = token.refresh_token == self._refused_refresh_token
                self._refresh_token = None if is_refused else token.refresh_token
            known = {self._refused_token, self._token.value if self._token else None}
            if token is None or token.value in known or self._now() >= token.usable_until:
                token = await self._request()
                await self._store.save(self._store_key, token)
        self._token = token
        return token

    async def _request(self) -> Token:
        """Request a token: with the refresh token if there is one, otherwise with the credentials."""
        credentials = cast("ClientCredentials | PasswordCredentials", self._credentials)  # a static token never expires
        endpoints = sorted(token_endpoints(credentials), key=lambda endpoint: endpoint != self._endpoint)
        if self._refresh_token:
            status, body = await self._send(token_request(endpoints[0], refresh_parameters(self._refresh_token)))
            if status == _OK:
                return self._decode(body)
            self._refused_refresh_token, self._refresh_token = self._refresh_token, None
        grant = grant_parameters(credentials)
        refusals = []
        for endpoint in endpoints:
            status, body = await self._send(token_request(endpoint, grant))
            if status == _OK:
                self._endpoint = endpoint
                return self._decode(body)
            code = oauth_error_code(body)
            refusals.append(f"{endpoint}: {code or f'HTTP {status}'}")
            if status not in _UNSUPPORTED_STATUSES or code in _WRONG_CREDENTIALS:
                refusals = refusals[-1:]
                break
        raise AuthenticationError(status, f"no token from {'; '.join(refusals)}", "POST", endpoint.path)

    def _decode(self, body: bytes) -> Token:
        fields = decode_json(body)
        value = fields.get("access_token") if isinstance(fields, Mapping) else None
        if not isinstance(value, str) or not is_header_safe(value):
            raise DecodeError("expected a token", "$.access_token", method="POST")
        refresh_token = fields.get("refresh_token")
        if isinstance(refresh_token, str) and is_header_safe(refresh_token) and self._can_refresh:
            self._refresh_token = refresh_token
        try:
            life_s = max(0.0, float(fields.get("expires_in")))
        except (TypeError, ValueError, OverflowError):
            return Token(value=value, refresh_token=self._refresh_token)  # without a life, used until a 401
        now = self._now()
        return Token(
            value=value,
            refresh_token=self._refresh_token,
            renew_at=now + life_s * random.uniform(*_RENEW_AT_SHARE),
            usable_until=now + life_s - min(_MAX_CLOCK_SKEW_S, life_s * _MAX_SKEW_SHARE),
        )
