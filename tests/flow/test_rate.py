"""The rate that a server bears is found, used, and left again when it bears more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

import pytest

from podero_async import ThrottlePolicy
from podero_async._flow.limiter import Limiter
from podero_async._flow.rate import RateEstimator
from tests._support.fake_clock import run_by_clockwork


def starts_within(pace: RateEstimator, now: float, seconds: float) -> int:
    """Start as often as the pace allows; return how often that was."""
    end, count = now + seconds, 0
    while now < end:
        now += max(pace.started(now), 0.001)
        count += 1
    return count


def test_without_a_pushback_there_is_no_bound() -> None:
    """A quick server would be asked slowly."""
    pace = RateEstimator()
    assert {pace.started(now / 100) for now in range(1000)} == {0.0}


def test_a_late_pushback_costs_a_twenty_fifth_and_an_early_one_more() -> None:
    """Each pushback would halve the rate, or none would be learned from."""
    pace = RateEstimator()
    starts_within(pace, 0.0, 10.0)  # 1,000 a second
    pace.throttled(10.0, 11.0)
    assert 1 / pace.started(11.0) == pytest.approx(960, rel=0.005)
    pace.throttled(10.9, 11.9)
    assert 1 / pace.started(11.0) == pytest.approx(960, rel=0.005), "one more answer to the same burst"
    pace.throttled(11.1, 12.0)
    assert 1 / pace.started(12.0) < 800


def test_a_server_that_bears_nothing_tells_no_rate() -> None:
    """After a minute of refusals, each with a time, a fleet would be read at a crawl for minutes."""
    pace = RateEstimator()
    starts_within(pace, 0.0, 5.0)  # 1,000 a second
    pace.throttled(5.0, 6.0)
    assert starts_within(pace, 6.0, 4.0) == pytest.approx(3800, rel=0.05), "it was a rate"
    pace.remember()
    pace.throttled(10.0, 11.0)
    for moment in range(11, 71):
        pace.started(moment)
        pace.throttled(moment + 0.5, moment + 1.0, tells_rate=False)
    assert starts_within(pace, 71.0, 5.0) == pytest.approx(4750, rel=0.05), "that which good answers followed"
    pace.throttled(76.0, 77.0)
    assert 1 / pace.started(77.0) > 850, "of the time since, not of the minute before"


def test_a_pace_is_left_slowly_and_then_for_good() -> None:
    """The client would run into the limit again at once, or never find out that it is gone."""
    pace = RateEstimator()
    starts_within(pace, 0.0, 10.0)
    pace.throttled(10.0, 11.0)
    assert starts_within(pace, 30.0, 1.0) == pytest.approx(1000, rel=0.05)
    pace.started(200.0)
    assert pace.started(200.0) == 0.0


def test_a_pace_is_left_ever_faster_and_forgotten_after_a_minute_and_a_half() -> None:
    """One bad moment would slow a client down for a day, or be forgotten before the server has recovered."""
    pace = RateEstimator()
    starts_within(pace, 0.0, 10.0)  # 1,000 a second
    pace.throttled(10.0, 11.0)
    assert 1 / pace.started(36.0) == pytest.approx(980, rel=0.01)
    assert 1 / pace.started(61.0) == pytest.approx(1480, rel=0.02)
    pace.started(93.0)
    assert pace.started(93.0) > 0
    pace.started(97.0)
    assert pace.started(97.0) == 0


@pytest.mark.parametrize(("lasted", "rate", "a_second_later"), [(0.1, 312, 394), (1.0, 771, 791)])
def test_what_a_short_burst_tells_is_doubted(lasted: float, rate: float, a_second_later: float) -> None:
    """What a server had saved up would be taken for what it bears, or a fleet be read at a tenth of that."""
    pace = RateEstimator()
    starts_within(pace, 0.0, lasted)  # 1,000 a second, and with the pause of a second less than a tenth, or a half
    pace.throttled(lasted, lasted + 1)
    assert 1 / pace.started(lasted + 1) == pytest.approx(rate, rel=0.02)
    assert 1 / pace.started(lasted + 2) == pytest.approx(a_second_later, rel=0.02)


def test_a_pace_that_was_not_used_up_is_left_soon() -> None:
    """A fleet that was held back by something else would be read at that speed for half a minute more."""
    pace = RateEstimator()
    starts_within(pace, 0.0, 10.0)  # 1,000 a second
    pace.throttled(10.0, 11.0)
    for tenth in range(100):
        pace.started(11 + tenth / 10)  # 10 a second
    pace.throttled(21.0, 22.0)
    assert 1 / pace.started(22.0) == pytest.approx(9.6, rel=0.01)
    assert 1 / pace.started(24.0) == pytest.approx(26, rel=0.05)


@pytest.mark.parametrize("rest_s", [600, 3600, 10**6])
def test_a_pace_outlives_a_long_rest(rest_s: float) -> None:
    """Every call after a quiet night would fail, since a number was too large."""
    pace = RateEstimator()
    starts_within(pace, 0.0, 10.0)
    pace.throttled(10.0, 11.0)
    pace.started(11.0)
    pace.throttled(21.0, 22.0)  # a rough guess, which grows quickly
    pace.started(22.0 + rest_s)
    assert pace.started(22.1 + rest_s) == 0, "forgotten"
    pace.throttled(22.2 + 2 * rest_s, 23.2 + 2 * rest_s)
    assert pace.started(24 + 2 * rest_s) > 0


@pytest.mark.parametrize("is_known", [False, True])
def test_what_was_asked_before_a_rest_tells_no_rate(is_known: bool) -> None:
    """A poller of every hour would crawl for a minute and a half after one pushback."""
    pace = RateEstimator()
    starts_within(pace, 0.0, 5.0)  # 1,000 a second
    if is_known:
        pace.throttled(5.0, 6.0)
        starts_within(pace, 6.0, 1.0)
    starts_within(pace, 3600.0, 1.0)
    pace.throttled(3601.0, 3602.0)
    assert 1 / pace.started(3602.0) > 500


def test_the_slowest_pace_is_one_start_in_ten_seconds() -> None:
    """A server that refuses each request would not be asked again for hours."""
    pace = RateEstimator()
    for began in (0.0, 1000.0, 2000.0):
        pace.started(began)
        pace.throttled(began + 0.1, began + 1000)
    assert pace.started(3000) == pytest.approx(10)


# --- against servers with a hidden limit ------------------------------------------------------------------------------


class Server(Protocol):
    """Serves a request, or says how long to wait."""

    async def answer(self) -> float | None: ...


class Bucket:
    """Bears so many requests a second, and says how long to wait beyond."""

    def __init__(self, rate: float) -> None:
        self.rate, self.tokens, self.at = rate, rate / 10, asyncio.get_running_loop().time()

    async def answer(self) -> float | None:
        now = asyncio.get_running_loop().time()
        self.tokens = min(self.rate / 10, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return 1.0
        self.tokens -= 1
        await asyncio.sleep(0.1)
        return None


class Windows:
    """Bears so many requests within each second of its own clock, and says how long to wait beyond."""

    def __init__(self, rate: float, ahead_s: float) -> None:
        self.rate, self.ahead_s, self.window, self.count = rate, ahead_s, 0, 0

    async def answer(self) -> float | None:
        window = int(asyncio.get_running_loop().time() + self.ahead_s)
        if window != self.window:
            self.window, self.count = window, 0
        if self.count >= self.rate:
            return 1.0
        self.count += 1
        await asyncio.sleep(0.1)
        return None


class Places:
    """Bears so many requests at once, and refuses more without a time."""

    def __init__(self, most: int) -> None:
        self.most, self.under_way = most, 0

    async def answer(self) -> float | None:
        if self.under_way >= self.most:
            return 0.0
        self.under_way += 1
        await asyncio.sleep(0.1)
        self.under_way -= 1
        return None


async def share_used(serve: Callable[[], Server], possible: float) -> tuple[float, float]:
    """Ask with all might for 40 s; return the share of what is possible that was used after 10 s, and of refusals."""
    answer = serve().answer
    throttle = Limiter(ThrottlePolicy())
    loop = asyncio.get_running_loop()
    rng = random.Random(1)
    began, good, refused = loop.time(), 0, 0

    async def worker() -> None:
        nonlocal good, refused
        while loop.time() < began + 40:
            place = await throttle.acquire()
            wait_s = await answer()
            is_counted = loop.time() > began + 10
            if wait_s is None:
                throttle.succeeded()
                good += is_counted
            else:
                throttle.throttled(place, wait_s)
                refused += is_counted
            throttle.release()
            if wait_s is not None:
                await asyncio.sleep(wait_s + rng.random() / 2)

    await asyncio.gather(*(worker() for _ in range(72)))
    return good / 30 / possible, refused / (good + refused)


def run(serve: Callable[[], Server], possible: float) -> tuple[float, float]:
    return run_by_clockwork(share_used(serve, possible), within_s=60)


def test_a_hidden_rate_is_found_and_used() -> None:
    """A guarded server would be stormed and paused in turn, at a quarter of what it bears."""
    used, refused = run(lambda: Bucket(200), 200)
    assert used > 0.9
    assert refused < 0.02


@pytest.mark.parametrize("rate", [60, 200, 260])
def test_a_rate_that_is_counted_in_windows_is_used_whenever_they_begin(rate: int) -> None:
    """Where a window ends soon, twice as much passes at first: such a pace would be left a tenth at a time."""
    for tenth in range(10):
        used, refused = run(lambda ahead_s=tenth / 10: Windows(rate, ahead_s), rate)  # type: ignore[misc]
        assert used > 0.9, (tenth, used)
        assert refused < 0.02, (tenth, refused)


def test_a_hidden_number_of_places_is_found_and_used() -> None:
    """A small server would be stormed, or left half idle."""
    used, refused = run(lambda: Places(8), 80)
    assert used > 0.8
    assert refused < 0.04
