"""Slots for requests: bounded, granted in order of arrival, paused together, and never lost."""

from __future__ import annotations

import asyncio
import logging
import math
from itertools import pairwise

import pytest

from podero_async import ThrottlePolicy
from podero_async._flow.concurrency import ConcurrencyLimit
from podero_async._flow.limiter import Limiter
from podero_async._flow.queue import NoSlotError, Slot
from podero_async._flow.rate import RateEstimator

pytestmark = pytest.mark.leaping


def fixed(limit: int) -> Limiter:
    return Limiter(ThrottlePolicy(max_concurrency=limit, adaptive=False))


def adaptive(ceiling: int = 64) -> Limiter:
    return Limiter(ThrottlePolicy(max_concurrency=ceiling))


async def fail(limiter: Limiter, times: int = 1) -> None:
    """Report faults of requests that are sent one after the other."""
    for _ in range(times):
        slot = await limiter.acquire()
        limiter.failed(slot)
        limiter.release(slot)


async def throttle(limiter: Limiter, retry_after: float | None = None) -> None:
    slot = await limiter.acquire()
    limiter.throttled(slot, retry_after)
    limiter.release(slot)


async def succeed(limiter: Limiter, times: int) -> None:
    """Report successes of requests that use the limit up, and release all of their slots."""
    slots: list[Slot] = []
    for _ in range(times):
        if not slots:
            slots.append(await limiter.acquire())
        while slot := limiter.try_acquire() or limiter.try_acquire("another"):
            slots.append(slot)
        slot = slots.pop(0)
        limiter.succeeded(slot)
        limiter.release(slot)
    for slot in slots:
        limiter.release(slot)


async def successes_within(limiter: Limiter, seconds: float) -> int:
    """Send requests of 10 ms, one after the other; return how many."""
    loop, count = asyncio.get_running_loop(), 0
    end = loop.time() + seconds
    while loop.time() < end:
        slot = await limiter.acquire()
        await asyncio.sleep(0.01)
        limiter.succeeded(slot)
        limiter.release(slot)
        count += 1
    return count


# --- slots ------------------------------------------------------------------------------------------------------------


async def test_the_repr_shows_the_live_state() -> None:
    """Slots, queue, pause and circuit breaker are readable in a debugger or a log."""
    limiter = adaptive(2)
    await fail(limiter, 10)
    assert repr(limiter) == "<Limiter: 0 in flight, limit 2 of 2, 0 queued, breakers {'': 'open'}>"
    slot = await limiter.acquire()
    limiter.pause(4)
    waiting = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0)
    load = "<Limiter: 1 in flight, limit 2 of 2, 1 queued"
    assert repr(limiter) == f"{load}, paused for 4.0 s, breakers {{'': 'half-open'}}>"
    limiter.succeeded(slot)
    assert repr(limiter) == f"{load}, paused for 4.0 s, breakers closed>"
    assert await asyncio.to_thread(repr, limiter) == f"{load}>", "without a loop"
    waiting.cancel()


# --- pauses and rates -------------------------------------------------------------------------------------------------


async def test_a_pause_holds_all_callers() -> None:
    """Ten callers wait for the longer of two pauses, which count as one."""
    limiter = fixed(10)
    loop = asyncio.get_running_loop()
    limiter.pause(5)
    limiter.pause(2)
    started = loop.time()
    await asyncio.gather(*(limiter.acquire() for _ in range(10)))
    assert loop.time() - started == pytest.approx(5, abs=0.1)
    assert limiter.pauses == 1
    limiter.pause(1)
    assert limiter.pauses == 2


async def test_a_pause_can_be_prolonged_while_callers_wait() -> None:
    """If a second pause ends later, the timer of the first one grants nothing."""
    limiter = fixed(10)
    loop = asyncio.get_running_loop()
    started = loop.time()
    limiter.pause(5)
    waiting = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(1)
    limiter.pause(10)
    await waiting
    assert loop.time() - started == pytest.approx(11, abs=0.1)


