"""A state machine of the token cache: callers, the clock and the token endpoint act in any order."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from podero_async import (
    AuthenticationError,
    ClientCredentials,
    ConfigurationError,
    DecodeError,
    PasswordCredentials,
    PoderoError,
    Token,
    TokenEndpoint,
    TransportError,
)
from podero_async._auth.cache import TokenCache
from podero_async._auth.grants import TokenRequest, TokenResponse
from podero_async._auth.refusals import Refusals
from tests._support.fake_clock import LoopMachine, run_machine

_PATH = TokenEndpoint("/token", form=False)
_CLIENT = ClientCredentials("client-1", "s3cret", token_endpoint=_PATH)
_PASSWORD = PasswordCredentials("user-1", "passw0rd", token_endpoint=_PATH)

_MIN_RENEWED_AT = 0.8  # of a token's life
_EARLY_RETRY_S = 5.0
_REFUSAL_MEMORY_S = 60.0
_MIN_REPLACEMENT_INTERVAL_S = 60.0
_MAX_CALL_S = 20.0  # for two tokens that settle, and the latency of each request
_MOMENT_S = 1e-6

_WHICH = st.integers(0, 63)
_LAGS = st.sampled_from([0.0, 0.0, 0.0, 0.3, 3.0])
_LIVES = st.sampled_from([60.0, 3600.0, 3600.0, 10.0, 1.0, 0.0, None])
_FAILURES: dict[type[PoderoError], TokenResponse | TransportError] = {
    TransportError: TransportError("lost", "POST", "/token"),
    AuthenticationError: TokenResponse(401, b'{"error": "invalid_client"}'),
    DecodeError: TokenResponse(200, b"{}"),
}


@attrs.define
class YieldingStore:
    """A store that several caches share; each call yields to the event loop, so that other tasks run in between."""

    tokens: dict[str, Token] = attrs.field(factory=dict)
    _lock: asyncio.Lock = attrs.field(factory=asyncio.Lock)

    def lock(self, key: str) -> asyncio.Lock:
        return self._lock

    async def load(self, key: str) -> Token | None:
        await asyncio.sleep(0)
        return self.tokens.get(key)

    async def save(self, key: str, token: Token) -> None:
        await asyncio.sleep(0)
        self.tokens[key] = token


@attrs.frozen
class IssuedToken:
    """The time at which the server issued a token, the token's life, and the lag until all replicas know the token."""

    at: float
    life_s: float
    lag_s: float
    cache: int

    @property
    def renewed_at(self) -> float:
        return self.at + self.life_s * _MIN_RENEWED_AT

    @property
    def usable_until(self) -> float:
        return self.at + self.life_s - (min(20.0, self.life_s * 0.05) if self.life_s < math.inf else 0.0)


@attrs.define(eq=False)
class PendingRequest:
    """A token request without a response so far."""

    cache: int
    refresh_token: str | None
    response: asyncio.Future[TokenResponse]


