"""Reads the headers `Retry-After` and `Date`, as seconds.

`_http.request` acts on them: all requests pause (`_flow.limiter`), or fail if the pause is long (`pauses`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from time import time

__all__ = ["MAX_RETRY_AFTER_S", "http_date", "retry_after"]

MAX_RETRY_AFTER_S = 3600.0
"""A longer `Retry-After` counts as this, so that a long-lived client asks again after a server's mistake."""

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a `Retry-After`, at most `MAX_RETRY_AFTER_S`; None if it is missing or unreadable.

    It holds seconds, possibly as a decimal fraction, or a date, which is compared with the `Date` of the same response,
    because the server's clock may differ from ours. Of a list of seconds, the largest counts.
    """
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    parts = [part.strip() for part in text.split(",")]
    if all(map(_SECONDS.fullmatch, parts)):
        seconds = max(map(float, parts))
    else:
        until = http_date(text)
        if until is None:
            return None
        server_time = http_date(headers.get("Date", ""))
        seconds = until - (time() if server_time is None else server_time)
    seconds = min(MAX_RETRY_AFTER_S, max(0.0, seconds))
    return math.ceil(seconds * 1000) / 1000  # rounded up, so that no request is early


@lru_cache(maxsize=2)  # all responses of a second have the same Date
def http_date(text: str) -> float | None:
    """Return an HTTP date (RFC 9110, 5.6.7) as a Unix time; None if it is not one."""
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # the asctime form, and the offset -0000
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None
