"""The errors that calls raise."""

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
    RequestTimeoutError("no response in time", "GET", "/x"),
    *(
        kind(418, "detail", "GET", "/x", "request-1", 1.5)
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ApiError)
    ),
    DecodeError("expected a number", "$.items[3]", 3, method="GET", path="/x"),
    CompletenessError("the list is not sorted by plug-in time", 10, 12),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_pickle_and_copy(error: PoderoError) -> None:
    """An unpickled or copied error has the type, the message and the attributes of the original."""
    if hasattr(error, "attempts"):
        error.attempts = 7
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


def test_every_error_is_a_podero_error() -> None:
    """`except PoderoError` catches every error of the module."""
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), PoderoError)
    assert {type(error).__name__ for error in EXAMPLES} | {"PoderoError"} == set(errors.__all__)


def test_an_api_error_names_its_request() -> None:
    """The message has the status, the detail, the method, the path, the attempts and the request id."""
    error = RateLimitError(429, "slow down", "GET", "/path", "request-1", 30.0)
    error.attempts = 3
    assert str(error) == "HTTP 429: slow down (GET /path, 3 attempts) [request request-1]"
    assert error.detail == "slow down"
    assert error.retry_after == 30.0


def test_a_decode_error_names_the_position() -> None:
    """The message has the JSON path of the unreadable value."""
    error = DecodeError("expected a number", "$.items[3].final_soc_pct", 3, path="/path")
    assert str(error) == "expected a number - at $.items[3].final_soc_pct (GET /path)"


def test_errors_are_the_built_in_errors_of_their_kind() -> None:
    """`except TimeoutError` and `except ValueError` catch them, too."""
    assert issubclass(RequestTimeoutError, TimeoutError)
    assert issubclass(ConfigurationError, ValueError)
