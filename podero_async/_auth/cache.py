"""The token cache: one token for all calls of a client, requested once, renewed early, and shared through a store.

The cache decides when to request a token, and whether to replace one that the server refused.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

import attrs

from podero_async._auth.credentials import Credentials, StaticToken, TokenEndpoint, store_key
from podero_async._auth.grants import TokenRequest, TokenResponse
from podero_async._auth.refusals import Refusals
from podero_async._auth.renewal import TokenRequester
from podero_async._auth.store import BoundedStore, Token, TokenStore
from podero_async._concurrency import SharedFuture
from podero_async._failures import copy_of
from podero_async.errors import ConfigurationError, PoderoError
from podero_async.observer import Observer

__all__ = ["TokenCache"]

_Check = Callable[[str], Awaitable[bool | None]]
_logger = logging.getLogger("podero_async")

_EARLY_RETRY_S = 5.0  # after a failed renewal, if the old token is still usable
_SETTLING_S = 4.0  # for so long the server's replicas and clocks may lag behind a new token
_MIN_WAIT_S, _MAX_WAIT_S = 0.1, 1.0  # before a new token is tried again; the wait doubles
_MIN_REPLACEMENT_INTERVAL_S = 60.0  # after a token that was requested because of a 401 is refused as well
_MAX_REPLAYS = 30  # per call; waiting until two new tokens have settled takes 18


@attrs.define(eq=False)
class _HeldToken:
    """A token, its origin, and whether the server has accepted it."""

    token: Token
    settled_at: float = -math.inf
    """The time until which a refusal may be temporary, on the clock of the event loop."""
    is_requested: bool = False
    """False if the token is the caller's, or comes from the store."""
    has_served: bool = False
    is_accepted: bool | None = None
    """The result of the last check."""
    checks: int = 0


