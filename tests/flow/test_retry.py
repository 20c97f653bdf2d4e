"""Retries: which errors, how often, for how long, and at what cost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise

import pytest

from podero_async import (
    NotFoundError,
    PoderoError,
    RateLimitError,
    RetryPolicy,
    ServerError,
)
from podero_async._flow.retry import Call, NotRetriedError, RequestStats, Retrier

pytestmark = pytest.mark.leaping


def failing(*errors: Exception) -> Callable[[Call], Awaitable[str]]:
    """Return an attempt that raises these errors in turn, and then succeeds."""
    remaining = list(errors)

    async def attempt(_: Call) -> str:
        if remaining:
            raise remaining.pop(0)
        return "value"

    return attempt


def unavailable(retry_after: float | None = None) -> ServerError:
    return ServerError(503, "down", "GET", "/x", None, retry_after)


def longest_wait(_: float, ceiling: float) -> float:
    return ceiling


async def test_a_success_at_the_first_attempt_has_no_retry() -> None:
    """The sender counts requests; the retrier counts only retries."""
    stats = RequestStats()
    assert await Retrier(RetryPolicy()).run(failing(), stats) == "value"
    assert stats == RequestStats(requests=0, retries=0)


async def test_a_retryable_error_is_retried() -> None:
    """Two faults cost two retries; tests/test_failures.py lists the retryable errors."""
    stats = RequestStats()
    assert await Retrier(RetryPolicy()).run(failing(unavailable(), unavailable()), stats) == "value"
    assert stats.retries == 2


@pytest.mark.parametrize("error", [NotFoundError(404, "x", "GET", "/x"), PoderoError("x"), ValueError("x")], ids=repr)
async def test_no_other_error_is_retried(error: Exception) -> None:
    """Errors that are not retryable, and those from outside the library, are raised after one attempt."""
    stats = RequestStats()
    with pytest.raises(type(error)) as caught:
        await Retrier(RetryPolicy()).run(failing(error), stats)
    assert caught.value is error
    assert stats.retries == 0


async def test_a_permanent_error_ends_the_retries() -> None:
    """A 503 followed by a 404 takes two attempts."""
    stats = RequestStats()
    with pytest.raises(NotFoundError) as caught:
        await Retrier(RetryPolicy()).run(failing(unavailable(), NotFoundError(404, "x", "GET", "/x")), stats)
    assert (caught.value.attempts, stats.retries) == (2, 1)


async def test_the_attempts_of_a_nested_call_do_not_multiply() -> None:
    """If the token endpoint is down, it gets as many requests as one call has attempts:
    the outer call does not repeat them.
    """
    token_requests = RequestStats()
    retrier = Retrier(RetryPolicy(max_attempts=3))

    async def attempt(_: Call) -> str:
        try:
            return await retrier.run(failing(*[unavailable() for _ in range(9)]), token_requests)
        except ServerError as error:
            raise NotRetriedError(error) from None

    with pytest.raises(ServerError) as caught:
        await retrier.run(attempt, RequestStats())
    assert (caught.value.attempts, token_requests.retries) == (3, 2)


@pytest.mark.parametrize("attempts", [1, 3])
async def test_attempts_are_bounded_and_counted_on_the_error(attempts: int) -> None:
    """`max_attempts` includes the first attempt."""
    stats = RequestStats()
    with pytest.raises(ServerError) as caught:
        await Retrier(RetryPolicy(max_attempts=attempts)).run(failing(*[unavailable() for _ in range(9)]), stats)
    assert (caught.value.attempts, stats.retries) == (attempts, attempts - 1)


async def test_backoff_doubles_up_to_its_bound() -> None:
    """If the first wait is 1 s and the bound 4 s, the waits are 1, 2, 4, 4 and 4 s at most."""
    loop = asyncio.get_running_loop()
    starts = []

    async def attempt(_: Call) -> None:
        starts.append(loop.time())
        raise unavailable()

    policy = RetryPolicy(max_attempts=6, backoff_initial=1, backoff_max=4)
    with pytest.raises(ServerError):
        await Retrier(policy, random_between=longest_wait).run(attempt, RequestStats())
    waits = [round(later - earlier) for earlier, later in pairwise(starts)]
    assert waits == [1, 2, 4, 4, 4]


async def test_jitter_covers_the_whole_wait() -> None:
    """Each wait is drawn from 0 to its bound, so callers that failed together return spread out."""
    drawn: list[tuple[float, float]] = []

    def draw(least: float, most: float) -> float:
        drawn.append((least, most))
        return least

    await Retrier(RetryPolicy(backoff_initial=0.5), random_between=draw).run(
        failing(unavailable(), unavailable()), RequestStats()
    )
    assert drawn == [(0.0, 0.5), (0.0, 1.0)]


async def test_a_retry_after_is_waited_for_with_jitter_on_top() -> None:
    """The wait is the 30 s of `Retry-After` and up to half a second of jitter."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    await Retrier(RetryPolicy(backoff_initial=0.5), random_between=longest_wait).run(
        failing(unavailable(30)), RequestStats()
    )
    assert loop.time() - started == pytest.approx(30.5, abs=0.1)


