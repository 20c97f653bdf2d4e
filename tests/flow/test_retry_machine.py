"""The retry budget that all calls share, held against its own arithmetic, whatever ends when and how."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from podero_async import DecodeError, NotFoundError, RateLimitError, RetryPolicy, ServerError, TransportError
from podero_async._flow.retry import Call, NotRetriedError, RequestStats, Retrier
from tests._support.fake_clock import LoopMachine, run_machine

_COST = 5
_MAX_RETRY_AFTER_S = 16.0

# All seconds are multiples of a power of two, so that the model's sums are the retrier's to the last bit.
_WHICH = st.integers(0, 63)
_SECONDS = st.sampled_from([0.0, 0.0, 0.25, 1.0, 4.0, 16.0])

_MAKE_RETRYABLE: list[Callable[[], Exception]] = [
    lambda: ServerError(503, "down", "GET", "/x"),
    lambda: ServerError(503, "down", "GET", "/x", None, 2.0),
    lambda: RateLimitError(429, "slowly", "GET", "/x", None, _MAX_RETRY_AFTER_S),
    lambda: RateLimitError(429, "much later", "GET", "/x", None, _MAX_RETRY_AFTER_S + 0.25),
    lambda: TransportError("lost", "GET", "/x"),
    lambda: DecodeError("no JSON", retryable=True),
]


def _given_up() -> Exception:
    """Make the error of a call's own token request, which has had its attempts."""
    error = TransportError("lost", "POST", "/token")
    error.attempts = 7
    return NotRetriedError(error)


_MAKE_FINAL: list[Callable[[], Exception]] = [
    lambda: NotFoundError(404, "gone", "GET", "/x"),
    lambda: TransportError("TLS failed", "GET", "/x", retryable=False),
    lambda: DecodeError("no page"),
    _given_up,
    lambda: RuntimeError("not ours"),
]


@attrs.define(eq=False)
class Watched:
    """A call, and where the model has it."""

    started_at: float
    stats: RequestStats = attrs.field(factory=RequestStats)
    call: Call | None = None
    task: asyncio.Task[str] | None = None
    attempt: asyncio.Future[str] | None = None
    """What its attempt under way waits for."""
    attempts: int = 1
    waited_s: float = 0.0
    again_at: float | None = None
    """When its next attempt begins, where it sleeps."""


