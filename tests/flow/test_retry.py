"""What is tried again, how long, and what that may cost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from podero_async import (
    ApiError,
    ConfigurationError,
    DecodeError,
    NotFoundError,
    PoderoError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    TransportError,
)
from podero_async._flow.retry import Call, NotRetriedError, RequestStats, Retrier

pytestmark = pytest.mark.leaping


def failing(*errors: Exception) -> Callable[[Call], Awaitable[str]]:
    """Make an attempt that raises these errors in turn, and then succeeds."""
    remaining = list(errors)

    async def attempt(_: Call) -> str:
        if remaining:
            raise remaining.pop(0)
        return "answer"

    return attempt


def unavailable(retry_after: float | None = None) -> ServerError:
    return ServerError(503, "down", "GET", "/x", None, retry_after)


def longest_wait(_: float, ceiling: float) -> float:
    return ceiling


async def test_a_good_answer_is_one_attempt() -> None:
    """Requests would be made twice."""
    stats = RequestStats()
    assert await Retrier(RetryPolicy()).run(failing(), stats) == "answer"
    assert stats == RequestStats(requests=0, retries=0), "requests are counted by who sends them"


def test_the_policy_is_the_documented_one() -> None:
    """Who relies on the defaults would find other ones after an upgrade."""
    assert RetryPolicy() == RetryPolicy(
        max_attempts=8, max_elapsed=120, backoff_initial=0.5, backoff_max=8, retry_after_max=120, budget=500
    )


@pytest.mark.parametrize(
    "error",
    [
        *(ApiError(status, "x", "GET", "/x") for status in (408, 425, 429, 500, 502, 503, 504)),
        TransportError("lost", "GET", "/x"),
        RequestTimeoutError("late", "GET", "/x"),
        DecodeError("no JSON", retryable=True),
    ],
    ids=str,
)
async def test_what_may_end_better_is_tried_again(error: Exception) -> None:
    """A passing fault would cost a vehicle."""
    stats = RequestStats()
    assert await Retrier(RetryPolicy()).run(failing(error, error), stats) == "answer"
    assert stats.retries == 2


@pytest.mark.parametrize(
    "error",
    [
        *(ApiError(status, "x", "GET", "/x") for status in (302, 400, 401, 403, 404, 405, 409, 422, 501, 505)),
        TransportError("TLS failed", "GET", "/x", retryable=False),
        DecodeError("no page"),
        PoderoError("ours"),
        RuntimeError("not ours"),
        ValueError("not ours"),
    ],
    ids=str,
)
async def test_nothing_else_is_tried_again(error: Exception) -> None:
    """A wrong request would be repeated eight times; an error of the caller's own would be hidden."""
    stats = RequestStats()
    with pytest.raises(type(error)):
        await Retrier(RetryPolicy()).run(failing(error), stats)
    assert stats.retries == 0


async def test_a_retry_may_end_in_what_is_not_tried_again() -> None:
    """A vehicle that is gone would be asked for eight times, if only the first answer was a fault."""
    stats = RequestStats()
    with pytest.raises(NotFoundError) as caught:
        await Retrier(RetryPolicy()).run(failing(unavailable(), NotFoundError(404, "x", "GET", "/x")), stats)
    assert (caught.value.attempts, stats.retries) == (2, 1)


async def test_the_attempts_of_a_request_within_a_call_do_not_multiply() -> None:
    """A token endpoint that is down would be asked 64 times for one call."""
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


async def test_attempts_are_bounded_and_counted_on_the_error() -> None:
    """A dead server would be asked for ever, or nobody would know how often it was."""
    stats = RequestStats()
    with pytest.raises(ServerError) as caught:
        await Retrier(RetryPolicy(max_attempts=3)).run(failing(*[unavailable() for _ in range(9)]), stats)
    assert (caught.value.attempts, stats.retries) == (3, 2)
    with pytest.raises(ServerError) as caught:
        await Retrier(RetryPolicy(max_attempts=1)).run(failing(unavailable()), stats)
    assert caught.value.attempts == 1


async def test_backoff_doubles_up_to_its_bound() -> None:
    """Retries would come too fast for a server that struggles, or too late for the caller."""
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
    """Callers that failed together would come back together."""
    drawn: list[tuple[float, float]] = []

    def draw(least: float, most: float) -> float:
        drawn.append((least, most))
        return least

    await Retrier(RetryPolicy(backoff_initial=0.5), random_between=draw).run(
        failing(unavailable(), unavailable()), RequestStats()
    )
    assert drawn == [(0.0, 0.5), (0.0, 1.0)]


