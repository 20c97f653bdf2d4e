"""The errors that callers map."""

from __future__ import annotations

import copy
import pickle

import pytest

from podero_async import errors
from podero_async.errors import (
    ApiError,
    CompletenessError,
    ConfigurationError,
    DecodeError,
    PoderoError,
    RateLimitError,
    RequestTimeoutError,
    TransportError,
)

EXAMPLES = [
    ConfigurationError("limit"),
    TransportError("the connection was lost", "GET", "/x", retryable=False),
    RequestTimeoutError("no answer in time", "GET", "/x"),
    *(
        kind(418, "words", "GET", "/x", "request-1", 1.5)
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ApiError)
    ),
    DecodeError("expected a number", "$.items[3]", 3, method="GET", path="/x"),
    CompletenessError("no order", 10, 12),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_pickle_and_copy(error: PoderoError) -> None:
    """An error of a worker process would arrive as a crash of the pool instead."""
    if hasattr(error, "attempts"):
        error.attempts = 7
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


def test_every_error_stands_under_one_root() -> None:
    """`except PoderoError` would miss one."""
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), PoderoError)
    assert {type(error).__name__ for error in EXAMPLES} | {"PoderoError"} == set(errors.__all__)


def test_an_api_error_names_what_support_asks_for() -> None:
    """A log line would not say which request failed, how, and how often it was tried."""
    error = RateLimitError(429, "slow down", "GET", "/path", "request-1", 30.0)
    error.attempts = 3
    assert str(error) == "HTTP 429: slow down (GET /path, 3 attempts) [request request-1]"
    assert error.detail == "slow down"
    assert error.retry_after == 30.0


def test_a_decode_error_names_the_place() -> None:
    """Nobody could find the bad row."""
    error = DecodeError("expected a number", "$.items[3].final_soc_pct", 3, path="/path")
    assert str(error) == "expected a number - at $.items[3].final_soc_pct (GET /path)"


def test_a_timeout_is_a_timeout_error() -> None:
    """Code that handles `TimeoutError` would not see ours."""
    assert issubclass(RequestTimeoutError, TimeoutError)
    assert issubclass(ConfigurationError, ValueError)
