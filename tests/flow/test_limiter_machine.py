"""The throttle and its pace, whatever callers and server do in whatever order: no place is lost, and nobody forgotten."""

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

_MOMENT_S = 1e-6  # that a timer may be early, and no caller notices
_BURST_S = 0.01  # that a rate may catch up
_MAX_PROBE_S = 5.0  # that an outage makes everybody wait after the last start
_OUTAGE_AT, _REFUSED_AT = 10, 3  # faults, and pushbacks, in a row: what is fewer is bad luck
_MAX_INTERVAL_S = 10.0  # that a pace asks for
_MAX_PAUSE_S = 30.0

_WHICH = st.integers(0, 63)
_COUNT = st.sampled_from([1, 1, 3, 12])
_SECONDS = st.sampled_from([0.001, 0.02, 0.25, 1.0, 6.0, _MAX_PAUSE_S])


@attrs.define(eq=False)
class Ticket:
    """One who asks for a place."""

    task: asyncio.Task[None] | None = None
    waits: bool = False
    """Whether it was seen to wait: from then on it has its turn."""


class WatchedPace(RateEstimator):
    """The pace of a throttle, with a look at every start: each place that is handed out is counted here."""

    def __init__(self, check_start: Callable[[float, float], None]) -> None:
        super().__init__()
        self._check_start = check_start
        self._was_pushed_back = False

    def started(self, now: float) -> float:
        interval = super().started(now)
        assert 0 <= interval <= _MAX_INTERVAL_S + _MOMENT_S
        assert self._was_pushed_back or not interval, "a pace that no server asked for"
        self._check_start(now, interval)
        return interval

    def throttled(self, now: float, resume_at: float, *, tells_rate: bool = True) -> None:
        self._was_pushed_back = True
        super().throttled(now, resume_at, tells_rate=tells_rate)


