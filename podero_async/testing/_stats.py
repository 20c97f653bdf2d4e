"""Counts and records of the requests that the simulator received."""

from collections import Counter
from collections.abc import Mapping
from typing import Self

import attrs


@attrs.frozen(kw_only=True)
class RequestRecord:
    """One received request."""

    method: str
    path: str
    query: Mapping[str, str]
    time: float
    """The time of arrival, in seconds of the simulator's clock."""
    endpoint: str
    """The name of the endpoint ("sessions", "token", ...), or "other" if no route matches."""


@attrs.define(kw_only=True)
class Counts:
    """Counters since the simulator was created."""

    requests: Counter[str] = attrs.field(factory=Counter)
    """Requests by endpoint name, "other" included."""
    responses: Counter[int] = attrs.field(factory=Counter)
    """Responses by status; a connection that was reset before its response is not counted."""
    faults: Counter[str] = attrs.field(factory=Counter)
    """Faults that happened, by kind."""
    tokens_issued: int = 0
    rows_served: int = 0
    """Rows in pages of the sessions list; a page that a fault broke off counts in full."""
    concurrent: int = 0
    """Requests in flight now."""
    peak_concurrent: int = 0
    """The most requests in flight at once. Set `latency_s` to measure it: requests overlap only while they sleep."""

    @property
    def total_requests(self) -> int:
        """The number of requests to all endpoints."""
        return self.requests.total()

    def begin(self, endpoint: str) -> None:
        """Count a request, which is in flight from now on."""
        self.requests[endpoint] += 1
        self.concurrent += 1
        self.peak_concurrent = max(self.peak_concurrent, self.concurrent)

    def copy(self) -> Self:
        """Return a copy, which no request changes any more."""
        return attrs.evolve(
            self, requests=self.requests.copy(), responses=self.responses.copy(), faults=self.faults.copy()
        )
