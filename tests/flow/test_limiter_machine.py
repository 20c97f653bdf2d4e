"""The limiter with its breaker and rate, under any order of events: no slot is lost, and no caller is forgotten."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from podero_async import ConfigurationError, ThrottlePolicy
from podero_async._flow.limiter import Limiter
from podero_async._flow.queue import NoSlotError, Slot
from podero_async._flow.rate import RateEstimator
from tests._support.fake_clock import LoopMachine, run_machine

_TOLERANCE_S = 1e-6  # a timer may be early by this much
_BURST_S = 0.01  # a rate may make up for this delay
_MIN_FAULTS, _MIN_BURSTS = 10, 3  # in a row: fewer open no breaker
_MAX_INTERVAL_S = 10.0
_MAX_PAUSE_S = 30.0
_MAX_IN_A_ROW = 7  # interactive callers that go before a bulk caller
_MIN_LIMIT_WITH_FREE_RESERVE, _MIN_LIMIT_WITH_BULK_RESERVE, _MIN_LIMIT_WITH_RESERVE = 8, 20, 32

_ENDPOINTS = ("sessions", "current")
_ENDPOINT = st.sampled_from(_ENDPOINTS)
_WHICH = st.integers(0, 63)
_COUNT = st.sampled_from([1, 1, 3, 12])
_SECONDS = st.sampled_from([0.001, 0.02, 0.25, 1.0, 6.0, _MAX_PAUSE_S])


@attrs.define(eq=False)
class Caller:
    """A caller that asks for a slot. It has its own endpoint, class and patience."""

    endpoint: str
    is_bulk: bool
    left_s: float
    asked_at: float
    task: asyncio.Task[None] | None = None
    is_queued: bool = False
    """Whether it was seen in the queue: later callers must not overtake it."""


class WatchedRate(RateEstimator):
    """A rate estimator that checks each start: the limiter reports all of them."""

    def __init__(self, check_start: Callable[[float, float], None]) -> None:
        super().__init__()
        self._check_start = check_start
        self._was_throttled = False

    def started(self, now: float, *, is_filled: bool = True) -> float:
        interval = super().started(now, is_filled=is_filled)
        assert 0 <= interval <= _MAX_INTERVAL_S + _TOLERANCE_S
        assert self._was_throttled or not interval, "a bound that no throttling response asked for"
        self._check_start(now, interval)
        return interval

    def throttled(self, now: float, resume_at: float, *, tells_rate: bool = True, min_starts: int = 1) -> None:
        self._was_throttled = True
        super().throttled(now, resume_at, tells_rate=tells_rate, min_starts=min_starts)


class LimiterMachine(LoopMachine):
    """Asks for slots, ends requests, cancels and pauses, before or after other tasks have run."""

    @initialize(
        ceiling=st.sampled_from([1, 2, 5, 20, 40]),
        adaptive=st.booleans(),
        rate=st.sampled_from([None, None, 2.0, 150.0]),
        pool=st.sampled_from([None, None, None, 4]),
        ends_closed=st.booleans(),
    )
    def make(self, ceiling: int, adaptive: bool, rate: float | None, pool: int | None, ends_closed: bool) -> None:
        policy = ThrottlePolicy(max_concurrency=ceiling, adaptive=adaptive, requests_per_second=rate)
        self.limiter = Limiter(policy, ceiling=pool, rate=WatchedRate(self._check_start))
        self.ceiling = min(ceiling, pool or ceiling)
        self.adaptive = adaptive
        self.min_interval_s = 1 / rate if rate else 0.0
        self.ends_closed = ends_closed
        self.is_closed = False
        self.is_settled = True
        self.callers: list[Caller] = []  # without a slot, in order of arrival
        self.granted: list[tuple[Slot, Caller]] = []  # since the last check
        self.slots: list[Slot] = []  # of the requests in flight
        self.faults: Counter[str] = Counter()  # by endpoint, since its last success
        self.throttlings: Counter[str] = Counter()
        self.interactive_in_a_row = 0
        self.paused_until = self.rate_until = -math.inf

    # --- callers ---

    @rule(
        count=st.sampled_from([1, 3, 12, 20]),
        endpoint=_ENDPOINT,
        is_bulk=st.booleans(),
        left_s=st.sampled_from([math.inf, math.inf, 0.5, 5.0, 60.0]),
    )
    def ask(self, count: int, endpoint: str, is_bulk: bool, left_s: float) -> None:
        for _ in range(count):
            caller = Caller(endpoint, is_bulk, left_s, self.loop.time())
            caller.task = self.spawn(self._request(caller))
            self.callers.append(caller)
        self.is_settled = False

    async def _request(self, caller: Caller) -> None:
        caller.asked_at = now = self.loop.time()
        try:
            slot = await self.limiter.acquire(caller.endpoint, is_bulk=caller.is_bulk, left_s=caller.left_s)
        except ConfigurationError:
            assert self.is_closed
            return
        except NoSlotError as error:
            waited_s = self.loop.time() - now
            if caller.is_bulk:
                assert error.is_outage
                assert waited_s > caller.left_s - _TOLERANCE_S
            else:
                is_paused_beyond = self.paused_until > now + caller.left_s - _TOLERANCE_S
                assert is_paused_beyond or waited_s > caller.left_s - _TOLERANCE_S
            self.callers.remove(caller)
            return
        assert slot.breaker.endpoint == caller.endpoint
        self.granted.append((slot, caller))

    @rule(endpoint=_ENDPOINT, is_bulk=st.booleans())
    def try_acquire(self, endpoint: str, is_bulk: bool) -> None:
        is_queue_empty = not self.limiter.queued
        with self.loop.at_once():
            slot = self.limiter.try_acquire(endpoint, is_bulk=is_bulk)
        if slot is not None:
            assert is_queue_empty, "the queue was overtaken"
            self.slots.append(slot)
        elif self.is_settled:
            may_start = self._may_start(endpoint, is_bulk=is_bulk)
            assert not is_queue_empty or not may_start or self._is_blocked(), "refused for no reason"

    @precondition(lambda self: self.callers)
    @rule(which=_WHICH)
    def cancel(self, which: int) -> None:
        self._cancel(self.callers[which % len(self.callers)])

    @precondition(lambda self: self.slots and any(caller.is_queued for caller in self.callers))
    @rule(which=_WHICH, count=_COUNT)
    def cancel_just_after_the_grant(self, which: int, count: int) -> None:
        self.succeed(which, count, at_once=True)
        for caller in [caller for caller in self.callers if caller.is_queued][:count]:
            self._cancel(caller)

    def _cancel(self, caller: Caller) -> None:
        assert caller.task is not None
        caller.task.cancel()
        self.callers.remove(caller)
        self.interactive_in_a_row += not caller.is_bulk  # it may have been granted a slot that was not seen here
        self.is_settled = False

    # --- how requests end ---

    @precondition(lambda self: self.slots)
    @rule(which=_WHICH, count=_COUNT, at_once=st.booleans())
    def succeed(self, which: int, count: int, at_once: bool) -> None:
        def report(slot: Slot) -> None:
            before = self.limiter.limit
            self.limiter.succeeded(slot)
            self.faults[slot.breaker.endpoint] = self.throttlings[slot.breaker.endpoint] = 0
            assert before <= self.limiter.limit <= before + 1
            assert slot.breaker.is_closed

        self._end(which, count, report, at_once=at_once)

    @precondition(lambda self: self.slots)
    @rule(which=_WHICH, count=_COUNT, at_once=st.booleans(), seconds=st.none() | _SECONDS)
    def throttle(self, which: int, count: int, at_once: bool, seconds: float | None) -> None:
        def report(slot: Slot) -> None:
            before, was_closed = self.limiter.limit, slot.breaker.is_closed
            are_few = self.limiter.is_adaptive and min(before, slot.breaker.max_in_flight) <= 2
            pause_s = 1.0 if seconds is None and are_few else seconds
            self.limiter.throttled(slot, seconds)
            self.throttlings[slot.breaker.endpoint] += 1
            assert self.limiter.limit <= before or (was_closed and not slot.breaker.is_closed)
            if was_closed and self.throttlings[slot.breaker.endpoint] < _MIN_BURSTS:
                assert self.limiter.limit >= before // 2, "cut too deep"
            if pause_s:
                self.paused_until = max(self.paused_until, self.loop.time() + pause_s)

        self._end(which, count, report, at_once=at_once)

    @precondition(lambda self: self.slots)
    @rule(which=_WHICH, count=_COUNT, at_once=st.booleans())
    def fail(self, which: int, count: int, at_once: bool) -> None:
        def report(slot: Slot) -> None:
            before, was_closed = self.limiter.limit, slot.breaker.is_closed
            is_another_down = any(self.limiter.breakers[endpoint].is_down for endpoint in _ENDPOINTS)
            self.limiter.failed(slot)
            self.faults[slot.breaker.endpoint] += 1
            assert self.limiter.limit == before, "a fault says nothing about the number of requests"
            if was_closed and self.faults[slot.breaker.endpoint] < _MIN_FAULTS and not is_another_down:
                assert slot.breaker.is_closed, "opened after few faults"

        self._end(which, count, report, at_once=at_once)

    @rule(count=st.sampled_from([5, 12, 20]), endpoint=_ENDPOINT)
    def fail_one_by_one(self, count: int, endpoint: str) -> None:
        for _ in range(count):
            self.try_acquire(endpoint, is_bulk=False)
            if self.slots:
                self.fail(0, 1, at_once=True)

    def _end(self, which: int, count: int, report: Callable[[Slot], None], *, at_once: bool) -> None:
        """Report the outcome of some requests, and release their slots, at once or after other tasks have run."""
        ended = [self.slots.pop(which % len(self.slots)) for _ in range(min(count, len(self.slots)))]
        for slot in ended:
            with self.loop.at_once():
                report(slot)
                if at_once:
                    self.limiter.release(slot)
        if not at_once:
            self.slots += ended
            self.wait(0.0)
            for slot in ended:
                self.slots.remove(slot)
                with self.loop.at_once():
                    self.limiter.release(slot)
        self.is_settled = False

    @rule(seconds=_SECONDS)
    def pause(self, seconds: float) -> None:
        self.paused_until = max(self.paused_until, self.loop.time() + seconds)
        with self.loop.at_once():
            self.limiter.pause(seconds)

    @rule(seconds=_SECONDS)
    def lag(self, seconds: float) -> None:
        self.loop.lag(seconds)
        self.is_settled = False

    # --- invariants ---

    @rule(seconds=st.just(0.0) | _SECONDS)
    def wait(self, seconds: float) -> None:
        self.step(seconds)
        self._check_order()
        self.is_settled = True
        assert self.limiter.in_flight == len(self.slots)
        for endpoint in _ENDPOINTS:
            in_flight = sum(slot.breaker.endpoint == endpoint for slot in self.slots)
            assert self.limiter.breakers[endpoint].in_flight == in_flight
            interactive = sum(slot.breaker.endpoint == endpoint and not slot.is_bulk for slot in self.slots)
            assert self.limiter.breakers[endpoint].interactive_in_flight == interactive
        assert self.limiter.queue.size == len(self.callers)
        assert self.limiter.queue.interactive == sum(not caller.is_bulk for caller in self.callers)
        for caller in self.callers:
            assert self._is_blocked() or not self._may_start(caller.endpoint, is_bulk=caller.is_bulk), "forgotten"
            has_time = caller.is_bulk or self.loop.time() < caller.asked_at + caller.left_s + _TOLERANCE_S
            assert has_time, "an interactive caller waits beyond its bound"
        assert 1 <= self.limiter.limit <= self.ceiling == self.limiter.ceiling
        assert self.adaptive or (self.limiter.limit == self.ceiling and not self.limiter.breakers.has_open)
        with self.loop.at_once():
            assert self.limiter.paused_s == pytest.approx(max(0.0, self.paused_until - self.loop.time()))

    def _check_order(self) -> None:
        """Check that no caller overtook another of its class and endpoint, and that interactive callers went first."""
        for slot, caller in sorted(self.granted, key=lambda granted: granted[0].number):
            for other in self.callers[: self.callers.index(caller)]:
                is_behind = other.is_queued and other.endpoint == caller.endpoint and other.is_bulk == caller.is_bulk
                assert not is_behind, "overtaken"
            passed = any(
                other.is_queued and not other.is_bulk and other.endpoint == caller.endpoint for other in self.callers
            )
            assert not (caller.is_bulk and caller.is_queued and passed) or self.interactive_in_a_row >= _MAX_IN_A_ROW
            self.interactive_in_a_row = 0 if caller.is_bulk else self.interactive_in_a_row + 1
            self.callers.remove(caller)
            self.slots.append(slot)
        self.granted.clear()
        for caller in self.callers:
            caller.is_queued = True

    def _may_start(self, endpoint: str, *, is_bulk: bool) -> bool:
        """Return whether a caller has a slot and its breaker lets it start."""
        breaker, now = self.limiter.breakers[endpoint], self.loop.time() - _TOLERANCE_S
        limit = self.limiter.limit
        has_reserve = limit >= _MIN_LIMIT_WITH_RESERVE
        least = _MIN_LIMIT_WITH_FREE_RESERVE if limit < self.limiter.ceiling else _MIN_LIMIT_WITH_BULK_RESERVE
        bulk = sum(slot.is_bulk for slot in self.slots)
        has_slot = self.limiter.in_flight < limit and not (is_bulk and bulk >= limit - (limit >= least) - has_reserve)
        if not is_bulk and has_reserve:
            of_endpoint = [slot for slot in self.slots if slot.breaker is breaker]
            interactive = sum(not slot.is_bulk for slot in of_endpoint)
            has_slot = has_slot and len(of_endpoint) < limit - 1 and interactive < limit - limit // 8
        if has_slot:
            return breaker.next_start_at <= now
        is_probe_due = max(breaker.next_probe_at, breaker.next_start_at) <= now
        return not breaker.is_closed and is_probe_due and self.limiter.in_flight < self.ceiling

    def _is_blocked(self) -> bool:
        return self.loop.time() < max(self.paused_until, self.rate_until) + _TOLERANCE_S

    def _check_start(self, now: float, interval: float) -> None:
        assert self.limiter.in_flight <= self.ceiling
        breakers = [self.limiter.breakers[endpoint] for endpoint in _ENDPOINTS]
        assert self.limiter.in_flight <= self.limiter.limit or not all(breaker.is_closed for breaker in breakers)
        assert now > self.paused_until - _TOLERANCE_S, "sooner than the pause allows"
        assert now > self.rate_until - _TOLERANCE_S, "sooner than the rate allows"
        interval = max(interval, self.min_interval_s)
        if interval:
            self.rate_until = max(self.rate_until, now - _BURST_S) + interval

    def finish(self) -> None:
        self.wait(0.0)
        if self.ends_closed:
            self._close()
        for _ in range(3 + len(self.callers)):  # each round grants a slot to one caller at least
            for slot in self.slots:
                with self.loop.at_once():
                    self.limiter.release(slot)
            self.slots.clear()
            self.wait(_MAX_PAUSE_S + _MAX_INTERVAL_S)
        assert (self.limiter.in_flight, self.callers) == (0, [])

    def _close(self) -> None:
        self.is_closed = True
        with self.loop.at_once():
            self.limiter.close()
            with pytest.raises(ConfigurationError):
                self.limiter.try_acquire(_ENDPOINTS[0])
        for caller in self.callers[::2]:
            self._cancel(caller)  # before its task learns of the end
        self.step()
        assert all(caller.task is not None and caller.task.done() for caller in self.callers), "waits for ever"
        self.callers.clear()


@pytest.mark.parametrize(
    "runs", [pytest.param(60, marks=pytest.mark.slow), pytest.param(2_000, marks=pytest.mark.soak)]
)
def test_no_order_of_events_loses_a_slot_or_forgets_a_caller(
    runs: int, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """Limit, pause, rate and order of arrival hold, and every caller gets a slot in the end."""
    record_property("figure", run_machine(LimiterMachine, runs * soak_scale))