class ThrottleMachine(LoopMachine):
    """Asks, answers, cancels and pauses, before or after the others have had their turns."""

    @initialize(
        most=st.sampled_from([1, 2, 5, 20, 40]),
        adaptive=st.booleans(),
        rate=st.sampled_from([None, None, 2.0, 150.0]),
        pool=st.sampled_from([None, None, None, 4]),
        ends_closed=st.booleans(),
    )
    def make(self, most: int, adaptive: bool, rate: float | None, pool: int | None, ends_closed: bool) -> None:
        policy = ThrottlePolicy(max_concurrency=most, adaptive=adaptive, requests_per_second=rate)
        self.throttle = Limiter(policy, ceiling=pool)
        self.throttle._pace = WatchedPace(self._check_start)
        self.ceiling = min(most, pool or most)
        self.adaptive = adaptive
        self.least_interval = 1 / rate if rate else 0.0
        self.ends_closed = ends_closed
        self.is_closed = False
        self.is_settled = True
        self.tickets: list[Ticket] = []  # in the order in which they came
        self.begun: list[tuple[int, Ticket]] = []  # those who got a place since it was last settled
        self.held: list[int] = []
        self.faults = self.pushbacks = 0  # since the last good answer
        self.told_until = self.paced_until = self.started_at = -math.inf

    # --- what callers do ---

    @rule(count=st.sampled_from([1, 3, 12, 20]))
    def ask(self, count: int) -> None:
        for _ in range(count):
            ticket = Ticket()
            ticket.task = self.spawn(self._request(ticket))
            self.tickets.append(ticket)
        self.is_settled = False

    async def _request(self, ticket: Ticket) -> None:
        try:
            place = await self.throttle.acquire()
        except ConfigurationError:
            assert self.is_closed
            return
        self.begun.append((place, ticket))

    @rule()
    def take(self) -> None:
        has_waiters = bool(self.throttle._waiters)
        with self.loop.at_once():
            place = self.throttle.take()
        if place is not None:
            assert not has_waiters, "taken from those who wait"
            self.held.append(place)
        elif self.is_settled:
            assert has_waiters or not self._has_place() or self._must_wait(), "refused for no reason"

    @precondition(lambda self: self.tickets)
    @rule(which=_WHICH)
    def cancel(self, which: int) -> None:
        self._cancel(self.tickets[which % len(self.tickets)])

    @precondition(lambda self: self.held and any(ticket.waits for ticket in self.tickets))
    @rule(which=_WHICH, count=_COUNT)
    def cancel_as_the_place_comes(self, which: int, count: int) -> None:
        self.answer(which, count, is_hasty=True)
        for ticket in [ticket for ticket in self.tickets if ticket.waits][:count]:
            self._cancel(ticket)

    def _cancel(self, ticket: Ticket) -> None:
        assert ticket.task is not None
        ticket.task.cancel()
        self.tickets.remove(ticket)
        self.is_settled = False

    # --- what the server says ---

    @precondition(lambda self: self.held)
    @rule(which=_WHICH, count=_COUNT, is_hasty=st.booleans())
    def answer(self, which: int, count: int, is_hasty: bool) -> None:
        def report(_: int) -> None:
            before = max(self.throttle.limit, self.throttle.in_flight if self.throttle.is_in_outage else 0)
            self.throttle.succeeded()
            self.faults = self.pushbacks = 0
            assert self.throttle.limit <= before + 1
            assert not self.throttle.is_in_outage

        self._end(which, count, report, is_hasty=is_hasty)

    @precondition(lambda self: self.held)
    @rule(which=_WHICH, count=_COUNT, is_hasty=st.booleans(), seconds=st.none() | _SECONDS)
    def push_back(self, which: int, count: int, is_hasty: bool, seconds: float | None) -> None:
        def report(place: int) -> None:
            before, was_in_outage = self.throttle.limit, self.throttle.is_in_outage
            self.throttle.throttled(place, seconds)
            self.pushbacks += 1
            assert self.throttle.limit <= before
            if not was_in_outage and self.pushbacks < _REFUSED_AT:
                assert self.throttle.limit >= before // 2, "cut too deep"
            if seconds:
                self.told_until = max(self.told_until, self.loop.time() + seconds)

        self._end(which, count, report, is_hasty=is_hasty)

    @precondition(lambda self: self.held)
    @rule(which=_WHICH, count=_COUNT, is_hasty=st.booleans())
    def fail(self, which: int, count: int, is_hasty: bool) -> None:
        def report(place: int) -> None:
            before, was_in_outage = self.throttle.limit, self.throttle.is_in_outage
            self.throttle.failed(place)
            self.faults += 1
            assert self.throttle.limit <= before
            if not was_in_outage and self.faults < _OUTAGE_AT:
                assert self.throttle.limit == before, "cut for bad luck"

        self._end(which, count, report, is_hasty=is_hasty)

    @rule(count=st.sampled_from([5, 12, 20]))
    def fail_in_turn(self, count: int) -> None:
        for _ in range(count):
            self.take()
            if self.held:
                self.fail(0, 1, is_hasty=True)

    def _end(self, which: int, count: int, report: Callable[[int], None], *, is_hasty: bool) -> None:
        """Report how some requests ended, and give their places back, at once or a little later."""
        ended = [self.held.pop(which % len(self.held)) for _ in range(min(count, len(self.held)))]
        for place in ended:
            with self.loop.at_once():
                report(place)
                if is_hasty:
                    self.throttle.release()
        self.is_settled = False
        if not is_hasty:
            self._give_back_later(ended)

    def _give_back_later(self, places: list[int]) -> None:
        self.held += places
        self.wait(0.0)
        for place in places:
            self.held.remove(place)
            with self.loop.at_once():
                self.throttle.release()
        self.is_settled = False

    @rule(seconds=_SECONDS)
    def pause(self, seconds: float) -> None:
        self.told_until = max(self.told_until, self.loop.time() + seconds)
        with self.loop.at_once():
            self.throttle.pause(seconds)

    @rule(seconds=_SECONDS)
    def hang(self, seconds: float) -> None:
        """Keep the loop busy, so that timers are late."""
        self.loop.lag(seconds)
        self.is_settled = False

    # --- what must hold ---

    @rule(seconds=st.just(0.0) | _SECONDS)
    def wait(self, seconds: float) -> None:
        self.step(seconds)
        self._check_turns()
        self.is_settled = True
        assert self.throttle.in_flight == len(self.held)
        assert bool(self.throttle._waiters) == bool(self.tickets)
        assert not self.tickets or not (self._has_place() or self._is_probe_due()) or self._must_wait(), "forgotten"
        assert 1 <= self.throttle.limit <= self.ceiling == self.throttle.ceiling
        assert self.adaptive or self.throttle.limit == self.ceiling
        held_until = self.started_at + _MAX_PROBE_S if self.adaptive else -math.inf
        assert self.told_until <= self.throttle._resume_at <= max(self.told_until, held_until)

    def _check_turns(self) -> None:
        """Hold those who got a place against those who waited already: places are numbered as they are handed out."""
        for place, ticket in sorted(self.begun, key=lambda begun: begun[0]):
            earlier = self.tickets[: self.tickets.index(ticket)]
            assert not any(other.waits for other in earlier), "overtaken"
            self.tickets.remove(ticket)
            self.held.append(place)
        self.begun.clear()
        for ticket in self.tickets:
            ticket.waits = True

    def _has_place(self) -> bool:
        return self.throttle.in_flight < self.throttle.limit

    def _is_probe_due(self) -> bool:
        """Say whether one may be sent beside those that hang, to see whether the server is back."""
        is_time = self.loop.time() > self.started_at + _MAX_PROBE_S - _MOMENT_S
        return self.throttle.is_in_outage and is_time and self.throttle.in_flight < self.ceiling

    def _must_wait(self) -> bool:
        return self.loop.time() < max(self.throttle._resume_at, self.paced_until) + _MOMENT_S

    def _check_start(self, now: float, interval: float) -> None:
        self.throttle._in_flight -= 1
        assert self._has_place() or self._is_probe_due(), "more than the limit"
        self.throttle._in_flight += 1
        self.started_at = now
        assert now > self.told_until - _MOMENT_S, "the server wanted no request yet"
        assert now > self.paced_until - _MOMENT_S, "sooner than the rate allows"
        interval = max(interval, self.least_interval)
        if interval:
            self.paced_until = max(self.paced_until, now - _BURST_S) + interval

    def finish(self) -> None:
        self.wait(0.0)
        if self.ends_closed:
            self._close()
        for _ in range(3 + len(self.tickets)):  # each round, one gets a place at the least
            for _ in self.held:
                with self.loop.at_once():
                    self.throttle.release()
            self.held.clear()
            self.wait(_MAX_PAUSE_S + _MAX_INTERVAL_S)
        assert (self.throttle.in_flight, self.tickets) == (0, [])

    def _close(self) -> None:
        self.is_closed = True
        with self.loop.at_once():
            self.throttle.close()
            with pytest.raises(ConfigurationError):
                self.throttle.take()
        for ticket in self.tickets[::2]:
            self._cancel(ticket)  # just as it is told
        self.step()
        assert all(ticket.task is not None and ticket.task.done() for ticket in self.tickets), "waits for ever"
        self.tickets.clear()


def test_no_order_of_events_loses_a_place_or_forgets_a_waiter() -> None:
    """A client would stand still after a day, storm a server that asked for patience, or overtake its own callers."""
    run_machine(ThrottleMachine, 60)


@pytest.mark.soak
def test_no_order_of_events_loses_a_place_in_the_long_run(
    soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The rarer the order, the longer nobody would notice."""
    record_property("figure", run_machine(ThrottleMachine, 2_000 * soak_scale))
