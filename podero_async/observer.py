"""The observer of a client: it is told when calls and attempts begin and end, and of pauses, circuit breakers and tokens.

```python
class SlowAttempts(Observer):
    def attempt_ended(self, attempt: Attempt, end: AttemptEnd) -> None:
        if end.seconds > 1:
            print(attempt.method, attempt.template, end.status, f"{end.seconds:.1f} s")

client = PoderoClient(org_id, credentials, observer=SlowAttempts())
```

`podero_async.otel` has an observer that makes spans and metrics of OpenTelemetry.
"""

from typing import Self

import attrs

from podero_async._enums import Completeness

__all__ = [
    "Attempt",
    "AttemptEnd",
    "BreakerChange",
    "CallEnd",
    "ObservedCall",
    "Observer",
    "Pause",
    "TokenRenewal",
]


@attrs.frozen(kw_only=True, eq=False)
class ObservedCall:
    """A call of the client. The same object is passed when it begins, when it ends, and on each of its attempts."""

    name: str
    """The method of `PoderoClient`, such as `vehicle_sessions`; `token_request` for a request of a token."""
    parent: Self | None = None
    """The call that makes this one: a fleet fetch makes a call `vehicle_sessions` for each vehicle."""
    is_shared: bool = False
    """Whether it serves all calls and may outlast the one that started it, as a request of a token does."""


@attrs.frozen(kw_only=True)
class CallEnd:
    """The end of a call: its counts, and the class of its error."""

    seconds: float
    requests: int
    """HTTP requests of the call, retries included."""
    retries: int
    """Attempts after the first one of a request, and probes in an outage. A replay after a 401 is not a retry."""
    sessions: int | None = None
    """Sessions that the call returned; None if it returns none."""
    completeness: Completeness | None = None
    """The verdict on the list of one vehicle."""
    vehicles: int | None = None
    """Vehicles that a fleet fetch has read."""
    failures: int | None = None
    """Vehicles and users that failed in a fleet fetch."""
    error: type[BaseException] | None = None
    """The class of the error that ended the call, `CancelledError` included. A stream that is left early has none."""


@attrs.frozen(kw_only=True, eq=False)
class Attempt:
    """One HTTP request. The same object is passed when it begins and when it ends."""

    call: ObservedCall
    """The call that sends it."""
    method: str
    origin: str
    """The scheme, host and port, such as `https://app.podero.com`."""
    path: str
    """The path with its query, in which `***` stands for each id."""
    template: str
    """The path with the names of its ids, such as `/api/partners/v2.0/org/{org_id}/users`."""
    resend_count: int
    """How many requests were sent before to get the same response: retries, probes, and replays after a 401."""
    cause: type[BaseException] | None
    """The class of the error of the attempt before, if this is a retry."""
    limit: int | None
    """The concurrency limit when the request was sent; None if the request takes no slot, as that of a token."""


@attrs.frozen(kw_only=True)
class AttemptEnd:
    """The end of an attempt: its response was read, or it failed."""

    seconds: float
    """Seconds until the last byte of the response, the wait for a slot and the decoding excluded."""
    status: int | None = None
    """The status of the response; None if none was read."""
    error: type[BaseException] | None = None
    """The class of the error if no response was read, `CancelledError` included."""


@attrs.frozen(kw_only=True)
class Pause:
    """A pause that the server asked for with `Retry-After`."""

    seconds: float
    is_long: bool
    """Whether it exceeds `RetryPolicy.retry_after_max`, so that calls fail instead of waiting for its end."""


@attrs.frozen(kw_only=True)
class BreakerChange:
    """The opening or closing of a circuit breaker, of which each endpoint has one."""

    endpoint: str
    """`sessions`, `current`, `users`, `user` or `vehicles`."""
    is_open: bool
    """Whether all recent requests failed, so that only probes are sent from now on; False if they succeed again."""


@attrs.frozen(kw_only=True)
class TokenRenewal:
    """A new token, or the failure to get one."""

    error: type[BaseException] | None = None
    """The class of the error; None if there is a new token."""


class Observer:
    """Is told what a client does. Override the methods that you need; those of this class do nothing.

    The methods are called in the event loop's thread: at the beginning and end of calls and attempts in the task that
    makes them, at other times in the task or timer that notices the event. They must return at once: what blocks them
    blocks all calls. An exception that one of them raises is logged once for each client, and reaches no call.

    No argument contains a token, a credential, an id, a path with an id, or a text of the server. Errors are given as
    their classes, since their texts name ids. Clients derived by `with_options` share the observer, and several clients
    may have the same one.
    """

    def call_began(self, call: ObservedCall) -> None:
        """Note that a call begins, before its first request. A stream begins when its first item is asked for."""

    def call_ended(self, call: ObservedCall, end: CallEnd) -> None:
        """Note that a call has ended, after all its attempts."""

    def attempt_began(self, attempt: Attempt) -> None:
        """Note that a request is sent now."""

    def attempt_ended(self, attempt: Attempt, end: AttemptEnd) -> None:
        """Note that a request has ended, in the same task."""

    def paused(self, pause: Pause) -> None:
        """Note that a pause begins."""

    def breaker_changed(self, change: BreakerChange) -> None:
        """Note that a circuit breaker opens or closes."""

    def token_renewed(self, renewal: TokenRenewal) -> None:
        """Note that a token was requested, or that the request failed. A token from the token store is not noted."""
