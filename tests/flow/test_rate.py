"""The rate estimator by itself, and against simulated servers that hide a limit."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from typing import Protocol

import pytest

from podero_async import ThrottlePolicy
from podero_async._flow.limiter import Limiter
from podero_async._flow.rate import RateEstimator
from tests._support.fake_clock import run_by_clockwork


def starts_within(estimator: RateEstimator, now: float, seconds: float) -> int:
    """Start as often as the estimator allows, at most 1,000 times a second; return how often."""
    end, count = now + seconds, 0
    while now < end:
        now += max(estimator.started(now), 0.001)
        count += 1
    return count


def learned_after(burst_s: float) -> RateEstimator:
    """Return an estimator that was throttled after a burst at 1,000 a second, with a pause of one second."""
    estimator = RateEstimator()
    starts_within(estimator, 0.0, burst_s)
    estimator.throttled(burst_s, burst_s + 1)
    return estimator


def rate_at(estimator: RateEstimator, now: float) -> float:
    return 1 / estimator.started(now)


def test_without_throttling_there_is_no_bound() -> None:
    """Every start may be followed by the next at once."""
    estimator = RateEstimator()
    assert {estimator.started(now / 100) for now in range(1000)} == {0.0}


def test_a_long_burst_tells_the_rate_nearly_exactly() -> None:
    """After ten seconds at 1,000 a second, the learned rate is at most a tenth lower."""
    assert 900 < rate_at(learned_after(10.0), 11.0) < 1000


@pytest.mark.parametrize("burst_s", [0.1, 1.0])
def test_a_short_burst_tells_a_rate_between_that_with_and_without_the_pause(burst_s: float) -> None:
    """The rate learned from a short burst is a rough estimate, so it grows faster than that of a long burst."""
    estimator, end = learned_after(burst_s), burst_s + 1
    rate = rate_at(estimator, end)
    assert 1000 * burst_s / (burst_s + 1) < rate < 900
    exact = learned_after(10.0)
    assert rate_at(estimator, end + 2) / rate > rate_at(exact, 13.0) / rate_at(exact, 11.0)


def test_a_burst_of_throttling_responses_is_one_cut() -> None:
    """If a response arrives during the pause, it changes nothing; one after the pause cuts again."""
    estimator = learned_after(10.0)
    before = rate_at(estimator, 11.0)
    estimator.throttled(10.9, 11.9)
    assert rate_at(estimator, 11.0) == before
    starts_within(estimator, 11.0, 1.0)
    estimator.throttled(12.0, 13.0)
    assert rate_at(estimator, 13.0) < before


def test_a_rate_that_was_used_up_by_half_is_a_rough_estimate() -> None:
    """If six tenths of the allowed starts were used, the rate falls to that and grows quickly."""
    estimator = learned_after(10.0)
    for number in range(5_760):
        estimator.started(11 + number / 576)
    estimator.throttled(21.0, 22.0)
    assert 500 < (rate := rate_at(estimator, 22.0)) < 576
    assert rate_at(estimator, 24.0) > 1.15 * rate


def test_starts_that_do_not_fill_the_limiter_tell_no_rate() -> None:
    """A stray 429 in a quiet hour leaves no bound, and leaves a known one as it is."""
    quiet = RateEstimator()
    for second in range(3600):
        quiet.started(float(second), is_filled=False)
    quiet.throttled(3600.0, 3601.0, min_starts=16)
    assert quiet.bound(3601.0) == math.inf
    for number in range(15):
        quiet.started(3601 + number / 1000, is_filled=True)
    quiet.throttled(3601.1, 3602.1, min_starts=16)
    assert quiet.bound(3602.1) == math.inf, "too few starts"
    known = learned_after(10.0)
    for second in range(11, 21):
        known.started(float(second), is_filled=False)
    known.throttled(21.0, 22.0, min_starts=16)
    assert known.bound(22.0) > 900


def test_a_learned_rate_holds_for_a_while_then_grows_ever_faster_and_is_dropped() -> None:
    """A learned rate grows by under 5 % in 25 s and by half in 50 s, and is dropped after a minute and a half."""
    estimator = learned_after(10.0)
    at_first, after_25_s, after_50_s = (rate_at(estimator, now) for now in (11.0, 36.0, 61.0))
    assert at_first < after_25_s < 1.05 * at_first
    assert 1.3 * at_first < after_50_s < 2 * at_first
    estimator.started(93.0)
    assert estimator.started(93.0) > 0
    estimator.started(120.0)
    assert estimator.started(120.0) == 0


def test_a_server_that_refuses_everything_tells_no_rate() -> None:
    """If nothing succeeds for a minute, the rate from before the minute holds again."""
    estimator = learned_after(5.0)
    before = starts_within(estimator, 6.0, 4.0)
    estimator.remember()
    estimator.throttled(10.0, 11.0)
    for moment in range(11, 71):
        estimator.started(moment)
        estimator.throttled(moment + 0.5, moment + 1.0, tells_rate=False)
    assert starts_within(estimator, 71.0, 4.0) == pytest.approx(before, rel=0.02)
    estimator.throttled(75.0, 76.0)
    assert rate_at(estimator, 76.0) > 0.9 * before / 4, "the minute of throttling does not count"


@pytest.mark.parametrize("idle_s", [600, 3600, 10**6])
def test_a_rate_is_dropped_after_a_long_idle_time_and_learned_again(idle_s: float) -> None:
    """After any idle time a learned rate is dropped without an overflow,
    and the next throttling response sets a new one.
    """
    estimator = learned_after(10.0)
    estimator.started(11.0)
    estimator.throttled(21.0, 22.0)  # a rough estimate, which grows quickly
    estimator.started(22.0 + idle_s)
    assert estimator.started(22.1 + idle_s) == 0
    estimator.throttled(22.2 + 2 * idle_s, 23.2 + 2 * idle_s)
    assert estimator.started(24 + 2 * idle_s) > 0


@pytest.mark.parametrize("is_known", [False, True])
def test_starts_before_an_idle_time_tell_no_rate(is_known: bool) -> None:
    """If a client polls once an hour, it learns the rate of its last poll, not one over the hour."""
    estimator = RateEstimator()
    starts_within(estimator, 0.0, 5.0)
    if is_known:
        estimator.throttled(5.0, 6.0)
        starts_within(estimator, 6.0, 1.0)
    starts_within(estimator, 3600.0, 1.0)
    estimator.throttled(3601.0, 3602.0)
    assert rate_at(estimator, 3602.0) > 500


def test_the_slowest_rate_is_one_start_in_ten_seconds() -> None:
    """If a server throttles each request, one request in ten seconds is still sent."""
    estimator = RateEstimator()
    for began in (0.0, 1000.0, 2000.0):
        estimator.started(began)
        estimator.throttled(began + 0.1, began + 1000)
    assert estimator.started(3000) == pytest.approx(10)


# --- against simulated servers ----------------------------------------------------------------------------------------


class Server(Protocol):
    """Serves a request (None), or returns how many seconds to wait."""

    async def serve(self) -> float | None: ...


class Bucket:
    """A token bucket that holds a tenth of a second's requests."""

    def __init__(self, rate: float) -> None:
        self.rate, self.tokens, self.at = rate, rate / 10, asyncio.get_running_loop().time()

    async def serve(self) -> float | None:
        now = asyncio.get_running_loop().time()
        self.tokens = min(self.rate / 10, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return 1.0
        self.tokens -= 1
        await asyncio.sleep(0.1)
        return None


class Windows:
    """Fixed windows: `rate` requests in each second of the server's own clock."""

    def __init__(self, rate: float, ahead_s: float) -> None:
        self.rate, self.ahead_s, self.window, self.count = rate, ahead_s, 0, 0

    async def serve(self) -> float | None:
        window = int(asyncio.get_running_loop().time() + self.ahead_s)
        if window != self.window:
            self.window, self.count = window, 0
        if self.count >= self.rate:
            return 1.0
        self.count += 1
        await asyncio.sleep(0.1)
        return None


class Slots:
    """A bound on the requests in flight; further ones are throttled without a time."""

    def __init__(self, slots: int) -> None:
        self.slots, self.in_flight = slots, 0

    async def serve(self) -> float | None:
        if self.in_flight >= self.slots:
            return 0.0
        self.in_flight += 1
        await asyncio.sleep(0.1)
        self.in_flight -= 1
        return None


class Chance:
    """Throttles a share of the requests at random, at any rate."""

    def __init__(self, share: float, retry_after: float, seed: int = 1) -> None:
        self.share, self.retry_after, self.rng = share, retry_after, random.Random(seed)

    async def serve(self) -> float | None:
        await asyncio.sleep(0.1)
        return self.retry_after if self.rng.random() < self.share else None


class Unlimited(RateEstimator):
    """Learns nothing, so that throttling responses only pause the limiter and lower its limit."""

    def throttled(self, now: float, resume_at: float, *, tells_rate: bool = True, min_starts: int = 1) -> None:
        pass


async def measure(
    make: Callable[[], Server],
    possible: float,
    seconds: int = 40,
    rate: RateEstimator | None = None,
    counted_after_s: float = 10.0,
) -> tuple[float, float]:
    """Send as much as the limiter allows for some seconds, by 72 workers.

    Returns:
        The share of the possible requests that succeeded after `counted_after_s`, and the share that was throttled.
    """
    server, limiter, loop, rng = (
        make(),
        Limiter(ThrottlePolicy(), rate=rate),
        asyncio.get_running_loop(),
        random.Random(1),
    )
    began, succeeded, throttled = loop.time(), 0, 0

    async def worker() -> None:
        nonlocal succeeded, throttled
        while loop.time() < began + seconds:
            slot = await limiter.acquire()
            wait_s = await server.serve()
            is_counted = loop.time() > began + counted_after_s
            if wait_s is None:
                limiter.succeeded(slot)
                succeeded += is_counted
            else:
                limiter.throttled(slot, wait_s)
                throttled += is_counted
            limiter.release(slot)
            if wait_s is not None:
                await asyncio.sleep(wait_s + rng.random() / 2)

    await asyncio.gather(*(worker() for _ in range(72)))
    return succeeded / (seconds - counted_after_s) / possible, throttled / (succeeded + throttled)


def assert_used(make: Callable[[], Server], possible: float, *, used: float, throttled: float) -> None:
    share_used, share_throttled = run_by_clockwork(measure(make, possible), within_s=60)
    assert share_used > used
    assert share_throttled < throttled


def test_a_hidden_rate_is_found_and_used() -> None:
    """Over 90 % of a limit of 200 requests a second is used, and under 2 % of the requests are throttled."""
    assert_used(lambda: Bucket(200), 200, used=0.9, throttled=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [60, 200, 260])
@pytest.mark.parametrize("tenth", [0, 3, 7])
def test_a_rate_that_is_counted_in_windows_is_used_whenever_they_begin(rate: int, tenth: int) -> None:
    """Over 90 % of a rate is used although the first requests may meet the end of a window and pass in double number."""
    assert_used(lambda: Windows(rate, tenth / 10), rate, used=0.9, throttled=0.02)


def test_a_hidden_number_of_slots_is_found_and_used() -> None:
    """Over 80 % of eight slots are used, and under 4 % of the requests are throttled."""
    assert_used(lambda: Slots(8), 80, used=0.8, throttled=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("retry_after", [0.0, 1.0])
@pytest.mark.parametrize("share", [0.005, 0.03])
def test_throttling_at_random_costs_no_more_than_its_pauses(share: float, retry_after: float) -> None:
    """A server that throttles at random gets at least 85 % of the requests that it gets if no rate is learned."""
    learned, unlimited = (
        run_by_clockwork(measure(lambda: Chance(share, retry_after), 1, 120, rate), within_s=240)[0]
        for rate in (RateEstimator(), Unlimited())
    )
    assert learned > 0.85 * unlimited


def test_throttling_at_random_ends_the_fall_of_the_rate() -> None:
    """If one request in a hundred is throttled with a short pause, the rate stays above 40 a second, and is given up."""
    estimator, rng, now, rates = RateEstimator(), random.Random(1), 0.0, list[float]()
    while now < 20:
        now += max(estimator.started(now), 0.001)
        if rng.random() < 0.01:
            estimator.throttled(now, now + 0.2)
            now += 0.2
            rates.append(estimator.bound(now))
    assert min(rates) > 40
    assert rates[-1] == math.inf


@pytest.mark.parametrize("starts", [30, 60])
def test_a_rate_falls_as_long_as_the_same_number_of_starts_is_throttled(starts: int) -> None:
    """A window of 30 requests that may be met in its middle is not taken for chance: the rate falls below 30 a second."""
    estimator, now = RateEstimator(), 0.0
    for number in range(60):
        for _ in range(starts if number % 2 else 30):
            now += max(estimator.started(now), 0.001)
        if estimator.bound(now) < 30:
            return
        estimator.throttled(now, now + 1)
        now += 1
    pytest.fail("the rate was given up")


@pytest.mark.parametrize("starts", [20, 15])
def test_a_dropped_rate_that_was_taken_for_chance_is_learned_again(starts: int) -> None:
    """A rate is dropped when the requests between two pauses halve twice, and learned again when their number stays the same."""
    estimator, now = RateEstimator(), 0.0
    bounds = []
    for count in (400, 400, 100, *[starts] * 10):
        for _ in range(count):
            now += max(estimator.started(now), 0.001)
        estimator.throttled(now, now + 1)
        now += 1
        bounds.append(estimator.bound(now))
    assert math.inf in bounds[1:]
    assert bounds[-1] < math.inf


@pytest.mark.slow
@pytest.mark.parametrize(("is_bucket", "drops_after_s"), [(True, 46.888), (True, 49.12), (False, 45.16), (False, 30.0)])
def test_a_hidden_rate_that_drops_to_a_tenth_is_found(is_bucket: bool, drops_after_s: float) -> None:
    """From 20 s after the drop on, over 70 % of the rate is used, and under 3 % of the requests are throttled."""

    def dropping() -> Server:
        server = Bucket(200) if is_bucket else Windows(200, 0.5)
        asyncio.get_running_loop().call_later(drops_after_s, setattr, server, "rate", 20)
        return server

    used, throttled = run_by_clockwork(measure(dropping, 20, 120, counted_after_s=drops_after_s + 20), within_s=240)
    assert used > 0.7
    assert throttled < 0.03
