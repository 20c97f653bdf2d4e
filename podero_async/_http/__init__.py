"""One HTTP request and its response as bytes: authorized, throttled, retried, bounded in time and size.

`transport` imports `session` and `probe`, and these import `response`, `timeouts`, `gzip` and `origin`. Only this package
uses aiohttp's client.
"""

from __future__ import annotations

from podero_async._http.probe import ProbeResult, Tls
from podero_async._http.timeouts import Timeouts
from podero_async._http.transport import Transport

__all__ = ["ProbeResult", "Timeouts", "Tls", "Transport"]
