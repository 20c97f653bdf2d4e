"""The policies check their values when they are made."""

from __future__ import annotations

from typing import Any

import pytest

from podero_async import ConfigurationError, RetryPolicy, ThrottlePolicy


@pytest.mark.parametrize(
    ("policy", "name", "value"),
    [
        (RetryPolicy, "max_attempts", 0),
        (RetryPolicy, "max_attempts", 1.5),
        (RetryPolicy, "budget", True),
        (RetryPolicy, "max_elapsed", 0),
        (RetryPolicy, "backoff_initial", -1),
        (RetryPolicy, "backoff_max", float("nan")),
        (RetryPolicy, "retry_after_max", float("inf")),
        (ThrottlePolicy, "max_concurrency", 0),
        (ThrottlePolicy, "max_concurrency", True),
        (ThrottlePolicy, "max_concurrency", 1.5),
        (ThrottlePolicy, "requests_per_second", 0),
        (ThrottlePolicy, "requests_per_second", -1),
        (ThrottlePolicy, "requests_per_second", float("inf")),
    ],
)
def test_an_invalid_value_is_refused_by_the_name_of_its_argument(policy: Any, name: str, value: float) -> None:
    """Bounds are finite and positive, and counts are whole numbers."""
    with pytest.raises(ConfigurationError, match=name):
        policy(**{name: value})


def test_the_smallest_bounds_are_accepted() -> None:
    """One request at a time, one in two seconds, and a single attempt are valid."""
    throttle = ThrottlePolicy(max_concurrency=1, requests_per_second=0.5)
    assert (throttle.max_concurrency, throttle.requests_per_second) == (1, 0.5)
    assert RetryPolicy(max_attempts=1, budget=1).max_attempts == 1
