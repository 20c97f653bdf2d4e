"""The one token that all calls of a client share: asked for once, renewed early, kept in a store where there is one.

Knows when a token is needed, not how a request travels: a `send` function is given to it.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

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
from podero_async._decode import decode_json, describe_error
from podero_async.errors import AuthenticationError, ConfigurationError, DecodeError, PoderoError

__all__ = ["TokenCache"]

_logger = logging.getLogger("podero_async")

_OK = 200
_TRY_ANOTHER_WAY = frozenset({400, 404, 405, 415, 422})  # how a server refuses a way that it does not speak
_CREDENTIALS_ARE_WRONG = frozenset({"invalid_client", "invalid_grant"})  # ... and how it says that it does
_CLOCK_MARGIN_S = 20.0  # two clocks may disagree ...
_CLOCK_MARGIN = 0.05  # ... but a short-lived token must outlast its renewal
_RENEW_AT = (0.8, 0.9)  # of a token's life, with jitter: a fleet of processes must not renew in step
_EARLY_RETRY_S = 5.0  # after an early renewal that failed


class TokenCache:
    """One token for all, asked for once however many wait for it, and renewed before it expires.

    A token is renewed in the background at 80 to 90 % of its life, so that no call waits; while that fails, it serves
    on until it expires. A caller that is cancelled cancels nobody else: the request is the cache's own task.
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
        self._can_refresh = isinstance(credentials, PasswordCredentials)  # a client asks again, as it did at first
        self._refused: str | None = None  # the store may still hold a token that was answered with 401 ...
        self._refused_refresh_token: str | None = None  # ... and a refresh token that was refused
        self._way: TokenEndpoint | None = None
        self._renewal: asyncio.Task[Token] | None = None
        self._next_early_renewal = 0.0
        if isinstance(credentials, StaticToken):
            self._token = Token(value=credentials.token)

    def current(self) -> str | None:
        """Return the token if one is usable now, without waiting; start its renewal where that is due."""
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
        """Return a usable token, waiting for one where there is none.

        Raises:
            AuthenticationError: The credentials were refused.
            TransportError: The token endpoint could not be reached.
            DecodeError: Its answer held no token.
        """
        token = self.current()
        if token is not None:
            return token
        renewal = self._renewal or self._start_renewal()
        try:
            return (await asyncio.shield(renewal)).value
        except PoderoError as error:
            raise copy.copy(error) from None  # every waiter gets its own: a shared one would collect their tracebacks
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if renewal.cancelled() and not (task and task.cancelling()):
                raise ConfigurationError("the client is closed") from None
            raise

    def invalidate(self, value: str) -> bool:
        """Drop the token that was answered with 401, unless it has been replaced; say whether another can be had."""
        if isinstance(self._credentials, StaticToken):
            return False
        if self._token is not None and self._token.value == value:
            self._token = None
            self._refused = value
        return True

    @property
    def replays(self) -> int:
        """How often a call may be sent again after a 401: a token of a store may be as dead as the one before."""
        return 1 if self._store is None else 2

    @property
    def endpoint(self) -> TokenEndpoint | None:
        """The way that gave the token; None before one was asked for."""
        return self._way

    async def aclose(self) -> None:
        """Cancel a renewal under way, and wait for its end."""
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
            _logger.warning("no new token: %s", error)

    async def _renew(self) -> Token:
        if self._store is None:
            self._token = await self._request()
            return self._token
        async with self._store.lock(self._store_key):
            token = await self._store.load(self._store_key)
            if token is not None:  # whoever renewed it last knows best, even that there is no refresh token any more
                is_refused = token.refresh_token == self._refused_refresh_token
                self._refresh_token = None if is_refused else token.refresh_token
            if token is None or not self._is_news(token):
                token = await self._request()
                await self._store.save(self._store_key, token)
        self._token = token
        return token

    def _is_news(self, stored: Token) -> bool:
        """Say whether another process has renewed the token already."""
        known = {self._refused, self._token.value if self._token else None}
        return stored.value not in known and self._now() < stored.usable_until

    async def _request(self) -> Token:
        """Ask the server: with the refresh token where there is one, else with the credentials."""
        credentials = cast("ClientCredentials | PasswordCredentials", self._credentials)  # a static token never expires
        ways = sorted(token_endpoints(credentials), key=lambda way: way != self._way)  # what worked last time, first
        if self._refresh_token:
            status, body = await self._send(token_request(ways[0], refresh_parameters(self._refresh_token)))
            if status == _OK:
                return self._read(body)
            self._refused_refresh_token, self._refresh_token = self._refresh_token, None  # the password still stands
        grant = grant_parameters(credentials)
        refusals = []
        for way in ways:
            request = token_request(way, grant)
            status, body = await self._send(request)
            if status == _OK:
                self._way = way
                return self._read(body)
            code, words = describe_error(body, request.secrets)
            refusals.append(f"{way}: {words}")
            if status not in _TRY_ANOTHER_WAY or code in _CREDENTIALS_ARE_WRONG:
                refusals = refusals[-1:]
                break
        raise AuthenticationError(status, f"no token from {'; '.join(refusals)}", "POST", way.path)

    def _read(self, body: bytes) -> Token:
        answer = decode_json(body)
        value = answer.get("access_token") if isinstance(answer, Mapping) else None
        if not isinstance(value, str) or not is_header_safe(value):
            raise DecodeError("expected a token", "$.access_token", method="POST")
        refresh_token = answer.get("refresh_token")
        if isinstance(refresh_token, str) and is_header_safe(refresh_token) and self._can_refresh:
            self._refresh_token = refresh_token
        return self._with_life(value, answer.get("expires_in"))

    def _with_life(self, value: str, expires_in: Any) -> Token:
        try:
            life_s = max(0.0, float(expires_in))
        except (TypeError, ValueError, OverflowError):
            return Token(value=value, refresh_token=self._refresh_token)  # it lives until a 401 says otherwise
        now = self._now()
        return Token(
            value=value,
            refresh_token=self._refresh_token,
            renew_at=now + life_s * random.uniform(*_RENEW_AT),
            usable_until=now + life_s - min(_CLOCK_MARGIN_S, life_s * _CLOCK_MARGIN),
        )
