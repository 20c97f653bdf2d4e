"""The limiter with its breaker and rate, under any order of events: no slot is lost, and no caller is forgotten."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from podero_async import ConfigurationError, ThrottlePolicy
from podero_async._flow.limiter import Limiter
from podero_async._flow.rate import RateEstimator
from tests._support.fake_clock import LoopMachine, run_machine

_TOLERANCE_S = 1e-6  # a timer may be early by this much
_BURST_S = 0.01  # a rate may make up for this delay
_MAX_PROBE_WAIT_S = 5.0
_MIN_FAULTS, _MIN_BURSTS = 10, 3  # in a row: fewer open no breaker
_MAX_INTERVAL_S = 10.0
_MAX_PAUSE_S = 30.0

_WHICH = st.integers(0, 63)
_COUNT = st.sampled_from([1, 1, 3, 12])
_SECONDS = st.sampled_from([0.001, 0.02, 0.25, 1.0, 6.0, _MAX_PAUSE_S])


@attrs.define(eq=False)
class Caller:
    """A caller that asks for a slot."""

    task: asyncio.Task[None] | None = None
    is_queued: bool = False
    """Whether it was seen in the queue: later callers must not overtake it."""


class WatchedRate(RateEstimator):
    """A rate estimator that checks each start: the limiter reports all of them."""

    def __init__(self, check_start: Callable[[float, float], None]) -> None:
        super().__init__()
        self._check_start = check_start
        self._was_throttled = False

    def started(self, now: float) -> float:
        interval = super().started(now)
        assert 0 <= interval <= _MAX_INTERVAL_S + _TOLERANCE_S
        assert self._was_throttled or not interval, "a bound that no throttling response asked for"
        self._check_start(now, interval)
        return interval

    def throttled(self, now: float, resume_at: float, *, tells_rate: bool = True) -> None:
        self._was_throttled = True
        super().throttled(now, resume_at, tells_rate=tells_rate)


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
        self.granted: list[tuple[int, Caller]] = []  # since the last check
        self.tickets: list[int] = []  # of the requests in flight
        self.faults = self.throttlings = 0  # since the last success
        self.paused_until = self.rate_until = self.started_at = -math.inf

    # --- callers ---

    @rule(count=st.sampled_from([1, 3, 12, 20]))
    def ask(self, count: int) -> None:
        for _ in range(count):
            caller = Caller()
            caller.task = self.spawn(self._request(caller))
            self.callers.append(caller)
        self.is_settled = False

    async def _request(self, caller: Caller) -> None:
        try:
            ticket = await self.limiter.acquire()
        except ConfigurationError:
            assert self.is_closed
            return
        self.granted.append((ticket, caller))

    @rule()
    def try_acquire(self) -> None:
        is_queue_empty = not self.limiter.queued
        with self.loop.at_once():
            ticket = self.limiter.try_acquire()
        if ticket is not None:
            assert is_queue_empty, "the queue was overtaken"
            self.tickets.append(ticket)
        elif self.is_settled:
            assert not is_queue_empty or not self._has_slot() or self._is_blocked(), "refused for no reason"

    @precondition(lambda self: self.callers)
    @rule(which=_WHICH)
    def cancel(self, which: int) -> None:
        self._cancel(self.callers[which % len(self.callers)])

    @precondition(lambda self: self.tickets and any(caller.is_queued for caller in self.callers))
    @rule(which=_WHICH, count=_COUNT)
    def cancel_just_after_the_grant(self, which: int, count: int) -> None:
        self.succeed(which, count, at_once=True)
        for caller in [caller for caller in self.callers if caller.is_queued][:count]:
            self._cancel(caller)

    def _cancel(self, caller: Caller) -> None:
        assert caller.task is not None
        caller.task.cancel()
        self.callers.remove(caller)
        self.is_settled = False

    # --- how requests end ---

    @precondition(lambda self: self.tickets)
    @rule(which=_WHICH, count=_COUNT, at_once=st.booleans())
    def succeed(self, which: int, count: int, at_once: bool) -> None:
        def report(_: int) -> None:
            before = max(self.limiter.limit, 0 if self.limiter.breaker.is_closed else self.limiter.in_flight)
            self.limiter.succeeded()
            self.faults = self.throttlings = 0
            assert self.limiter.limit <= before + 1
            assert self.limiter.breaker.is_closed

        self._end(which, count, report, at_once=at_once)

    @precondition(lambda self: self.tickets)
    @rule(which=_WHICH, count=_COUNT, at_once=st.booleans(), seconds=st.none() | _SECONDS)
    def throttle(self, which: int, count: int, at_once: bool, seconds: float | None) -> None:
        def report(ticket: int) -> None:
            before, was_closed = self.limiter.limit, self.limiter.breaker.is_closed
            self.limiter.throttled(ticket, seconds)
            self.throttlings += 1
            assert self.limiter.limit <= before
            if was_closed and self.throttlings < _MIN_BURSTS:
                assert self.limiter.limit >= before // 2, "cut too deep"
            if seconds:
                self.paused_until = max(self.paused_until, self.loop.time() + seconds)

        self._end(which, count, report, at_once=at_once)

    @precondition(lambda self: self.tickets)
    @rule(which=_WHICH, count=_COUNT, at_once=st.booleans())
    def fail(self, which: int, count: int, at_once: bool) -> None:
        def report(ticket: int) -> None:
            before, was_closed = self.limiter.limit, self.limiter.breaker.is_closed
            self.limiter.failed(ticket)
            self.faults += 1
            assert self.limiter.limit <= before
            if was_closed and self.faults < _MIN_FAULTS:
                assert self.limiter.limit == before, "cut after few faults"

        self._end(which, count, report, at_once=at_once)

    @rule(count=st.sampled_from([5, 12, 20]))
    def fail_one_by_one(self, count: int) -> None:
        for _ in range(count):
            self.try_acquire()
            if self.tickets:
                self.fail(0, 1, at_once=True)

    def _end(self, which: int, count: int, report: Callable[[int], None], *, at_once: bool) -> None:
        """Report the outcome of some requests, and release their slots, at once or after other tasks have run."""
        ended = [self.tickets.pop(which % len(self.tickets)) for _ in range(min(count, len(self.tickets)))]
        for ticket in ended:
            with self.loop.at_once():
                report(ticket)
                if at_once:
                    self.limiter.release()
        if not at_once:
            self.tickets += ended
            self.wait(0.0)
            for ticket in ended:
                self.tickets.remove(ticket)
                with self.loop.at_once():
                    self.limiter.release()
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
        assert self.limiter.in_flight == len(self.tickets)
        assert self.limiter.queued == len(self.callers)
        is_due = self._has_slot() or self._is_probe_due(self.limiter.in_flight)
        assert not self.callers or not is_due or self._is_blocked(), "forgotten"
        assert 1 <= self.limiter.limit <= self.ceiling == self.limiter.ceiling
        assert self.adaptive or self.limiter.limit == self.ceiling
        probe_at = self.started_at + _MAX_PROBE_WAIT_S if self.adaptive else -math.inf
        assert self.paused_until <= self.limiter.blocked_until <= max(self.paused_until, probe_at)

    def _check_order(self) -> None:
        """Check that no caller overtook another: tickets are numbered in the order of the grants."""
        for ticket, caller in sorted(self.granted, key=lambda granted: granted[0]):
            earlier = self.callers[: self.callers.index(caller)]
            assert not any(other.is_queued for other in earlier), "overtaken"
            self.callers.remove(caller)
            self.tickets.append(ticket)
        self.granted.clear()
        for caller in self.callers:
            caller.is_queued = True

    def _has_slot(self) -> bool:
        return self.limiter.in_flight < self.limiter.limit

    def _is_probe_due(self, in_flight: int) -> bool:
        """Return whether a probe may be sent beside earlier ones that hang."""
        is_time = self.loop.time() > self.started_at + _MAX_PROBE_WAIT_S - _TOLERANCE_S
        return not self.limiter.breaker.is_closed and is_time and in_flight < self.ceiling

    def _is_blocked(self) -> bool:
        return self.loop.time() < max(self.limiter.blocked_until, self.rate_until) + _TOLERANCE_S

    def _check_start(self, now: float, interval: float) -> None:
        others = self.limiter.in_flight - 1
        assert others < self.limiter.limit or self._is_probe_due(others), "more than the limit"
        self.started_at = now
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
            for _ in self.tickets:
                with self.loop.at_once():
                    self.limiter.release()
            self.tickets.clear()
            self.wait(_MAX_PAUSE_S + _MAX_INTERVAL_S)
        assert (self.limiter.in_flight, self.callers) == (0, [])

    def _close(self) -> None:
        self.is_closed = True
        with self.loop.at_once():
            self.limiter.close()
            with pytest.raises(ConfigurationError):
                self.limiter.try_acquire()
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
