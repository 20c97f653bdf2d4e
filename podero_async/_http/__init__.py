"""One HTTP request (`request`: slot, token, another token after a 401) and its response as bytes (`session`: aiohttp).

Import direction: `endpoints` > `transport` > `request`, `token_request` > `pauses`, `session`, `observed`;
`probe` > `session`; `observed` > `response`; `request` > `known_good`, `body_decoder`; `session` > `response`, `faults`;
`body_decoder` > `response` > `timeouts`, `gzip`, `retry_after`. Only this package uses aiohttp's client.
"""

from __future__ import annotations

from podero_async._http.timeouts import Timeouts
from podero_async._http.transport import Transport

__all__ = ["Timeouts", "Transport"]