class RetryMachine(LoopMachine):
    """Begins calls, ends their attempts, and keeps the budget's books."""

    @initialize(
        max_attempts=st.sampled_from([8, 4, 2, 1]),
        budget=st.sampled_from([30, 12, 5, 1]),
        max_elapsed=st.sampled_from([2.0, 8.0, 64.0]),
    )
    def make(self, max_attempts: int, budget: int, max_elapsed: float) -> None:
        self.policy = RetryPolicy(
            max_attempts=max_attempts,
            max_elapsed=max_elapsed,
            backoff_initial=0.5,
            backoff_max=4.0,
            retry_after_max=_MAX_RETRY_AFTER_S,
            budget=budget,
        )
        self.retrier = Retrier(self.policy, is_outage=lambda: self.is_outage, random_between=self._draw)
        self.is_outage = False
        self.jitter = 1.0
        self.budget = self.gained = budget
        self.paid = 0
        self.ceiling = 0.0
        self.calls: list[Watched] = []

    def _draw(self, least: float, most: float) -> float:
        with self.noting():
            assert (least, most) == (0.0, self.ceiling)
        return most * self.jitter

    @rule(count=st.sampled_from([1, 3, 8]))
    def begin(self, count: int) -> None:
        for _ in range(count):
            watched = Watched(self.loop.time())
            watched.task = self.loop.create_task(self.retrier.run(self._attempt(watched), watched.stats))
            self.calls.append(watched)
        self.wait(0.0)

    def _attempt(self, watched: Watched) -> Callable[[Call], asyncio.Future[str]]:
        def attempt(call: Call) -> asyncio.Future[str]:
            watched.call = call
            watched.attempt = self.loop.create_future()
            return watched.attempt

        return attempt

    @precondition(lambda self: self._asking())
    @rule(which=_WHICH, count=st.sampled_from([1, 1, 4]))
    def succeed(self, which: int, count: int) -> None:
        for _ in range(min(count, len(self._asking()))):
            watched = self._asking()[which % len(self._asking())]
            self._gain(1 if watched.attempts == 1 else _COST)
            self._end(watched, "answer")

    @precondition(lambda self: self._asking())
    @rule(
        which=_WHICH,
        count=st.sampled_from([1, 2, 8]),
        make=st.sampled_from(_MAKE_RETRYABLE),
        jitter=st.sampled_from([0.0, 0.5, 1.0]),
        waited_s=_SECONDS,
    )
    def fail(self, which: int, count: int, make: Callable[[], Exception], jitter: float, waited_s: float) -> None:
        self.jitter = jitter
        for _ in range(min(count, len(self._asking()))):
            watched = self._asking()[which % len(self._asking())]
            assert watched.call is not None
            watched.call.waited_s += waited_s
            watched.waited_s += waited_s
            error = make()
            self.ceiling = min(4.0, 0.5 * 2 ** (watched.attempts - 1))
            sleep_s = (getattr(error, "retry_after", None) or 0.0) + self.ceiling * jitter
            if self._goes_on(watched, error, sleep_s):
                self._sleep(watched, error, sleep_s)
            else:
                self._end(watched, error)

    def _goes_on(self, watched: Watched, error: Exception, sleep_s: float) -> bool:
        """Say what the policy says, and pay for it."""
        elapsed_s = self.loop.time() - watched.started_at - watched.waited_s
        if (
            watched.attempts == self.policy.max_attempts
            or elapsed_s + sleep_s > self.policy.max_elapsed
            or (getattr(error, "retry_after", None) or 0.0) > _MAX_RETRY_AFTER_S
        ):
            return False
        if not self.is_outage:
            if self.budget < _COST:
                return False
            self.budget -= _COST
            self.paid += 1
        return True

    @precondition(lambda self: self._asking())
    @rule(which=_WHICH, make=st.sampled_from(_MAKE_FINAL))
    def fail_for_good(self, which: int, make: Callable[[], Exception]) -> None:
        self._end(self._asking()[which % len(self._asking())], make())

    @precondition(lambda self: self.calls)
    @rule(which=_WHICH, answers=st.booleans())
    def cancel(self, which: int, answers: bool) -> None:
        watched = self.calls[which % len(self.calls)]
        if answers and watched.attempt is not None:
            watched.attempt.set_result("just now")
        self._end(watched, None)

    @rule()
    def change_the_weather(self) -> None:
        self.is_outage = not self.is_outage

    # --- the model ---

    def _asking(self) -> list[Watched]:
        return [watched for watched in self.calls if watched.again_at is None]

    def _gain(self, amount: int) -> None:
        before = self.budget
        self.budget = min(self.policy.budget, before + amount)
        self.gained += self.budget - before

    def _sleep(self, watched: Watched, error: Exception, sleep_s: float) -> None:
        assert watched.attempt is not None
        watched.attempt.set_exception(error)
        watched.attempt = None
        watched.again_at = self.loop.time() + sleep_s
        self.wait(0.0)

    def _end(self, watched: Watched, how: str | Exception | None) -> None:
        """End a call with an answer, an error or its cancellation, and hold that against what its caller gets."""
        task, attempt = watched.task, watched.attempt
        assert task is not None
        attempts = 7 if isinstance(how, NotRetriedError) else watched.attempts
        if how is None:
            task.cancel()
        elif attempt is not None:
            attempt.set_result(how) if isinstance(how, str) else attempt.set_exception(how)
        self.calls.remove(watched)
        self.wait(0.0)
        if how is None:
            assert task.cancelled()
        elif isinstance(how, str):
            assert task.result() == how
        else:
            how = how.error if isinstance(how, NotRetriedError) else how
            assert task.exception() is how, "not the last attempt's error"
            assert isinstance(how, RuntimeError) or how.attempts == attempts  # type: ignore[attr-defined]

    @rule(seconds=_SECONDS)
    def wait(self, seconds: float) -> None:
        self.step(seconds)
        for watched in self.calls:
            if watched.again_at is not None and watched.again_at <= self.loop.time():
                watched.again_at = None
                watched.attempts += 1
        for watched in self.calls:
            assert (watched.attempt is None) == (watched.again_at is not None), "not when it should"
            assert watched.call is not None
            assert (watched.call.attempts, watched.stats.retries) == (watched.attempts, watched.attempts - 1)
        assert 0 <= self.budget == self.retrier._budget <= self.policy.budget
        assert self.retrier.is_spent == (self.budget < _COST)
        assert self.paid * _COST <= self.gained, "more retries than were paid for"

    def finish(self) -> None:
        self.wait(self.policy.max_elapsed + _MAX_RETRY_AFTER_S)
        while self.calls:
            self.succeed(0, 1)


def test_no_order_of_events_spends_more_than_the_budget() -> None:
    """An outage would be answered with many times the load, or a healthy server with no retry at all."""
    run_machine(RetryMachine, 60)


@pytest.mark.soak
def test_no_order_of_events_spends_more_in_the_long_run(
    soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The rarer the order, the longer nobody would notice."""
    record_property("figure", run_machine(RetryMachine, 2_000 * soak_scale))