async def test_a_retry_after_is_waited_for_with_jitter_on_top() -> None:
    """The server's own word would be ignored, or all callers return in the same instant."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    await Retrier(RetryPolicy(backoff_initial=0.5), random_between=longest_wait).run(
        failing(unavailable(30)), RequestStats()
    )
    assert loop.time() - started == pytest.approx(30.5, abs=0.1)


async def test_a_retry_after_past_its_cap_is_an_error_with_the_time() -> None:
    """A caller would sleep for an hour without knowing."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    error = RateLimitError(429, "x", "GET", "/x", None, 3600.0)
    with pytest.raises(RateLimitError) as caught:
        await Retrier(RetryPolicy()).run(failing(error), RequestStats())
    assert caught.value.retry_after == 3600
    assert loop.time() - started < 1


async def test_a_retry_after_up_to_its_cap_is_slept_and_the_cap_is_for_nothing_else() -> None:
    """Who accepts no long waits would have no retries at all."""
    policy = RetryPolicy(retry_after_max=0.5)
    assert await Retrier(policy).run(failing(unavailable(), unavailable(0.5)), RequestStats()) == "answer"


async def test_elapsed_time_is_bounded_and_no_wait_is_begun_in_vain() -> None:
    """A call would outlast its bound, or sleep only to give up."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    policy = RetryPolicy(max_attempts=100, max_elapsed=11.5, backoff_initial=4, backoff_max=4)
    with pytest.raises(ServerError) as caught:
        await Retrier(policy, random_between=longest_wait).run(
            failing(*[unavailable() for _ in range(99)]), RequestStats()
        )
    assert caught.value.attempts == 3
    assert loop.time() - started == pytest.approx(8, abs=0.1)


async def test_waiting_for_a_place_does_not_count() -> None:
    """A busy client would give up on calls that never had their chance."""

    async def attempt(call: Call) -> str:
        await asyncio.sleep(100)
        call.waited_s += 100
        if call.attempts < 3:
            raise unavailable()
        return "answer"

    assert await Retrier(RetryPolicy(max_elapsed=10)).run(attempt, RequestStats()) == "answer"


async def test_a_spent_budget_ends_the_retries_of_all() -> None:
    """An outage would be answered with many times the load."""
    retrier = Retrier(RetryPolicy(budget=20, max_attempts=4))
    attempts = 0

    async def attempt(_: Call) -> None:
        nonlocal attempts
        attempts += 1
        raise unavailable()

    for _ in range(10):
        with pytest.raises(ServerError):
            await retrier.run(attempt, RequestStats())
    assert attempts == 10 + 20 // 5
    assert retrier.is_spent


async def test_good_answers_fill_the_budget_again() -> None:
    """After an outage nothing would ever be retried again."""
    retrier = Retrier(RetryPolicy(budget=5))
    with pytest.raises(NotFoundError):
        await retrier.run(failing(unavailable(), NotFoundError(404, "x", "GET", "/x")), RequestStats())
    assert retrier.is_spent
    for answers in range(1, 21):
        await retrier.run(failing(), RequestStats())
        assert retrier._budget == min(answers, 5), "one good answer pays for a fifth of a retry"
    assert await retrier.run(failing(unavailable()), RequestStats()) == "answer"
    assert retrier._budget == 5, "a retry that helped gives back what it took"


async def test_cancellation_is_never_retried() -> None:
    """A timeout around a call would return late, or not at all."""
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
    """Nobody would see why a fetch is slow."""
    with caplog.at_level(logging.INFO, "podero_async"):
        await Retrier(RetryPolicy(), random_between=longest_wait).run(failing(unavailable(30)), RequestStats())
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("podero_async", "INFO")
    assert record.getMessage() == "attempt 1 failed, again in 30.5 s: HTTP 503: down (GET /x)"


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_attempts": 0},
        {"max_attempts": 1.5},
        {"budget": True},
        {"max_elapsed": 0},
        {"backoff_initial": -1},
        {"backoff_max": float("nan")},
        {"retry_after_max": float("inf")},
    ],
)
def test_a_wrong_policy_is_refused_by_name(arguments: dict[str, Any]) -> None:
    """A typo would show as a hang, or as no retry at all."""
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        RetryPolicy(**arguments)