class TokenMachine(LoopMachine):
    """Play the callers, the clock and the server of one cache, or of several that share a store."""

    @initialize(
        credentials=st.sampled_from([_CLIENT, _PASSWORD]),
        caches=st.sampled_from([1, 1, 2, 3]),
        is_stored=st.booleans(),
        ends_closed=st.booleans(),
    )
    def make(
        self, credentials: ClientCredentials | PasswordCredentials, caches: int, is_stored: bool, ends_closed: bool
    ) -> None:
        store = YieldingStore() if is_stored or caches > 1 else None
        self.caches = [
            TokenCache(
                credentials,
                self._sender(number),
                origin="https://x",
                store=store,
                now=self.loop.time,
                store_timeout_s=1e9,  # without the lock, two caches would make their requests at the same time
            )
            for number in range(caches)
        ]
        self.can_refresh = credentials is _PASSWORD
        self.issued: dict[str, IssuedToken] = {}  # oldest first
        self.refresh_token: str | None = None  # the newest valid one
        self.refused_refresh_tokens: set[str] = set()
        self.revoked: set[str] = set()
        self.last_check: dict[tuple[int, str], bool | None] = {}
        self.served: list[set[str]] = [set() for _ in range(caches)]  # the tokens that the server accepted
        self.dropped: list[set[str]] = [set() for _ in range(caches)]  # the refused tokens of each cache
        self.dropped_at = [-math.inf] * caches
        self.given_up: list[set[str]] = [set() for _ in range(caches)]  # the refused refresh tokens of each cache
        self.failed_at = [-math.inf] * caches
        self.remembered_until = [-math.inf] * caches
        self.failure: list[type[Exception] | None] = [None] * caches
        self.errors: list[Exception] = []
        self.pending: list[PendingRequest] = []
        self.getting: list[asyncio.Task[None]] = []
        self.calls: list[asyncio.Task[None]] = []
        self.ends_closed = ends_closed
        self.is_closed = False

    # --- the token endpoint ---

    def _sender(self, number: int) -> Callable[[TokenRequest], Awaitable[TokenResponse]]:
        async def send(sent: TokenRequest) -> TokenResponse:
            refresh_token = json.loads(sent.body).get("refresh_token")
            request = PendingRequest(number, refresh_token, self.loop.create_future())
            with self.noting():
                self._check_request(request)
            self.pending.append(request)
            try:
                return await request.response
            finally:
                self.pending.remove(request)

        return send

    def _check_request(self, request: PendingRequest) -> None:
        assert not self.pending, "two token requests at once"
        assert self.loop.time() + _MOMENT_S >= self.remembered_until[request.cache], "refused credentials were resent"
        if request.refresh_token is None:
            assert self.refresh_token is None, "the password was sent although there is a refresh token"
        else:
            assert request.refresh_token not in self.given_up[request.cache], "a refused refresh token was sent again"
            assert request.refresh_token in {self.refresh_token, *self.refused_refresh_tokens}, "an older refresh token"
        newest = next(reversed(self.issued), None)
        if newest is not None and newest not in self.dropped[request.cache]:
            now = self.loop.time() + _MOMENT_S
            assert now >= self.issued[newest].renewed_at, "a usable token was requested anew"
            if now < self.issued[newest].usable_until:
                assert now >= self.failed_at[request.cache] + _EARLY_RETRY_S, (
                    "a failed early renewal was repeated at once"
                )

    @precondition(lambda self: self.pending)
    @rule(life_s=_LIVES, lag_s=_LAGS, with_refresh=st.booleans())
    def issue(self, life_s: float | None, lag_s: float, with_refresh: bool) -> None:
        self.wait(0.0)
        if not self.pending:
            return
        number = len(self.issued) + 1
        self.issued[f"token-{number}"] = IssuedToken(self.loop.time(), life_s or math.inf, lag_s, self.pending[0].cache)
        fields: dict[str, Any] = {"access_token": f"token-{number}", "expires_in": life_s}
        if with_refresh:
            fields["refresh_token"] = f"refresh-{number}"
            self.refresh_token = fields["refresh_token"] if self.can_refresh else None
        self._respond(TokenResponse(200, json.dumps(fields).encode()))

    @rule(which=_WHICH, life_s=_LIVES, lag_s=_LAGS, with_refresh=st.booleans())
    def get_and_issue(self, which: int, life_s: float | None, lag_s: float, with_refresh: bool) -> None:
        self.get(which, 1)
        self.issue(life_s, lag_s, with_refresh)

    @precondition(lambda self: self.pending)
    @rule(failure=st.sampled_from(list(_FAILURES)))
    def fail(self, failure: type[PoderoError]) -> None:
        self.wait(0.0)
        if not self.pending:
            return
        (request,) = self.pending
        if failure is AuthenticationError and request.refresh_token:
            self.refused_refresh_tokens.add(request.refresh_token)
            self.given_up[request.cache].add(request.refresh_token)
            self.refresh_token = None if request.refresh_token == self.refresh_token else self.refresh_token
        else:
            self.failed_at[request.cache] = self.loop.time()
            self.failure[request.cache] = failure
            if failure is not TransportError:
                self.remembered_until[request.cache] = self.loop.time() + _REFUSAL_MEMORY_S
        self._respond(_FAILURES[failure])

    def _respond(self, response: TokenResponse | TransportError) -> None:
        if isinstance(response, TransportError):
            self.pending[0].response.set_exception(response)
        else:
            self.pending[0].response.set_result(response)

    # --- callers ---

    @rule(which=_WHICH, count=st.sampled_from([1, 1, 4]))
    def get(self, which: int, count: int) -> None:
        self.getting += [self.spawn(self._get(which % len(self.caches))) for _ in range(count)]

    async def _get(self, number: int) -> None:
        await self._token(number)

    async def _token(self, number: int) -> str | None:
        try:
            token = await self.caches[number].get()
        except ConfigurationError:
            assert self.is_closed
            return None
        except PoderoError as error:
            assert type(error) is self.failure[number], "a call failed without a failed token request"
            assert not any(error is other for other in self.errors), "two callers share an error"
            self.errors.append(error)
            return None
        self._check_returned(number, token)
        return token

    def _check_returned(self, number: int, token: str) -> None:
        issued = self.issued[token]
        assert token not in self.dropped[number], "a refused token was used again"
        assert self.loop.time() < issued.usable_until or self.loop.time() == issued.at, "an expired token was used"

    @rule(which=_WHICH)
    def peek(self, which: int) -> None:
        with self.loop.at_once():
            token = self.caches[which % len(self.caches)].current()
        if token is not None:
            self._check_returned(which % len(self.caches), token)

    @precondition(lambda self: len(self.issued) > 1)
    @rule(which=_WHICH, token=_WHICH)
    def refuse_late(self, which: int, token: int) -> None:
        """Refuse, with a 401, a call that was sent with one of the last three tokens, but not with the current one."""
        self.wait(0.0)
        cache, value = self.caches[which % len(self.caches)], list(self.issued)[-1 - token % min(3, len(self.issued))]
        with self.loop.at_once():
            before = cache.current()
            if before in {None, value}:
                return
            with pytest.raises(StopIteration) as ended:
                cache.refused(value, Refusals(), self._checker(0, is_known=False)).send(None)
            assert ended.value.value, "a call with an old token is sent again"
            assert cache.current() == before, "the refusal of an old token dropped the new one"

    @precondition(lambda self: self.issued)
    @rule()
    def revoke(self) -> None:
        """Revoke the newest token."""
        self.revoked.add(next(reversed(self.issued)))

    @rule(which=_WHICH, count=st.sampled_from([1, 1, 3]), is_refused=st.booleans(), is_known=st.booleans())
    def call(self, which: int, count: int, is_refused: bool, is_known: bool) -> None:
        """Make whole calls.

        Args:
            is_refused: The server refuses this call with every token.
            is_known: A check of the token tells whether the server accepts it.
        """
        for _ in range(count):
            self.calls.append(self.spawn(self._call(which % len(self.caches), is_refused, is_known)))

    async def _call(self, number: int, is_refused: bool, is_known: bool) -> None:
        cache, refusals = self.caches[number], Refusals()
        while (token := await self._token(number)) is not None:
            await asyncio.sleep(0.01)
            if self._accepts(token) and not is_refused:
                cache.served(token)
                self.served[number].add(token)
                return
            was_current, waited_s = cache.current() == token, refusals.waited_s
            is_sent_again = await cache.refused(token, refusals, self._checker(number, is_known))
            if was_current and refusals.waited_s <= waited_s:
                self._check_dropped(number, token)
            if not is_sent_again:
                self._check_failed(number, token, refusals, is_refused)
                return

    def _accepts(self, token: str) -> bool:
        return token not in self.revoked and self.loop.time() >= self.issued[token].at + self.issued[token].lag_s

    def _checker(self, number: int, is_known: bool) -> Callable[[str], Awaitable[bool | None]]:
        async def is_accepted(token: str) -> bool | None:
            await asyncio.sleep(0.0)
            is_good = self._accepts(token) if is_known and self.served[number] else None
            self.last_check[number, token] = is_good
            return is_good

        return is_accepted

    def _check_dropped(self, number: int, token: str) -> None:
        """Note that a refusal dropped a token, and check that it was right to do so."""
        now = self.loop.time()
        is_dropped = self.caches[number].current() is None and now < self.issued[token].usable_until
        if not is_dropped or token in self.dropped[number] or (number, token) not in self.last_check:
            return  # without a check a token is never dropped; `_check_request` would notice
        assert not self.last_check[number, token], "a token that the server accepts was dropped"
        if self.issued[token].cache == number and token not in self.served[number]:
            assert now >= self.dropped_at[number] + _MIN_REPLACEMENT_INTERVAL_S - _MOMENT_S, "a storm of token requests"
        self.dropped[number].add(token)
        self.dropped_at[number] = now

    def _check_failed(self, number: int, token: str, refusals: Refusals, is_refused: bool) -> None:
        """Check that a call was right to fail with its 401."""
        if not is_refused:
            assert token in self.revoked, "a call failed although the server accepts its token"
            assert token not in self.served[number], "a revoked token was not replaced"
            assert self.loop.time() < self.dropped_at[number] + _MIN_REPLACEMENT_INTERVAL_S
        if refusals.affects_all_calls:
            assert token in self.revoked or not self.served[number], "one call's refusal was taken for everyone's"

    @precondition(lambda self: self.getting)
    @rule(which=_WHICH)
    def cancel(self, which: int) -> None:
        self.getting.pop(which % len(self.getting)).cancel()

    # --- time and invariants ---

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.5, 0.85, 4.0, 8.5, 30.0, 3000.0]))
    def wait(self, seconds: float) -> None:
        self.step(seconds)
        assert not any(task.cancelled() for task in self.getting), "a caller was cancelled with another one"
        self.getting = [task for task in self.getting if not task.done()]
        self.calls = [task for task in self.calls if not task.done()]
        assert len(self.pending) <= 1
        assert self.pending or not self.getting, "a caller waits without a token request"

    @precondition(lambda self: self.issued)
    @rule(which=_WHICH, part=st.sampled_from([0.5, 0.7, 0.85, 0.92, 0.97, 1.0]))
    def age(self, which: int, part: float) -> None:
        """Wait until the newest token reaches this part of its life, and use it twice."""
        newest = self.issued[next(reversed(self.issued))]
        self.wait(max(0.0, newest.at + part * newest.life_s - self.loop.time()) if newest.life_s < math.inf else 0.0)
        for _ in range(2):
            self.peek(which)
            self.wait(0.0)

    @precondition(lambda self: self.issued)
    @rule(
        which=_WHICH,
        part=st.sampled_from([0.92, 0.85, 0.92, 1.0]),
        failures=st.lists(st.sampled_from(list(_FAILURES)), min_size=1, max_size=3),
        seconds=st.sampled_from([0.0, 4.0, 5.5]),
    )
    def fail_renewals(self, which: int, part: float, failures: list[type[PoderoError]], seconds: float) -> None:
        """Let up to three renewals fail in a row."""
        self.age(which, part)
        for failure in failures:
            self.fail(failure)
        self.wait(seconds)
        self.peek(which)
        self.get(which, 1)
        self.wait(0.0)

    def finish(self) -> None:
        self.wait(0.0)
        if self.ends_closed:
            self.is_closed = True
            for call in self.calls:
                call.cancel()
            for cache in self.caches:
                self.spawn(cache.aclose())
        for _ in range(4 * len(self.caches) + 1):
            if self.pending and not self.is_closed:
                self.issue(3600.0, 0.0, with_refresh=True)
            self.wait(0.0 if self.is_closed else _MAX_CALL_S)
        assert not self.getting
        assert not self.calls, "a call does not end"
        assert not asyncio.all_tasks(self.loop), "a task is left after closing"


@pytest.mark.slow
@pytest.mark.parametrize("runs", [40, pytest.param(2_000, marks=pytest.mark.soak)])
def test_no_order_of_events_breaks_the_token_cache(
    runs: int, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """In any order of events, there is one token request at a time, and no refused or expired token is used."""
    record_property("figure", run_machine(TokenMachine, runs * soak_scale))
