"""Places for requests: bounded, first come first served, paused together, and never lost."""

from __future__ import annotations

import asyncio
import math
import random

import pytest

from podero_async import ConfigurationError, ThrottlePolicy
from podero_async._flow.limiter import Limiter, NoSlotError

pytestmark = pytest.mark.leaping


def fixed(most: int) -> Limiter:
    return Limiter(ThrottlePolicy(max_concurrency=most, adaptive=False))


async def test_no_more_than_the_limit_are_under_way() -> None:
    """The server would be asked harder than the caller allowed."""
    throttle = fixed(3)
    peak = 0

    async def request() -> None:
        nonlocal peak
        await throttle.acquire()
        peak = max(peak, throttle.in_flight)
        await asyncio.sleep(1)
        throttle.release()

    await asyncio.gather(*(request() for _ in range(20)))
    assert (peak, throttle.in_flight) == (3, 0)


async def test_places_go_to_who_waits_longest() -> None:
    """A request could wait for ever behind later ones."""
    throttle = fixed(1)
    await throttle.acquire()
    order: list[int] = []

    async def request(number: int) -> None:
        await throttle.acquire()
        order.append(number)
        throttle.release()

    waiting = [asyncio.create_task(request(number)) for number in range(5)]
    await asyncio.sleep(0)
    throttle.release()
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2, 3, 4]


