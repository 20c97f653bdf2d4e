"""The policies that a caller sets: how often a request is retried, and how many are sent at once."""

from __future__ import annotations

import attrs

from podero_async._validation import concurrency, count, flag_setting, positive

__all__ = ["RetryPolicy", "ThrottlePolicy"]


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often and for how long a request is retried before its error is raised.

    The defaults suit a fleet fetch, which may outlast an outage of two minutes. A request handler that must reply within
    a second sets `max_elapsed=1.0`, which also bounds the wait for a server that hangs.

    Args:
        max_attempts: Attempts of one request, including the first; 1 disables retries. With the default of 8, the waits
            between them add up to at most 31.5 s.
        max_elapsed: Seconds in which a request must succeed. After them, no attempt begins, and one under way ends with a
            `RequestTimeoutError`. A call that sends several requests, such as `vehicle_sessions`, has as long for
            each. All waits count, whichever call caused them: for a slot of the `ThrottlePolicy`, in a pause and in an
            outage. A call that cannot be sent in that time raises `RateLimitError`, at once if a pause is known to last
            longer. Fleets, backfills and discoveries are the exception: they wait for slots and through pauses for as
            long as these last, since they fill the queue themselves, and their last attempts end by `Timeouts` alone.
            With the default, a fetch outlasts an outage of two minutes if the client holds a token and reads at least 20
            vehicles.
        backoff_initial: Upper bound of the wait before the second attempt, in seconds; it doubles with each attempt. The
            wait is drawn evenly from 0 to the bound (full jitter), so that callers do not return together.
        backoff_max: The largest such bound, in seconds. By default it is reached before the sixth attempt.
        retry_after_max: The longest `Retry-After` to wait for, in seconds. A longer one, or one that exceeds the rest of
            `max_elapsed`, is raised as an error with `retry_after` set.
        budget: Tokens that the retries of a client share, so that an outage does not multiply the load. The first retry
            of a request takes 1 and each later one 5 (1 if the request was throttled), which are all returned once the
            request succeeds; a request that succeeds at once adds 1. The last 10 are for retries that take 1, so that
            vehicles in permanent trouble leave the others theirs. The default pays for 100 retries.
            Fleets, backfills and discoveries have a budget of their own, which single calls do not share.
    """

    max_attempts: int = attrs.field(default=8, validator=count)
    max_elapsed: float = attrs.field(default=120.0, validator=positive)
    backoff_initial: float = attrs.field(default=0.5, validator=positive)
    backoff_max: float = attrs.field(default=8.0, validator=positive)
    retry_after_max: float = attrs.field(default=120.0, validator=positive)
    budget: int = attrs.field(default=500, validator=count)


@attrs.frozen(kw_only=True)
class ThrottlePolicy:
    """How many requests a client sends at once, and how fast. All calls of the client share these bounds.

    Single calls go before those of fleets, backfills and discoveries, which get at least every eighth slot, and
    leave one to single calls while the limit is 20 or more, or 8 or more and below `max_concurrency`. While it is 32 or
    more, they leave two, one of them for other endpoints, and single calls to one endpoint take at most seven eighths of
    it, so an endpoint that hangs does not stop the others.

    Args:
        max_concurrency: Upper bound of the requests in flight, 1 to 10,000. The default of 64 lets the limit find its
            value below; the connection pool of a lent session may lower it.
        adaptive: Whether the limit starts at 32 and adapts to throttling responses, up to that bound. If not, it is
            always `max_concurrency`, without a circuit breaker; the `Retry-After` of a 429 still pauses all requests.
        requests_per_second: Upper bound of the starts per second, evenly spaced; None for no bound. Set it only if the
            API's operator has named a rate: the client learns one from throttling responses.
    """

    max_concurrency: int = attrs.field(default=64, validator=concurrency)
    adaptive: bool = attrs.field(default=True, validator=flag_setting)
    requests_per_second: float | None = attrs.field(default=None, validator=attrs.validators.optional(positive))
