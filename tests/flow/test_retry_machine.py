"""The retrier against a model of its budget and bounds, under any order of events."""

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

# All seconds are multiples of a power of two, so that sums of floats are exact.
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
    """Return the error of a token request within a call, which had attempts of its own."""
    error = TransportError("lost", "POST", "/token")
    error.attempts = 7
    return NotRetriedError(error)


_MAKE_PERMANENT: list[Callable[[], Exception]] = [
    lambda: NotFoundError(404, "gone", "GET", "/x"),
    lambda: TransportError("TLS failed", "GET", "/x", retryable=False),
    lambda: DecodeError("no page"),
    _given_up,
    lambda: RuntimeError("not ours"),
]


@attrs.define(eq=False)
class ModelCall:
    """A call, and its state according to the model."""

    started_at: float
    stats: RequestStats = attrs.field(factory=RequestStats)
    call: Call | None = None
    task: asyncio.Task[str] | None = None
    attempt: asyncio.Future[str] | None = None
    """Ends the current attempt; None during a wait."""
    attempts: int = 1
    paid: int = 0
    waited_s: float = 0.0
    again_at: float | None = None
    """The time of the next attempt; None during an attempt."""


class RetryMachine(LoopMachine):
    """Begins calls and ends their attempts."""

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
        self.retrier = Retrier(self.policy, random_between=self._draw)
        self.is_breaker_closed = True
        self.jitter = 1.0
        self.budget = self.gained = budget
        self.paid = 0
        self.ceiling = 0.0
        self.calls: list[ModelCall] = []

    def _draw(self, least: float, most: float) -> float:
        with self.noting():
            assert (least, most) == (0.0, self.ceiling)
        return most * self.jitter

    @rule(count=st.sampled_from([1, 3, 8]))
    def begin(self, count: int) -> None:
        for _ in range(count):
            model = ModelCall(self.loop.time())
            run = self.retrier.run(self._attempt(model), model.stats, is_breaker_closed=lambda: self.is_breaker_closed)
            model.task = self.loop.create_task(run)
            self.calls.append(model)
        self.wait(0.0)

    def _attempt(self, model: ModelCall) -> Callable[[Call], asyncio.Future[str]]:
        def attempt(call: Call) -> asyncio.Future[str]:
            model.call = call
            model.attempt = self.loop.create_future()
            return model.attempt

        return attempt

    @precondition(lambda self: self._attempting())
    @rule(which=_WHICH, count=st.sampled_from([1, 1, 4]))
    def succeed(self, which: int, count: int) -> None:
        for _ in range(min(count, len(self._attempting()))):
            model = self._attempting()[which % len(self._attempting())]
            self._gain(1 if model.attempts == 1 else model.paid)
            self._end(model, "value")

    @precondition(lambda self: self._attempting())
    @rule(
        which=_WHICH,
        count=st.sampled_from([1, 2, 8]),
        make=st.sampled_from(_MAKE_RETRYABLE),
        jitter=st.sampled_from([0.0, 0.5, 1.0]),
        waited_s=_SECONDS,
    )
    def fail(self, which: int, count: int, make: Callable[[], Exception], jitter: float, waited_s: float) -> None:
        self.jitter = jitter
        for _ in range(min(count, len(self._attempting()))):
            model = self._attempting()[which % len(self._attempting())]
            assert model.call is not None
            model.call.waited_s += waited_s
            model.waited_s += waited_s
            error = make()
            self.ceiling = min(4.0, 0.5 * 2 ** (model.attempts - 1))
            sleep_s = (getattr(error, "retry_after", None) or 0.0) + self.ceiling * jitter
            if self._is_retried(model, error, sleep_s):
                self._sleep(model, error, sleep_s)
            else:
                self._end(model, error)

    def _is_retried(self, model: ModelCall, error: Exception, sleep_s: float) -> bool:
        """Return whether the policy allows a retry, and take its cost."""
        elapsed_s = self.loop.time() - model.started_at - model.waited_s
        if (
            model.attempts == self.policy.max_attempts
            or elapsed_s + sleep_s > self.policy.max_elapsed
            or (getattr(error, "retry_after", None) or 0.0) > _MAX_RETRY_AFTER_S
        ):
            return False
        if self.is_breaker_closed:
            is_cheap = model.attempts == 1 or getattr(error, "status", None) == 429
            cost, least = (1, 1) if is_cheap else (_COST, 2 * _COST)
            if self.budget < least:
                return False
            self.budget -= cost
            self.paid += cost
            model.paid += cost
        return True

    @precondition(lambda self: self._attempting())
    @rule(which=_WHICH, make=st.sampled_from(_MAKE_PERMANENT))
    def fail_permanently(self, which: int, make: Callable[[], Exception]) -> None:
        self._end(self._attempting()[which % len(self._attempting())], make())

    @precondition(lambda self: self.calls)
    @rule(which=_WHICH, is_late=st.booleans())
    def cancel(self, which: int, is_late: bool) -> None:
        model = self.calls[which % len(self.calls)]
        if is_late and model.attempt is not None:
            model.attempt.set_result("just now")
        self._end(model, None)

    @rule()
    def flip_the_breaker(self) -> None:
        self.is_breaker_closed = not self.is_breaker_closed

    # --- the model ---

    def _attempting(self) -> list[ModelCall]:
        return [model for model in self.calls if model.again_at is None]

    def _gain(self, amount: int) -> None:
        before = self.budget
        self.budget = min(self.policy.budget, before + amount)
        self.gained += self.budget - before

    def _sleep(self, model: ModelCall, error: Exception, sleep_s: float) -> None:
        assert model.attempt is not None
        model.attempt.set_exception(error)
        model.attempt = None
        model.again_at = self.loop.time() + sleep_s
        self.wait(0.0)

    def _end(self, model: ModelCall, how: str | Exception | None) -> None:
        """End a call by a value, an error or cancellation (None), and check that its caller gets just that."""
        task, attempt = model.task, model.attempt
        assert task is not None
        attempts = 7 if isinstance(how, NotRetriedError) else model.attempts
        if how is None:
            task.cancel()
        elif attempt is not None:
            attempt.set_result(how) if isinstance(how, str) else attempt.set_exception(how)
        self.calls.remove(model)
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
        for model in self.calls:
            if model.again_at is not None and model.again_at <= self.loop.time():
                model.again_at = None
                model.attempts += 1
        for model in self.calls:
            assert (model.attempt is None) == (model.again_at is not None), "at the wrong time"
            assert model.call is not None
            assert (model.call.attempts, model.stats.retries) == (model.attempts, model.attempts - 1)
        assert 0 <= self.budget == self.retrier.budget <= self.policy.budget
        assert self.retrier.is_spent == (self.budget < _COST)
        assert self.paid <= self.gained, "more retries than were paid for"

    def finish(self) -> None:
        self.wait(self.policy.max_elapsed + _MAX_RETRY_AFTER_S)
        while self.calls:
            self.succeed(0, 1)


@pytest.mark.parametrize(
    "runs", [pytest.param(60, marks=pytest.mark.slow), pytest.param(2_000, marks=pytest.mark.soak)]
)
def test_no_order_of_events_spends_more_than_the_budget(
    runs: int, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """Each call has exactly the attempts that its policy and the shared budget allow, at the right times."""
    record_property("figure", run_machine(RetryMachine, runs * soak_scale))