async def test_a_retry_after_over_the_cap_is_raised_at_once() -> None:
    """An error whose `Retry-After` is too long is raised without a wait, with that time on it."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    error = RateLimitError(429, "x", "GET", "/x", None, 3600.0)
    with pytest.raises(RateLimitError) as caught:
        await Retrier(RetryPolicy()).run(failing(error), RequestStats())
    assert caught.value.retry_after == 3600
    assert loop.time() - started < 1


async def test_the_cap_of_retry_after_bounds_nothing_else() -> None:
    """If the cap is 0.5 s, a response without a time and one with 0.5 s are both retried."""
    policy = RetryPolicy(retry_after_max=0.5)
    assert await Retrier(policy).run(failing(unavailable(), unavailable(0.5)), RequestStats()) == "value"


async def test_a_wait_that_would_exceed_max_elapsed_is_not_begun() -> None:
    """If each wait is 4 s and the bound 11.5 s, the call ends after the third attempt, at 8 s."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    policy = RetryPolicy(max_attempts=100, max_elapsed=11.5, backoff_initial=4, backoff_max=4)
    with pytest.raises(ServerError) as caught:
        await Retrier(policy, random_between=longest_wait).run(
            failing(*[unavailable() for _ in range(99)]), RequestStats()
        )
    assert caught.value.attempts == 3
    assert loop.time() - started == pytest.approx(8, abs=0.1)


async def test_waiting_for_a_slot_does_not_count_as_elapsed_time() -> None:
    """If a call waits 100 s for each slot, it still has its retries within `max_elapsed=10`."""

    async def attempt(call: Call) -> str:
        await asyncio.sleep(100)
        call.waited_s += 100
        if call.attempts < 3:
            raise unavailable()
        return "value"

    assert await Retrier(RetryPolicy(max_elapsed=10)).run(attempt, RequestStats()) == "value"


async def test_all_calls_share_the_retry_budget() -> None:
    """A budget of 20 pays for three retries of the first call, and for the first retry of nine others."""
    retrier = Retrier(RetryPolicy(budget=20, max_attempts=4))
    attempts = 0

    async def attempt(_: Call) -> None:
        nonlocal attempts
        attempts += 1
        raise unavailable()

    for _ in range(10):
        with pytest.raises(ServerError):
            await retrier.run(attempt, RequestStats())
    assert attempts == 10 + 3 + 9
    assert retrier.is_spent


@pytest.mark.slow
async def test_calls_in_permanent_trouble_leave_the_others_their_first_retry() -> None:
    """If a third of all calls fail in each attempt, the others still succeed although each fails once."""
    retrier = Retrier(RetryPolicy(max_attempts=4, backoff_initial=1e-6))
    for _ in range(500):
        with pytest.raises(ServerError):
            await retrier.run(failing(*[unavailable() for _ in range(4)]), RequestStats())
        for failures in ([], [unavailable()]):
            assert await retrier.run(failing(*failures), RequestStats()) == "value"


async def test_what_fails_again_and_again_leaves_the_others_their_first_retry() -> None:
    """Calls about a vehicle that failed before do not take the last of the budget, until one of them succeeds."""
    retrier = Retrier(RetryPolicy(budget=20, max_attempts=3, backoff_initial=1e-6))

    async def attempts_of(subject: int, failures: int) -> int:
        stats = RequestStats()
        with suppress(ServerError):
            await retrier.run(failing(*[unavailable() for _ in range(failures)]), stats, subject=subject)
        return 1 + stats.retries

    polled = [await attempts_of(1, failures=9) for _ in range(30)]
    assert polled == [3, 2, *[1] * 28]
    assert await attempts_of(2, failures=1) == 2
    await attempts_of(1, failures=0)
    assert await attempts_of(1, failures=1) == 2


async def test_retries_cost_nothing_while_the_breaker_is_not_closed() -> None:
    """Probes keep the load small, so a call has all its attempts even if the budget is spent."""
    retrier = Retrier(RetryPolicy(budget=1, max_attempts=4))
    with pytest.raises(ServerError) as caught:
        await retrier.run(failing(*[unavailable() for _ in range(9)]), RequestStats(), is_breaker_closed=lambda: False)
    assert caught.value.attempts == 4


async def test_successes_refill_the_budget() -> None:
    """A success at the first attempt gives 1 back, and a successful retry returns its cost."""
    retrier = Retrier(RetryPolicy(budget=5))
    with pytest.raises(NotFoundError):
        await retrier.run(failing(unavailable(), NotFoundError(404, "x", "GET", "/x")), RequestStats())
    assert retrier.is_spent
    for successes in range(1, 8):
        await retrier.run(failing(), RequestStats())
        assert retrier.budget == min(4 + successes, 5)
    assert await retrier.run(failing(unavailable()), RequestStats()) == "value"
    assert retrier.budget == 5


async def test_a_call_that_succeeds_returns_all_that_its_retries_took() -> None:
    """If half of the servers fail, calls that need several retries do not use up the budget."""
    retrier = Retrier(RetryPolicy(budget=40, max_attempts=8, backoff_initial=1e-6))
    for number in range(200):
        assert await retrier.run(failing(*[unavailable() for _ in range(number % 7)]), RequestStats()) == "value"
    assert retrier.budget == 40


async def test_cancellation_is_never_retried() -> None:
    """A timeout around a call ends it in time, even during a retry."""
    loop = asyncio.get_running_loop()

    async def attempt(call: Call) -> None:
        if call.attempts == 1:
            raise unavailable()
        await asyncio.sleep(1000)

    started = loop.time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(20):
            await Retrier(RetryPolicy()).run(attempt, RequestStats())
    assert loop.time() - started == pytest.approx(20, abs=0.1)


async def test_a_retry_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """One line at INFO names the attempt, the wait and the error."""
    with caplog.at_level(logging.INFO, "podero_async"):
        await Retrier(RetryPolicy(), random_between=longest_wait).run(failing(unavailable(30)), RequestStats())
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("podero_async", "INFO")
    assert record.getMessage() == "attempt 1 failed, again in 30.5 s: HTTP 503: down (GET /x)"
