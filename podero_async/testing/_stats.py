"""What the simulator saw and did, for tests to look at. Knows nothing of HTTP."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import attrs


@attrs.frozen(kw_only=True)
class RequestRecord:
    """One request, as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    time: float
    """When, in seconds of the simulator's clock."""
    endpoint: str
    """The endpoint's name ("sessions", "token", ...), or "other" for a path or method that is none."""


@attrs.define(kw_only=True)
class Counts:
    """How often what happened since the simulator was made."""

    requests: Counter[str] = attrs.field(factory=Counter)
    """Requests by endpoint name, "other" included."""
    responses: Counter[int] = attrs.field(factory=Counter)
    """Answers by status; a connection that was reset before its answer has none."""
    faults: Counter[str] = attrs.field(factory=Counter)
    """Faults that were played, by kind."""
    tokens_issued: int = 0
    rows_served: int = 0
    """Rows in pages of the sessions list; a page that was damaged on its way counts in full."""
    concurrent: int = 0
    """Requests being answered at this moment."""
    peak_concurrent: int = 0
    """The most at once. Only waiting requests overlap: give the simulator a `latency_s` to see it."""

    @property
    def total_requests(self) -> int:
        return self.requests.total()

    @contextmanager
    def answering(self, endpoint: str) -> Iterator[None]:
        """Count one request in, and out of `concurrent` again however it ends."""
        self.requests[endpoint] += 1
        self.concurrent += 1
        self.peak_concurrent = max(self.peak_concurrent, self.concurrent)
        try:
            yield
        finally:
            self.concurrent -= 1