class TokenCache:
    """Hold one token, request it once for all waiting callers, and renew it before it expires.

    The renewal runs in the background after 80 to 90 % of the token's life, so calls do not wait for it. If it fails,
    the old token is used until it expires. The renewal is a task of the cache, so a cancelled caller does not cancel it.

    Args:
        credentials: The credentials, or the caller's token.
        send: Sends a token request; returns its response.
        origin: The origin of the token endpoint, as a part of the key in the store.
        store: The token store.
        now: The clock of the tokens' lives, in seconds since the epoch.
        store_timeout_s: Seconds that the store may take for one method.
        settling_s: Seconds after which the server must know a new token everywhere.
        min_replacement_interval_s: Seconds without a token request after a new token was refused.
        observer: Is told of new tokens.
    """

    def __init__(
        self,
        credentials: Credentials,
        send: Callable[[TokenRequest], Awaitable[TokenResponse]],
        *,
        origin: str,
        store: TokenStore | None = None,
        now: Callable[[], float] = time.time,
        store_timeout_s: float = 5.0,
        settling_s: float = _SETTLING_S,
        min_replacement_interval_s: float = _MIN_REPLACEMENT_INTERVAL_S,
        observer: Observer | None = None,
    ) -> None:
        self._requester = TokenRequester(credentials, send, observer=observer)
        self._store = None if store is None else BoundedStore(store, timeout_s=store_timeout_s)
        self._store_key = store_key(origin, credentials)
        self._now = now
        self._settling_s = settling_s
        self._min_replacement_interval_s = min_replacement_interval_s
        self._is_static = isinstance(credentials, StaticToken)
        self._held = _HeldToken(Token(value=credentials.token)) if isinstance(credentials, StaticToken) else None
        self._fallback: _HeldToken | None = None  # the token before, until the server has accepted the new one
        self._successor: _HeldToken | None = None  # a new token that was refused while the fallback is used
        self._refused_token: str | None = None  # the store may still hold it
        self._has_served = False  # whether the server has accepted any token
        self._next_replacement = -math.inf
        self._replacements = 0  # each less than a minute after the one before
        self._checking = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None
        self._arrival: SharedFuture[str] | None = None  # gets the renewal's token before it is saved
        self._ended: SharedFuture[None] | None = None  # the renewal's end
        self._is_closed = False
        self.is_failing = False  # whether the last renewal failed
        self._next_early_renewal = 0.0

    def __repr__(self) -> str:
        token, now, endpoint = self._held and self._held.token, self._now(), self.endpoint and str(self.endpoint)
        times = (
            f"renews_in_s={token.renew_at - now:.0f}, expires_in_s={token.usable_until - now:.0f}, " if token else ""
        )
        return f"TokenCache(has_token={token is not None}, {times}is_renewing={self._renewal is not None}, {endpoint=})"

    @property
    def endpoint(self) -> TokenEndpoint | None:
        """The token endpoint that gave the last token; None if none has given one yet."""
        return self._requester.endpoint

    @property
    def waiting(self) -> int:
        """The number of calls that wait for a token."""
        return sum(each.waiting for each in (self._arrival, self._ended) if each is not None)

    def current(self) -> str | None:
        """Return the token if it is usable now; start its renewal in the background if that is due."""
        if self._held is None:
            return None
        token, now = self._held.token, self._now()
        if now >= token.renew_at:
            is_expired = now >= token.usable_until
            is_due = self._renewal is None and now >= self._next_early_renewal and not self._is_closed
            if self._successor is not None and (is_due or is_expired):
                self._held, self._fallback, self._successor = self._successor, self._held, None
                return self.current()
            if is_expired:
                return None
            if is_due:
                self._start_renewal()
        return token.value

    async def get(self) -> str:
        """Return a usable token, or wait for the one token request that all callers share.

        Raises:
            AuthenticationError: The server refused the credentials, now or less than a minute ago.
            TransportError, ServerError, RateLimitError: The token endpoint could not be reached, failed or throttled.
            DecodeError: The response holds no token.
            ConfigurationError: The client was closed.
        """
        while (token := self.current()) is None:
            if self._is_closed:
                raise ConfigurationError("the client is closed")
            arrival = self._arrival
            if arrival is None or self._ended is None:
                arrival = self._start_renewal()
            elif arrival.done():  # its token was refused or has expired while it was being saved
                await self._ended.wait()
                continue
            try:
                return await arrival.wait()
            except PoderoError as error:
                raise copy_of(error) from None  # a shared error would collect the tracebacks of all callers
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if arrival.cancelled() and not (task and task.cancelling()):
                    raise ConfigurationError("the client is closed") from None
                raise
        return token

    def served(self, value: str) -> None:
        """Record that the server accepted a token."""
        held = self._held
        self._has_served = True
        if held is not None and held.token.value == value:
            held.has_served = True

    async def refused(self, value: str, refusals: Refusals, is_accepted: _Check) -> bool:
        """Return whether to send a call again after the server refused its token (401); wait first if that may help.

        Args:
            value: The token.
            refusals: The call's refusals.
            is_accepted: Sends an earlier, successful request again with a token; returns whether the server accepts
                the token, or None if that is unknown.
        """
        refusals.count += 1
        if refusals.count > _MAX_REPLAYS:
            return False
        if value != refusals.token:
            refusals.token, refusals.waited_s = value, 0.0
        held = self._held
        # 1. The token was replaced, or is new and the one before is usable: use that one.
        if held is None or held.token.value != value or (not held.has_served and self._fall_back(held)):
            return True
        # 2. The token may be seconds old: wait until the server knows it everywhere, unless it was revoked.
        is_settling = _loop_time() < held.settled_at and refusals.waited_s < self._settling_s
        if is_settling and ((held.is_requested and not held.has_served) or refusals.waited_s):
            return await self._wait(refusals)
        is_good = await self._check(held, is_accepted, held.checks)
        # A check may reach a replica that does not know the token yet, so the second token in a minute is not replaced.
        if is_settling and (is_good or (self._replacements > 1 and _loop_time() < self._next_replacement)):
            return await self._wait(refusals)
        # 3. The token is refused: replace it, unless it replaced a refused one less than a minute ago and never served.
        if self._held is not held or (not is_good and self._replace(held)):
            return True
        # 4. The token is accepted for another request, so the refusal concerns this call alone; or no token helps.
        refusals.affects_all_calls = is_good is False or not self._has_served
        return False

    async def aclose(self) -> None:
        """Cancel a renewal that is under way, and wait for its end."""
        self._is_closed = True
        if self._renewal is not None and self._ended is not None:
            self._renewal.cancel()
            await self._ended.wait()

    def _fall_back(self, held: _HeldToken) -> bool:
        fallback = self._fallback
        if fallback is None or self._now() >= fallback.token.usable_until:
            return False
        self._held, self._fallback, self._successor = fallback, None, held
        self._next_early_renewal = self._now() + self._settling_s
        return True

    async def _wait(self, refusals: Refusals) -> bool:
        wait_s = min(max(refusals.waited_s, _MIN_WAIT_S), _MAX_WAIT_S, self._settling_s - refusals.waited_s)
        await asyncio.sleep(wait_s)
        refusals.waited_s += wait_s
        return True

    async def _check(self, held: _HeldToken, is_accepted: _Check, checks: int) -> bool | None:
        """Check a token, or return the result of a later check than the first `checks`, which other refusals share."""
        async with self._checking:
            if self._held is held and held.checks == checks:
                held.is_accepted = await is_accepted(held.token.value)
                held.checks += 1
        return held.is_accepted

    def _replace(self, held: _HeldToken) -> bool:
        if self._successor is not None:
            self._held, self._successor = self._successor, None
            return True
        if self._is_static or (held.is_requested and not held.has_served and _loop_time() < self._next_replacement):
            return False
        self._replacements = self._replacements + 1 if _loop_time() < self._next_replacement else 1
        self._next_replacement = _loop_time() + self._min_replacement_interval_s
        self._refused_token = held.token.value
        self._held = self._fallback = None
        return True

    def _start_renewal(self) -> SharedFuture[str]:
        self._arrival, self._ended = SharedFuture(), SharedFuture()
        self._renewal = asyncio.create_task(self._renew(self._arrival), name="podero_async token renewal")
        self._renewal.add_done_callback(self._on_renewed)
        return self._arrival

    def _on_renewed(self, renewal: asyncio.Task[None]) -> None:
        arrival, ended = self._arrival, self._ended
        self._renewal = self._arrival = self._ended = None
        if ended is not None:
            ended.set_result(None)
        error = None if renewal.cancelled() else renewal.exception()
        if error is not None:
            self.is_failing = True
            self._next_early_renewal = self._now() + _EARLY_RETRY_S
            if getattr(error, "attempts", 1):  # 0 for a remembered refusal, which was logged before
                _logger.warning("token request failed: %s", error)
        if arrival is not None and not arrival.done():
            if error is None:
                arrival.cancel()
                return
            arrival.set_exception(error)
            arrival.exception()  # if no call waits for it, asyncio must not log it

    async def _renew(self, arrival: asyncio.Future[str]) -> None:
        if self._store is None:
            self._take(await self._requester.request(self._now), arrival, is_requested=True)
            return
        async with self._store.lock(self._store_key):
            token = await self._store.load(self._store_key)
            if token is not None:  # another process may have rotated the refresh token, or lost it
                is_refused = token.refresh_token == self._requester.refused_refresh_token
                self._requester.refresh_token = None if is_refused else token.refresh_token
            known = {self._refused_token, self._held.token.value if self._held else None}
            if token is None or token.value in known or self._now() >= token.usable_until:
                token = await self._requester.request(self._now)
                self._take(token, arrival, is_requested=True)
                await self._store.save(self._store_key, token)
            else:
                self._take(token, arrival, is_requested=False)

    def _take(self, token: Token, arrival: asyncio.Future[str], *, is_requested: bool) -> None:
        """Hold a token, and hand it to the waiting calls."""
        settled_at = _loop_time() + self._settling_s  # another process may have requested a stored one just now
        self._fallback, self._successor, self.is_failing = self._held, None, False
        self._held = _HeldToken(token, settled_at, is_requested)
        arrival.set_result(token.value)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
