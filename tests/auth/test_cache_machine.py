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
from podero_async._auth.grants import TokenRequest
from tests._support.fake_clock import LoopMachine, run_machine

_PATH = TokenEndpoint("/token", form=False)
_CLIENT = ClientCredentials("client-1", "s3cret", token_endpoint=_PATH)
_PASSWORD = PasswordCredentials("user-1", "passw0rd", token_endpoint=_PATH)

_MIN_RENEWED_AT = 0.8  # of a token's life
_EARLY_RETRY_S = 5.0
_MOMENT_S = 1e-6

_WHICH = st.integers(0, 63)
_LIVES = st.sampled_from([60.0, 3600.0, 3600.0, 10.0, 1.0, 0.0, None])
_FAILURES: dict[type[PoderoError], tuple[int, bytes] | TransportError] = {
    TransportError: TransportError("lost", "POST", "/token"),
    AuthenticationError: (401, b'{"error": "invalid_client"}'),
    DecodeError: (200, b"{}"),
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
    """The time at which the server issued a token, and the token's life."""

    at: float
    life_s: float

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
    response: asyncio.Future[tuple[int, bytes]]


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
            TokenCache(credentials, self._sender(number), origin="https://x", store=store, now=self.loop.time)
            for number in range(caches)
        ]
        self.can_refresh = credentials is _PASSWORD
        self.issued: dict[str, IssuedToken] = {}  # oldest first
        self.refresh_token: str | None = None  # the newest valid one
        self.refused_refresh_tokens: set[str] = set()
        self.dropped: list[set[str]] = [set() for _ in range(caches)]  # the refused tokens of each cache
        self.given_up: list[set[str]] = [set() for _ in range(caches)]  # the refused refresh tokens of each cache
        self.failed_at = [-math.inf] * caches
        self.failure: type[Exception] | None = None
        self.errors: list[Exception] = []
        self.pending: list[PendingRequest] = []
        self.getting: list[asyncio.Task[None]] = []
        self.ends_closed = ends_closed
        self.is_closed = False

    # --- the token endpoint ---

    def _sender(self, number: int) -> Callable[[TokenRequest], Awaitable[tuple[int, bytes]]]:
        async def send(sent: TokenRequest) -> tuple[int, bytes]:
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
    @rule(life_s=_LIVES, with_refresh=st.booleans())
    def issue(self, life_s: float | None, with_refresh: bool) -> None:
        self.wait(0.0)
        if not self.pending:
            return
        number = len(self.issued) + 1
        self.issued[f"token-{number}"] = IssuedToken(self.loop.time(), math.inf if life_s is None else life_s)
        fields: dict[str, Any] = {"access_token": f"token-{number}", "expires_in": life_s}
        if with_refresh:
            fields["refresh_token"] = f"refresh-{number}"
            self.refresh_token = fields["refresh_token"] if self.can_refresh else None
        self._respond((200, json.dumps(fields).encode()))

    @rule(which=_WHICH, life_s=_LIVES, with_refresh=st.booleans())
    def get_and_issue(self, which: int, life_s: float | None, with_refresh: bool) -> None:
        self.get(which, 1)
        self.issue(life_s, with_refresh)

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
            self.failure = failure
        self._respond(_FAILURES[failure])

    def _respond(self, response: tuple[int, bytes] | TransportError) -> None:
        if isinstance(response, TransportError):
            self.pending[0].response.set_exception(response)
        else:
            self.pending[0].response.set_result(response)

    # --- callers ---

    @rule(which=_WHICH, count=st.sampled_from([1, 1, 4]))
    def get(self, which: int, count: int) -> None:
        self.getting += [self.spawn(self._get(which % len(self.caches))) for _ in range(count)]

    async def _get(self, number: int) -> None:
        try:
            token = await self.caches[number].get()
        except ConfigurationError:
            assert self.is_closed
        except PoderoError as error:
            assert type(error) is self.failure, "a call failed without a failed token request"
            assert not any(error is other for other in self.errors), "two callers share an error"
            self.errors.append(error)
        else:
            self._check_returned(number, token)

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

    @precondition(lambda self: self.issued)
    @rule(which=_WHICH, token=_WHICH)
    def refuse(self, which: int, token: int) -> None:
        """Refuse, with a 401, a call that was sent with one of the last three tokens."""
        self.wait(0.0)
        number, value = which % len(self.caches), list(self.issued)[-1 - token % min(3, len(self.issued))]
        cache = self.caches[number]
        with self.loop.at_once():
            before = cache.current()
            assert cache.invalidate(value), "another token can be requested"
            if value == before:
                self.dropped[number].add(value)
            assert cache.current() == (None if value == before else before), (
                "the refusal of an old token dropped the new one"
            )

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
            for cache in self.caches:
                self.spawn(cache.aclose())
        for _ in range(2 * len(self.caches) + 1):
            if self.pending and not self.is_closed:
                self.issue(3600.0, with_refresh=True)
            self.wait(0.0)
        assert not self.getting
        assert not asyncio.all_tasks(self.loop), "a task is left after closing"


@pytest.mark.parametrize("runs", [40, pytest.param(2_000, marks=pytest.mark.soak)])
def test_no_order_of_events_breaks_the_token_cache(
    runs: int, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """In any order of events, there is one token request at a time, and no refused or expired token is used."""
    record_property("figure", run_machine(TokenMachine, runs * soak_scale))