async def test_cancelled_waiters_take_no_place() -> None:
    """Each cancelled request would cost the client a place for ever."""
    throttle = fixed(1)
    await throttle.acquire()
    tasks = [asyncio.create_task(throttle.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    throttle.release()  # goes to the second, whose task is cancelled before it runs again
    tasks[1].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert tasks[2].done()
    assert throttle.in_flight == 1
    throttle.release()
    assert (throttle.in_flight, len(throttle._waiters)) == (0, 0)


async def test_a_pause_holds_everybody() -> None:
    """One caller would wait as the server asked, and the others would go on storming."""
    throttle = fixed(10)
    loop = asyncio.get_running_loop()
    throttle.pause(5)
    throttle.pause(2)
    started = loop.time()
    await asyncio.gather(*(throttle.acquire() for _ in range(10)))
    assert loop.time() - started == pytest.approx(5, abs=0.1)
    assert throttle.pauses == 1
    throttle.pause(1)
    assert throttle.pauses == 2


async def test_a_pause_may_grow_while_it_is_waited_for() -> None:
    """The first timer would end a pause that the server has prolonged."""
    throttle = fixed(10)
    loop = asyncio.get_running_loop()
    started = loop.time()
    throttle.pause(5)
    waiting = asyncio.create_task(throttle.acquire())
    await asyncio.sleep(1)
    throttle.pause(10)
    await waiting
    assert loop.time() - started == pytest.approx(11, abs=0.1)


async def test_the_rate_is_kept_and_used() -> None:
    """A caller who promised 50 requests a second would send more, or far fewer."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=1000, requests_per_second=50))
    loop = asyncio.get_running_loop()
    starts = []

    async def request() -> None:
        await throttle.acquire()
        starts.append(loop.time())
        throttle.release()

    await asyncio.gather(*(request() for _ in range(200)))
    assert starts[-1] - starts[0] == pytest.approx(199 / 50, rel=0.02)
    for first in range(150):
        assert starts[first + 49] - starts[first] > 0.93


async def test_the_limit_grows_while_answers_are_good_and_it_is_used() -> None:
    """A client would stay slow on a server that bears more."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=64))
    assert throttle.limit == 32
    for _ in range(100):
        while throttle.in_flight < throttle.limit:
            await throttle.acquire()
        throttle.succeeded()
        throttle.release()
    assert throttle.limit == 64


@pytest.mark.parametrize(("in_flight", "limit"), [(1, 32), (15, 32), (16, 33)])
async def test_a_limit_that_is_not_half_used_does_not_grow(in_flight: int, limit: int) -> None:
    """A trickle of requests would open the gate for a storm."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=64))
    for _ in range(in_flight):
        await throttle.acquire()
    throttle.succeeded()
    assert throttle.limit == limit


async def test_after_a_cut_the_limit_grows_slowly_and_then_by_one_a_round() -> None:
    """A server that was just overloaded would be stormed again, or one that bears more since then be left half idle."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=128))
    throttle.throttled(await throttle.acquire())
    limits = {}
    for good in range(1, 2501):
        while throttle.take():
            pass
        throttle.succeeded()
        throttle.release()
        limits[good] = throttle.limit
    assert (limits[1], limits[190], limits[1000], limits[2500]) == (28, 29, 46, 71)


async def test_one_burst_of_pushbacks_halves_the_limit_at_most() -> None:
    """One second of overload would bring the client to a crawl."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=16))
    places = [await throttle.acquire() for _ in range(16)]
    throttle.throttled(places[0])
    assert throttle.limit == 14
    throttle.throttled(places[1])
    assert throttle.limit == 13
    for place in places[2:]:
        throttle.throttled(place)
    assert throttle.limit == 8
    for _ in places:
        throttle.release()
    throttle.throttled(await throttle.acquire())
    assert throttle.limit == 7


async def test_the_limit_never_falls_below_one() -> None:
    """The client would stop for good."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=2))
    for _ in range(20):
        place = await throttle.acquire()
        throttle.throttled(place)
        throttle.release()
    assert throttle.limit == 1
    place = await throttle.acquire()
    throttle.succeeded()
    throttle.release()


async def test_a_fixed_limit_stays() -> None:
    """`adaptive=False` would not be what it says; the pause is the server's word and still holds."""
    throttle = fixed(8)
    throttle.throttled(await throttle.acquire(), 3)
    assert (throttle.limit, throttle.pauses) == (8, 1)


async def test_an_outage_leaves_few_probes_and_ends_quickly() -> None:
    """A server that is down would be stormed, or one that is back be left idle."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=64))
    for _ in range(200):
        throttle.failed(await throttle.acquire())
        throttle.release()
    assert throttle.limit == 1
    for _ in range(64):
        while throttle.in_flight < throttle.limit:
            await throttle.acquire()
        throttle.succeeded()
        throttle.release()
    assert throttle.limit >= 60


async def test_a_server_that_refuses_everything_is_probed_like_one_that_is_down() -> None:
    """A minute of 429 without a time would be answered with hundreds of requests, and spend the retries of a fleet."""
    throttle, loop = Limiter(ThrottlePolicy(max_concurrency=64)), asyncio.get_running_loop()
    began, asked = loop.time(), 0
    while loop.time() < began + 60:
        throttle.throttled(await throttle.acquire())
        throttle.release()
        asked += 1
    assert asked < 30
    assert (throttle.is_in_outage, throttle.limit) == (True, 1)
    for _ in range(64):
        while throttle.in_flight < throttle.limit:
            await throttle.acquire()
        throttle.succeeded()
        throttle.release()
    assert (throttle.is_in_outage, throttle.limit) == (False, 29), "what was borne before, less a cut"


@pytest.mark.parametrize(("most", "faults"), [(4, 10), (64, 16)])
async def test_bad_luck_is_no_outage_yet(most: int, faults: int) -> None:
    """A few faults in a row would bring a fleet to a crawl, or an outage be noticed late."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=most))
    for number in range(1, faults + 1):
        throttle.failed(await throttle.acquire())
        throttle.release()
        assert throttle.is_in_outage == (number == faults)


async def test_the_third_burst_of_pushbacks_in_a_row_is_an_outage() -> None:
    """A server that is merely busy would be left idle, or one that refuses everything be stormed."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=64))
    for number in range(1, 4):
        throttle.throttled(await throttle.acquire())
        throttle.release()
        assert throttle.is_in_outage == (number == 3)


async def test_only_the_time_of_an_outage_wears_a_waiters_patience() -> None:
    """Who has waited for long behind a busy fleet would be turned away by the first faults."""
    loop, throttle = asyncio.get_running_loop(), Limiter(ThrottlePolicy(max_concurrency=1))
    place = await throttle.acquire()
    waiting = [asyncio.create_task(throttle.acquire(patience)) for patience in (7.0, 30.0, math.inf)]
    await asyncio.sleep(60)
    began = loop.time()
    for _ in range(10):
        throttle.failed(place)
    assert throttle.is_in_outage
    await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiting)
    await asyncio.sleep(8)
    throttle.failed(throttle._started + 1)
    with pytest.raises(NoSlotError):
        await asyncio.wait_for(waiting[0], 1)
    assert loop.time() - began == pytest.approx(8, abs=0.1)
    throttle.succeeded()
    throttle.release()
    await waiting[1]
    throttle.release()
    await waiting[2]


async def test_the_waits_of_an_outage_double_up_to_five_seconds() -> None:
    """A server that was away for a moment would be left idle for long, or one that is away for an hour be stormed."""
    throttle, loop = Limiter(ThrottlePolicy(max_concurrency=4)), asyncio.get_running_loop()
    for _ in range(10):
        throttle.failed(await throttle.acquire())
        throttle.release()
    waits = []
    for _ in range(7):
        began = loop.time()
        place = await throttle.acquire()
        waits.append(loop.time() - began)
        throttle.failed(place)
        throttle.release()
    assert waits == pytest.approx([0.25, 0.5, 1, 2, 4, 5, 5], abs=0.05)


async def test_faults_of_what_was_under_way_make_nobody_wait_longer() -> None:
    """A server that hiccups once under many requests would be left idle as if it had failed again and again."""
    throttle, loop = Limiter(ThrottlePolicy(max_concurrency=12)), asyncio.get_running_loop()
    began, places = loop.time(), [await throttle.acquire() for _ in range(12)]
    for place in places:
        throttle.failed(place)
        throttle.release()
    await throttle.acquire()
    assert loop.time() - began == pytest.approx(0.25, abs=0.05)


async def test_an_outage_with_pushbacks_among_its_faults_ends_quickly_too() -> None:
    """One 429 from a balancer that is just restarting would leave a fleet at a crawl for minutes."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=64))
    for number in range(40):
        place = await throttle.acquire()
        if number in {20, 39}:
            throttle.throttled(place)
        else:
            throttle.failed(place)
        throttle.release()
    for _ in range(64):
        while throttle.in_flight < throttle.limit:
            await throttle.acquire()
        throttle.succeeded()
        throttle.release()
    assert throttle.limit >= 60


async def test_a_probe_that_hangs_does_not_hold_up_the_next() -> None:
    """A server that is back would be left idle until a request ran into its timeout."""
    throttle, loop = Limiter(ThrottlePolicy(max_concurrency=64)), asyncio.get_running_loop()
    for _ in range(64):
        throttle.failed(await throttle.acquire())
        throttle.release()
    assert throttle.limit == 1
    began = loop.time()
    async with asyncio.timeout(60):
        places = [await throttle.acquire() for _ in range(4)]  # none of them is answered
    assert loop.time() - began == pytest.approx(20, abs=0.2)
    throttle.succeeded()  # but the last
    throttle.release()
    assert throttle.in_flight == 3
    assert throttle.take()
    for place in places[:3]:
        throttle.failed(place)
        throttle.release()
    async with asyncio.timeout(0.1):
        await throttle.acquire()


async def test_probes_that_hang_take_no_more_than_the_caller_allowed() -> None:
    """A server that answers nothing would be asked more and more at once."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=2))
    for _ in range(10):
        throttle.failed(await throttle.acquire())
        throttle.release()
    await throttle.acquire()
    await throttle.acquire()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await throttle.acquire()


async def test_a_probe_that_hung_is_followed_by_the_next_at_once() -> None:
    """After half a minute without an answer, a client would sit out another wait."""
    throttle, loop = Limiter(ThrottlePolicy(max_concurrency=1)), asyncio.get_running_loop()
    for _ in range(20):
        throttle.failed(await throttle.acquire())
        throttle.release()
    place = await throttle.acquire()
    await asyncio.sleep(30)
    throttle.failed(place)
    throttle.release()
    began = loop.time()
    await throttle.acquire()
    assert loop.time() - began == pytest.approx(0, abs=0.1)


async def test_a_minute_of_refusals_with_a_time_leaves_the_pace() -> None:
    """A fleet would be read at a crawl for minutes after it."""
    throttle, loop = Limiter(ThrottlePolicy(max_concurrency=64)), asyncio.get_running_loop()

    async def good_within(seconds: float) -> int:
        began, good = loop.time(), 0
        while loop.time() < began + seconds:
            await throttle.acquire()
            await asyncio.sleep(0.01)
            throttle.succeeded()
            throttle.release()
            good += 1
        return good

    before, began = await good_within(3) / 3, loop.time()
    while loop.time() < began + 60:
        throttle.throttled(await throttle.acquire(), 1.0)
        throttle.release()
    await throttle.acquire()
    throttle.succeeded()
    throttle.release()
    assert await good_within(3) / 3 > 0.8 * before


async def test_refusals_without_and_with_a_time_leave_a_learned_pace() -> None:
    """A server that names no time at first would be stormed again, each time as if nothing were known of it."""
    throttle, loop = Limiter(ThrottlePolicy(max_concurrency=64)), asyncio.get_running_loop()

    async def starts_within(seconds: float) -> int:
        end, starts = loop.time() + seconds, 0
        while loop.time() < end:
            await throttle.acquire()
            await asyncio.sleep(0.01)
            throttle.succeeded()
            throttle.release()
            starts += 1
        return starts

    await starts_within(5)
    throttle.throttled(await throttle.acquire(), 1.0)
    throttle.release()
    await starts_within(2)
    for wait_s in (None, 1.0, 1.0):
        throttle.throttled(await throttle.acquire(), wait_s)
        throttle.release()
    await starts_within(2)
    assert throttle._pace.started(loop.time()) > 0, "it is bounded still"


@pytest.mark.parametrize("wait_s", [None, 30.0])
async def test_an_outage_that_is_noticed_late_is_probed_at_once_unless_a_time_is_named(wait_s: float | None) -> None:
    """Whoever waits would do so until a request is given back that tells nothing any more; or ask before the time."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=4))
    for _ in range(2):
        throttle.throttled(await throttle.acquire())
        throttle.release()
    places = [await throttle.acquire() for _ in range(throttle.limit)]
    waiting = asyncio.create_task(throttle.acquire())
    await asyncio.sleep(6)
    assert not waiting.done()
    throttle.throttled(places[0], wait_s)
    await asyncio.sleep(0)
    assert throttle.is_in_outage
    assert waiting.done() is (wait_s is None)
    throttle.release()
    await asyncio.sleep(29)
    assert waiting.done() is (wait_s is None)
    await asyncio.sleep(2)
    assert waiting.done()


async def test_an_old_pushback_after_an_outage_leaves_the_limit_where_it_is() -> None:
    """A server that has just come back would be met with half of all there is at once."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=40))
    old = [await throttle.acquire() for _ in range(2)]
    throttle.throttled(old.pop())
    for _ in range(20):
        throttle.failed(old[0])
    assert throttle.is_in_outage
    throttle.succeeded()
    before = throttle.limit
    assert before < 5
    throttle.throttled(old[0])
    assert throttle.limit <= before


async def test_a_timer_is_brought_forward() -> None:
    """After an outage, places would be handed out once in five seconds."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=16, requests_per_second=10))
    for _ in range(16):
        throttle.failed(await throttle.acquire())
        throttle.release()
    await throttle.acquire()
    waiting = [asyncio.create_task(throttle.acquire()) for _ in range(2)]
    await asyncio.sleep(0)  # they wait for the next probe, five seconds from now
    throttle.succeeded()
    throttle.release()
    async with asyncio.timeout(1):
        await asyncio.gather(*waiting)


def test_the_shortest_waits_are_no_trouble_on_uvloop() -> None:
    """A fast fetch on the loop that the command line prefers would end in an error that nobody understands."""
    uvloop = pytest.importorskip("uvloop")

    async def requests() -> None:
        throttle = Limiter(ThrottlePolicy(max_concurrency=100, requests_per_second=5000))

        async def request() -> None:
            await throttle.acquire()
            throttle.release()

        await asyncio.gather(*(request() for _ in range(300)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(requests())


async def test_single_faults_leave_the_limit() -> None:
    """A server with one fault in twenty would be asked at a crawl."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=16))
    for number in range(400):
        place = await throttle.acquire()
        if number % 5 == 0:
            throttle.failed(place)
        else:
            throttle.succeeded()
        throttle.release()
    assert throttle.limit == 16


@pytest.mark.parametrize("seed", range(8))
async def test_no_place_is_ever_lost(seed: int) -> None:
    """After a day of cancellations the client would stand still."""
    rng = random.Random(seed)
    throttle = Limiter(ThrottlePolicy(max_concurrency=rng.randint(1, 8), requests_per_second=rng.choice([None, 100.0])))

    async def request() -> None:
        place = await throttle.acquire()
        try:
            await asyncio.sleep(rng.random())
            rng.choice([throttle.succeeded, lambda: throttle.throttled(place, 0.1), lambda: throttle.failed(place)])()
        finally:
            throttle.release()

    tasks = [asyncio.create_task(request()) for _ in range(100)]
    for _ in range(60):
        await asyncio.sleep(rng.random() / 5)
        rng.choice(tasks).cancel()
        assert throttle.in_flight <= throttle.ceiling
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (throttle.in_flight, len(throttle._waiters)) == (0, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_concurrency": 0},
        {"max_concurrency": True},
        {"max_concurrency": 1.5},
        {"requests_per_second": 0},
        {"requests_per_second": -1},
        {"requests_per_second": float("inf")},
    ],
)
def test_a_wrong_policy_is_refused_by_name(arguments: dict[str, float]) -> None:
    """A typo would show as a hang."""
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        ThrottlePolicy(**arguments)  # type: ignore[arg-type]


def test_the_least_that_is_allowed_is_taken() -> None:
    """A small server could not be asked one request at a time, or one in two seconds."""
    policy = ThrottlePolicy(max_concurrency=1, requests_per_second=0.5)
    assert (policy.max_concurrency, policy.requests_per_second) == (1, 0.5)


async def test_who_is_cancelled_as_the_client_closes_gives_back_no_place() -> None:
    """What is in flight would be counted below nothing."""
    throttle = Limiter(ThrottlePolicy(max_concurrency=1))
    await throttle.acquire()
    waiting = asyncio.create_task(throttle.acquire())
    await asyncio.sleep(0)
    throttle.close()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert throttle.in_flight == 1
