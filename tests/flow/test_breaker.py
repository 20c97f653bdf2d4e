"""The circuit breaker by itself; tests/flow/test_limiter.py proves how the limiter obeys it."""

from __future__ import annotations

import logging
import math

import pytest

from podero_async._flow.breaker import BreakerState, CircuitBreaker


def opened() -> CircuitBreaker:
    """Return a breaker that opened at 100 s, 1 s after request 1 had started."""
    breaker = CircuitBreaker()
    breaker.started(1, 99.0)
    assert [breaker.failed(1, 100.0, limit=1) for _ in range(10)] == [False] * 9 + [True]
    return breaker


@pytest.mark.parametrize(("limit", "faults"), [(1, 10), (20, 10), (24, 12), (64, 32)])
def test_as_many_faults_in_a_row_as_half_the_limit_but_at_least_ten_open_it(limit: int, faults: int) -> None:
    """Faults in a row open the breaker, and a success resets their count."""
    breaker = CircuitBreaker()
    for _ in range(faults - 1):
        breaker.failed(1, 0.0, limit=limit)
    breaker.succeeded(0.0, limit=64)
    assert [breaker.failed(1, 0.0, limit=limit) for _ in range(faults)] == [False] * (faults - 1) + [True]


def test_the_third_burst_of_throttling_in_a_row_opens_it() -> None:
    """Three bursts open the breaker; a success resets their count, and further responses of a burst do not add to it."""
    breaker = CircuitBreaker()
    assert not breaker.throttled(1, 0.0, is_new_burst=True)
    breaker.succeeded(0.0, limit=64)
    assert not any(breaker.throttled(1, 0.0, is_new_burst=is_new) for is_new in (True, False, False, True))
    assert breaker.throttled_bursts == 2
    assert breaker.throttled(1, 0.0, is_new_burst=True)


def test_it_is_open_until_the_wait_is_over_then_half_open_and_closed_after_a_success() -> None:
    """The wait of 0.25 s counts from the last start, so after a slow failure it may be over at once."""
    breaker = CircuitBreaker()
    assert breaker.state(0.0) is BreakerState.CLOSED
    breaker.started(1, 100.0)
    for _ in range(10):
        breaker.failed(1, 100.125, limit=1)
    assert (breaker.opened_at, breaker.blocked_until) == (100.125, 100.25)
    assert [breaker.state(now) for now in (100.2, 100.25)] == [BreakerState.OPEN, BreakerState.HALF_OPEN]
    breaker.succeeded(0.0, limit=64)
    assert breaker.state(100.2) is BreakerState.CLOSED
    assert opened().state(100.0) is BreakerState.HALF_OPEN


def test_each_failed_probe_doubles_the_wait_up_to_five_seconds() -> None:
    """Each failed probe doubles the wait for the next one, from 0.25 s to 5 s."""
    breaker, now, waits = opened(), 200.0, []
    for number in range(2, 9):
        breaker.started(number, now)
        assert breaker.failed(number, now, limit=1)
        waits.append(breaker.blocked_until - now)
        now = breaker.blocked_until
    assert waits == [0.5, 1, 2, 4, 5, 5, 5]
    assert breaker.opened_at == 100


def test_a_fault_of_a_request_from_before_the_wait_does_not_prolong_it() -> None:
    """If a request was already in flight when the breaker opened, its failure does not prolong the wait."""
    breaker = opened()
    blocked_until = breaker.blocked_until
    assert not breaker.failed(1, 100.0, limit=1)
    assert not breaker.throttled(1, 100.0, is_new_burst=True)
    assert breaker.blocked_until == blocked_until


def test_old_faults_open_it_again_after_it_closed() -> None:
    """Ten faults in a row after a success open the breaker, even if their requests started before that success."""
    breaker = opened()
    breaker.succeeded(0.0, limit=64)
    assert [breaker.failed(1, 300.0, limit=1) for _ in range(10)] == [False] * 9 + [True]
    assert (breaker.is_closed, breaker.opened_at) == (False, 300)


def test_one_fault_opens_it_if_another_endpoint_is_down() -> None:
    """If another endpoint is down, the first fault opens the breaker, so that single calls do not spend their attempts."""
    breaker = CircuitBreaker()
    assert breaker.failed(1, 0.0, limit=64, is_another_down=True)
    assert not breaker.is_down, "no probe has failed yet"


@pytest.mark.parametrize("probe_fails", [False, True])
def test_requests_start_slowly_after_an_outage_but_not_after_a_false_alarm(probe_fails: bool) -> None:
    """If the first probe succeeds, only some resources failed, and any number of requests may start at once."""
    breaker, number = opened(), 2
    breaker.in_flight = 0
    for number in range(2, 3 + probe_fails):
        breaker.started(number, 200.0)
        if number == 2 and probe_fails:
            breaker.failed(number, 200.0, limit=64)
            breaker.in_flight -= 1
    assert breaker.is_down is probe_fails
    for allowed in range(2, 64):
        breaker.succeeded(201.0, limit=64)
        assert breaker.max_in_flight == (allowed if probe_fails else math.inf)
    breaker.succeeded(201.0, limit=64)
    assert (breaker.max_in_flight, breaker.is_calm) == (math.inf, True)


def test_opening_and_closing_are_logged_once_with_the_last_cause(caplog: pytest.LogCaptureFixture) -> None:
    """One WARNING names the endpoint and the last fault, and one INFO tells how long the outage was."""
    with caplog.at_level(logging.INFO, "podero_async"):
        breaker = CircuitBreaker("sessions")
        for _ in range(12):
            breaker.failed(1, 100.0, limit=1, cause="HTTP 503: maintenance")
        for _ in range(2):
            breaker.succeeded(107.5, limit=64)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "all recent requests to sessions failed, the last with HTTP 503: maintenance; only probes are sent",
        ),
        ("INFO", "requests to sessions succeed again after 7.5 s"),
    ]