async def test_a_fixed_rate_is_kept_and_used() -> None:
    """200 requests at 50 a second take four seconds, and 50 of them in a row at least 0.93 s."""
    limiter = Limiter(ThrottlePolicy(max_concurrency=1000, requests_per_second=50))
    loop = asyncio.get_running_loop()
    starts = []

    async def request() -> None:
        slot = await limiter.acquire()
        starts.append(loop.time())
        limiter.release(slot)

    await asyncio.gather(*(request() for _ in range(200)))
    assert starts[-1] - starts[0] == pytest.approx(199 / 50, rel=0.02)
    for first in range(150):
        assert starts[first + 49] - starts[first] > 0.93


async def test_a_fixed_rate_can_be_changed() -> None:
    """Ten requests at 10 a second and, after a change, ten at 2 a second take 6 s."""
    limiter, loop = Limiter(ThrottlePolicy(requests_per_second=10)), asyncio.get_running_loop()
    began = loop.time()
    for number in range(21):
        if number == 10:
            limiter.rate_limit.set(2)
        limiter.release(await limiter.acquire())
    assert loop.time() - began == pytest.approx(1 + 10 / 2, abs=0.1)


def test_intervals_below_a_millisecond_work_on_uvloop() -> None:
    """A rate of 5,000 a second is served on uvloop, whose timers count milliseconds."""
    uvloop = pytest.importorskip("uvloop")

    async def requests() -> None:
        limiter = Limiter(ThrottlePolicy(max_concurrency=100, requests_per_second=5000))

        async def request() -> None:
            limiter.release(await limiter.acquire())

        await asyncio.gather(*(request() for _ in range(300)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(requests())


async def test_a_minute_of_throttling_with_a_time_leaves_the_rate_as_it_was() -> None:
    """If a server accepts nothing for a minute, no rate is learned from that: afterwards requests are as fast as before."""
    limiter, loop = adaptive(), asyncio.get_running_loop()
    before, began = await successes_within(limiter, 3), loop.time()
    while loop.time() < began + 60:
        await throttle(limiter, 1.0)
    await succeed(limiter, 1)
    assert await successes_within(limiter, 3) > 0.8 * before


async def test_throttling_without_and_with_a_time_keeps_a_learned_rate() -> None:
    """A learned rate is kept through throttling responses without a time, and through those after no success."""
    rate = RateEstimator()
    limiter = Limiter(ThrottlePolicy(max_concurrency=2), rate=rate)
    await successes_within(limiter, 5)
    await throttle(limiter, 1.0)
    await successes_within(limiter, 2)
    for retry_after in (None, 1.0, 1.0):
        await throttle(limiter, retry_after)
    await successes_within(limiter, 2)
    assert rate.started(asyncio.get_running_loop().time()) > 0


# --- the adaptive limit -----------------------------------------------------------------------------------------------


async def test_the_limit_grows_to_its_ceiling_while_requests_succeed() -> None:
    """From 32, 32 successes under full use raise the limit to 64."""
    limiter = adaptive(64)
    assert limiter.limit == 32
    await succeed(limiter, 32)
    assert limiter.limit == 64
    await succeed(limiter, 10)
    assert limiter.limit == 64


@pytest.mark.parametrize(("in_flight", "limit"), [(1, 32), (15, 32), (16, 33)])
async def test_the_limit_grows_only_if_half_of_it_is_in_use(in_flight: int, limit: int) -> None:
    """While fewer slots than half of the limit are taken, successes leave the limit as it is."""
    limiter = adaptive()
    slots = [await limiter.acquire() for _ in range(in_flight)]
    limiter.succeeded(slots[0])
    assert limiter.limit == limit


async def test_after_a_cut_the_limit_grows_slowly_at_first_and_then_by_one_a_round() -> None:
    """After a cut, the limit's first increments take several rounds of successes, later ones one round, and none less."""
    limiter = adaptive(128)
    slots = [await limiter.acquire() for _ in range(16)]
    await throttle(limiter)
    for slot in slots:
        limiter.release(slot)
    steps = [0]
    for number in range(1, 2501):
        before = limiter.limit
        await succeed(limiter, 1)
        if limiter.limit > before:
            steps.append(number)
    rounds = [(later - earlier) / (28 + index) for index, (earlier, later) in enumerate(pairwise(steps))]
    assert rounds[1] > 3
    assert rounds[-1] == pytest.approx(1, abs=0.05)
    assert min(rounds) >= 0.95


async def test_a_burst_of_throttling_halves_the_limit_at_most() -> None:
    """The first response of a burst costs a tenth of the limit, each further one a slot; the next burst cuts again."""
    limiter = adaptive(16)
    slots = [await limiter.acquire() for _ in range(16)]
    limits = []
    for slot in slots:
        limiter.throttled(slot)
        limits.append(limiter.limit)
    assert limits == [14, 13, 12, 11, 10, 9, *[8] * 10]
    for slot in slots:
        limiter.release(slot)
    await throttle(limiter)
    assert limiter.limit == 7


async def test_the_limit_never_falls_below_one() -> None:
    """Twenty bursts of throttling leave one slot, so requests still go out."""
    limit = ConcurrencyLimit(2, is_adaptive=True)
    for _ in range(20):
        limit.cut(1, is_new_burst=True)
    assert limit.value == 1


@pytest.mark.parametrize(("in_flight", "grown"), [(1, 33), (16, 28)])
async def test_throttling_of_an_unused_limit_does_not_slow_its_growth(in_flight: int, grown: int) -> None:
    """If one request in a quiet hour is throttled, the next burst of calls finds its slots as quickly as ever."""
    limiter = adaptive()
    slots = [await limiter.acquire() for _ in range(in_flight)]
    limiter.throttled(slots[0])
    assert limiter.limit == 28
    for slot in slots:
        limiter.release(slot)
    await succeed(limiter, 5)
    assert limiter.limit == grown


async def test_a_fixed_limit_does_not_adapt_but_pauses() -> None:
    """If `adaptive` is False, neither throttling nor faults change the limit or open the circuit breaker."""
    limiter = fixed(8)
    slot = await limiter.acquire()
    limiter.throttled(slot, 3)
    for _ in range(40):
        limiter.failed(slot)
    assert (limiter.limit, limiter.pauses, limiter.breakers.has_open) == (8, 1, False)


async def test_single_faults_leave_the_limit() -> None:
    """If one request in five fails, the limit stays as it is."""
    limiter = adaptive(16)
    for number in range(400):
        slot = await limiter.acquire()
        if number % 5 == 0:
            limiter.failed(slot)
        else:
            limiter.succeeded(slot)
        limiter.release(slot)
    assert limiter.limit == 16


# --- with circuit breakers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("throttled", [set(), {20, 39}], ids=["faults only", "throttling among the faults"])
async def test_faults_in_a_row_leave_one_probe_and_successes_restore_the_speed(throttled: set[int]) -> None:
    """After 40 faults in a row one probe is sent at a time; 64 successes restore the limit, even after two stray 429."""
    limiter = adaptive(64)
    before = limiter.limit
    for number in range(40):
        await (throttle(limiter) if number in throttled else fail(limiter))
    await asyncio.sleep(5)
    probe = await limiter.acquire()
    assert limiter.try_acquire() is None
    limiter.succeeded(probe)
    limiter.release(probe)
    await succeed(limiter, 64)
    assert limiter.limit >= before
    assert not limiter.breakers.has_open
    assert all(limiter.try_acquire() or limiter.try_acquire("another") for _ in range(limiter.limit))


async def test_a_server_that_throttles_everything_gets_probes_only() -> None:
    """A minute of 429 without `Retry-After` costs under 30 requests; then the limit returns to 0.9 of the old one."""
    limiter, loop = adaptive(64), asyncio.get_running_loop()
    began, requests = loop.time(), 0
    while loop.time() < began + 60:
        await throttle(limiter)
        requests += 1
    assert requests < 30
    assert limiter.breakers.has_open
    await succeed(limiter, 64)
    assert (limiter.breakers.has_open, limiter.limit) == (False, 29)


async def test_an_open_breaker_ends_the_wait_of_callers_by_their_own_bounds() -> None:
    """A bulk caller's bound counts from the opening of the breaker until a probe fails;
    an interactive one's counts in all.
    """
    loop, limiter = asyncio.get_running_loop(), adaptive(1)
    slot = await limiter.acquire()
    bulk = [asyncio.create_task(limiter.acquire(is_bulk=True, left_s=left_s)) for left_s in (7.0, 30.0, math.inf)]
    await asyncio.sleep(60)
    began = loop.time()
    for _ in range(10):
        limiter.failed(slot, "HTTP 503: maintenance")
    with pytest.raises(NoSlotError, match=r"have failed for 2\.0 s, the last with HTTP 503: maintenance"):
        await limiter.acquire(left_s=2.0)
    await asyncio.sleep(6)
    assert not any(waiter.done() for waiter in bulk)
    limiter.failed(Slot(slot.number + 1, slot.breaker, is_probe=True))
    with pytest.raises(NoSlotError, match=r"have failed for 8\.0 s"):
        await asyncio.wait_for(bulk[0], 1)
    assert loop.time() - began == pytest.approx(8, abs=0.1)
    limiter.succeeded(slot)
    for waiter in bulk[1:]:
        limiter.release(slot)
        slot = await waiter


async def test_endpoints_fail_by_themselves() -> None:
    """While all requests for sessions fail, other requests start at once, and pass those that wait."""
    limiter = adaptive(12)
    for _ in range(12):
        slot = await limiter.acquire("sessions")
        limiter.failed(slot)
        limiter.release(slot)
    waiting = [asyncio.create_task(limiter.acquire("sessions", is_bulk=is_bulk)) for is_bulk in (False, True)]
    await asyncio.sleep(0.01)
    for _ in range(11):
        assert (await asyncio.wait_for(limiter.acquire("current"), 0.01)).breaker.endpoint == "current"
    assert limiter.queued == 2
    states = {
        endpoint: state.value for endpoint, state in limiter.breakers.states(asyncio.get_running_loop().time()).items()
    }
    assert states == {"sessions": "open", "current": "closed"}
    await waiting[0]
    assert not waiting[1].done(), "the interactive caller is the next probe"
    waiting[1].cancel()


async def test_callers_wait_for_the_next_probe() -> None:
    """After twelve faults in a row the next slot is granted 0.25 s later, and the one after that 0.5 s later."""
    limiter, loop = adaptive(12), asyncio.get_running_loop()
    slots = [await limiter.acquire() for _ in range(12)]
    for slot in slots:
        limiter.failed(slot)
        limiter.release(slot)
    for wait_s in (0.25, 0.5):
        began = loop.time()
        await fail(limiter)
        assert loop.time() - began == pytest.approx(wait_s, abs=0.05)


async def test_a_probe_that_hangs_does_not_hold_up_the_next() -> None:
    """While probes hang, another is sent every five seconds; after one success, slots are granted although others hang."""
    limiter, loop = adaptive(64), asyncio.get_running_loop()
    await fail(limiter, 64)
    began = loop.time()
    async with asyncio.timeout(60):
        slots = [await limiter.acquire() for _ in range(4)]
    assert loop.time() - began == pytest.approx(20, abs=0.2)
    limiter.succeeded(slots[3])
    limiter.release(slots[3])
    assert limiter.in_flight == 3
    assert limiter.try_acquire()
    for slot in slots[:3]:
        limiter.failed(slot)
        limiter.release(slot)
    async with asyncio.timeout(0.1):
        await limiter.acquire()


async def test_probes_that_hang_never_exceed_the_ceiling() -> None:
    """If the ceiling is 2, no third probe is sent beside two that hang."""
    limiter = adaptive(2)
    await fail(limiter, 10)
    await limiter.acquire()
    await limiter.acquire()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await limiter.acquire()


@pytest.mark.parametrize("wait_s", [None, 30.0])
async def test_a_breaker_that_opens_late_sends_a_probe_at_once_unless_a_time_is_named(wait_s: float | None) -> None:
    """A caller gets a slot beside requests that hang: at once, or when the `Retry-After` has passed."""
    limiter = adaptive(4)
    await throttle(limiter)
    await throttle(limiter)
    slots = [await limiter.acquire() for _ in range(limiter.limit)]
    waiting = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(6)
    assert not waiting.done()
    limiter.throttled(slots[0], wait_s)
    await asyncio.sleep(0)
    assert limiter.breakers.has_open
    assert waiting.done() is (wait_s is None)
    limiter.release(slots[0])
    await asyncio.sleep(29)
    assert waiting.done() is (wait_s is None)
    await asyncio.sleep(2)
    assert waiting.done()


async def test_a_timer_is_brought_forward_when_the_breaker_closes() -> None:
    """When a success closes the breaker, callers that waited for the next probe get their slots."""
    limiter = Limiter(ThrottlePolicy(max_concurrency=16, requests_per_second=10))
    await fail(limiter, 16)
    probe = await limiter.acquire()
    waiting = [asyncio.create_task(limiter.acquire()) for _ in range(2)]
    await asyncio.sleep(0)  # they wait for the next probe, five seconds from now
    limiter.succeeded(probe)
    limiter.release(probe)
    async with asyncio.timeout(1):
        await asyncio.gather(*waiting)


# --- two classes of calls ---------------------------------------------------------------------------------------------


async def test_interactive_callers_go_first_but_leave_bulk_callers_a_share() -> None:
    """Of 40 interactive callers and 5 bulk callers that wait, each eighth slot goes to a bulk caller."""
    limiter = fixed(1)
    slot = await limiter.acquire()
    order: list[bool] = []

    async def request(is_bulk: bool) -> None:
        granted = await limiter.acquire(is_bulk=is_bulk)
        order.append(is_bulk)
        limiter.release(granted)

    tasks = [asyncio.create_task(request(is_bulk)) for is_bulk in [True] * 5 + [False] * 40]
    await asyncio.sleep(0)
    assert (limiter.queue.size, limiter.queue.interactive) == (45, 40)
    limiter.release(slot)
    await asyncio.gather(*tasks)
    assert [number for number, is_bulk in enumerate(order) if is_bulk] == [7, 15, 23, 31, 39]


async def test_under_a_rate_an_interactive_caller_waits_one_interval_at_most() -> None:
    """However many bulk callers are queued at ten requests a second, an interactive call starts within 0.1 s."""
    limiter, loop = Limiter(ThrottlePolicy(requests_per_second=10)), asyncio.get_running_loop()
    bulk = [asyncio.create_task(limiter.acquire(is_bulk=True)) for _ in range(72)]
    for _ in range(10):
        await asyncio.sleep(0.13)
        began = loop.time()
        limiter.release(await limiter.acquire())
        assert loop.time() - began < 0.101
    for task in bulk:
        task.cancel()


async def test_bulk_callers_leave_slots_of_a_large_limit_to_interactive_callers() -> None:
    """If bulk requests hang in 20 slots or more, a call to their endpoint starts at once, and from 32 slots on one to another too."""
    for limit, left in ((19, 0), (20, 1), (31, 1), (32, 2), (64, 2)):
        limiter = fixed(limit)
        while limiter.try_acquire("sessions", is_bulk=True):
            pass
        assert limiter.in_flight == limit - left
        assert (limiter.try_acquire("sessions") is not None) is (left > 0)
        assert limiter.try_acquire("sessions") is None
        assert (limiter.try_acquire("another") is not None) is (left > 1)


async def test_an_adapted_limit_of_eight_has_a_reserve() -> None:
    """Below its ceiling a limit of 8 leaves one slot to interactive callers, since it may grow by it."""
    limiter = Limiter(ThrottlePolicy(max_concurrency=64))
    while limiter.limit > 8:
        slot = await limiter.acquire()
        limiter.throttled(slot)
        limiter.succeeded(slot)
        limiter.release(slot)
    while limiter.try_acquire("sessions", is_bulk=True):
        pass
    assert limiter.in_flight == limiter.limit - 1 == 7
    assert limiter.try_acquire("current") is not None


async def test_the_reserve_of_interactive_callers_starves_no_bulk_caller() -> None:
    """If interactive callers of two endpoints take every slot that is free, bulk callers still get one in eight."""
    limiter = fixed(32)
    granted = {True: 0, False: 0}

    async def call(endpoint: str, *, is_bulk: bool) -> None:
        while True:
            slot = await limiter.acquire(endpoint, is_bulk=is_bulk)
            granted[is_bulk] += 1
            await asyncio.sleep(0.1)
            limiter.release(slot)

    callers = [asyncio.create_task(call(endpoint, is_bulk=False)) for endpoint in ("current", "user") * 40]
    callers += [asyncio.create_task(call("sessions", is_bulk=True)) for _ in range(40)]
    await asyncio.sleep(10)
    for caller in callers:
        caller.cancel()
    assert granted[True] >= sum(granted.values()) / 8 - 10


@pytest.mark.parametrize(("limit", "granted"), [(31, 31), (32, 28), (64, 56)])
async def test_interactive_calls_to_one_endpoint_leave_slots_to_the_others(limit: int, granted: int) -> None:
    """Of 100 calls that hang, seven eighths of a large limit get slots;
    a call to another endpoint passes those that wait.
    """
    limiter = fixed(limit)
    hanging = [asyncio.create_task(limiter.acquire("current")) for _ in range(100)]
    await asyncio.sleep(0)
    assert limiter.in_flight == granted
    for _ in range(limit - granted):
        await limiter.acquire("user", left_s=1.0)
    for task in hanging[:2]:
        limiter.release(task.result())
    await asyncio.sleep(0)
    assert sum(task.done() for task in hanging) == granted + 2, "slots that are given back go to those that wait"


async def test_an_interactive_caller_waits_no_longer_than_its_bound() -> None:
    """An interactive caller fails after its own seconds in the queue, or at once if a pause is known to last longer."""
    limiter, loop = fixed(1), asyncio.get_running_loop()
    slot = await limiter.acquire()
    began = loop.time()
    with pytest.raises(NoSlotError, match="no slot was free") as caught:
        await limiter.acquire(left_s=2.0)
    assert (loop.time() - began, caught.value.retry_after) == (pytest.approx(2, abs=0.01), None)
    waiting = asyncio.create_task(limiter.acquire(left_s=2.0))
    bulk = asyncio.create_task(limiter.acquire(is_bulk=True, left_s=2.0))
    await asyncio.sleep(0)
    limiter.pause(6)
    for late in (waiting, limiter.acquire(left_s=5.0)):
        with pytest.raises(NoSlotError, match="pause for longer") as caught:
            await late
        assert caught.value.retry_after == pytest.approx(6, abs=0.01)
    assert loop.time() - began == pytest.approx(2, abs=0.01)
    assert limiter.queued == 1
    limiter.release(slot)
    await bulk
    assert loop.time() - began == pytest.approx(8, abs=0.01), "its queue is the caller's own doing"


async def test_a_pause_and_a_learned_rate_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """One line says for how long all requests pause and why, and one line says the learned rate."""
    limiter = adaptive(4)
    with caplog.at_level(logging.INFO, "podero_async"):
        slots = [await limiter.acquire() for _ in range(4)]
        await asyncio.sleep(1)
        for slot in slots:
            limiter.throttled(slot, 2.0, "HTTP 429: slowly")
            limiter.release(slot)
    pause, rate = (record.getMessage() for record in caplog.records)
    assert pause == "all requests pause for 2.0 s, as the server asked: HTTP 429: slowly"
    assert rate.startswith("requests are limited to ")
    assert limiter.rate_limit.bound(asyncio.get_running_loop().time()) < 4
