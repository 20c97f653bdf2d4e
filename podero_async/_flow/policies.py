"""The policies that a caller sets: how often a request is tried again, and how many are sent at once."""

from __future__ import annotations

import attrs

from podero_async._validation import count, positive

__all__ = ["RetryPolicy", "ThrottlePolicy"]


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often and how long a request is tried before its error is raised. Seconds as floats.

    Args:
        max_attempts: Attempts of one request, the first included; 1 never retries.
        max_elapsed: Seconds after which no further attempt is begun; `Timeouts` bounds the last one. Waiting for a place
            under the `ThrottlePolicy` does not count, except while nothing but faults comes.
        backoff_initial: Longest wait before the second attempt; it doubles with each further one. The wait is drawn
            evenly from 0 to that (full jitter).
        backoff_max: Where the doubling ends.
        retry_after_max: A `Retry-After` longer than this, or than what is left of `max_elapsed`, is raised as an error
            that carries it, not slept.
        budget: What retries may take in all before good answers fill it again, 5 a retry: keeps an outage from
            multiplying the load.
    """

    max_attempts: int = attrs.field(default=8, validator=count)
    max_elapsed: float = attrs.field(default=120.0, validator=positive)
    backoff_initial: float = attrs.field(default=0.5, validator=positive)
    backoff_max: float = attrs.field(default=8.0, validator=positive)
    retry_after_max: float = attrs.field(default=120.0, validator=positive)
    budget: int = attrs.field(default=500, validator=count)


@attrs.frozen(kw_only=True)
class ThrottlePolicy:
    """How hard the API may be asked; shared by everything that one client does.

    Args:
        max_concurrency: Most requests under way at once: a ceiling, the limit below it finds itself.
        adaptive: Whether the limit moves under that ceiling with the server's answers (AIMD).
        requests_per_second: Most requests started a second, evenly spaced; None for no such bound.
    """

    max_concurrency: int = attrs.field(default=64, validator=count)
    adaptive: bool = True
    requests_per_second: float | None = attrs.field(default=None, validator=attrs.validators.optional(positive))
