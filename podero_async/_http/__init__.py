"""One HTTP request and its answer as bytes: authorized, throttled, bounded, retried, its errors mapped.

The only room that knows aiohttp's client. Knows no endpoint but the shape of an error, and no model.
"""

from __future__ import annotations

from podero_async._http.probe import ProbeResult, Tls
from podero_async._http.timeouts import Timeouts
from podero_async._http.transport import Transport

__all__ = ["ProbeResult", "Timeouts", "Tls", "Transport"]
