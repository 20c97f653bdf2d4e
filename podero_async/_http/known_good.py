"""The last request that succeeded, for each endpoint. Probes and checks of a token repeat it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time_ns
from typing import Any

import attrs
from yarl import URL

from podero_async._decode import is_json_object
from podero_async._failures import is_server_fault
from podero_async._flow.limiter import Limiter
from podero_async._http.response import Response, api_error
from podero_async.errors import ApiError

__all__ = ["KnownGood", "Request"]

_MAX_WAIT_S = 5.0
_POLL_S = 0.05


@attrs.define(eq=False, repr=False)  # not frozen: one is made for each call, and that would take 3 us longer
class Request:
    """A GET request."""

    url: URL
    path: str
    """The path that errors name."""
    endpoint: str
    is_bulk: bool
    private: str
    """A text that is masked if the server repeats it in an error; empty for none."""
    max_bytes: int
    decode: Callable[[bytes], Any]
    """Makes the value that the call returns of an inflated body."""


class KnownGood(dict[str, Request]):
    """The last request that succeeded, for each endpoint."""

    def __init__(self, limiter: Limiter) -> None:
        super().__init__()
        self._limiter = limiter
        self._refusing: set[str] = set()  # endpoints that have refused a request as the API does

    def probe(self, endpoint: str) -> Request | None:
        """Return the request of an endpoint with another parameter, which the API ignores, and which no cache knows.

        A cache on the way may serve the same URL while the API is down.
        """
        good = self.get(endpoint)
        return good and attrs.evolve(good, url=good.url.update_query(_=str(time_ns())))

    async def other_than(self, request: Request) -> Request | None:
        """Return a request to another URL that succeeded, or None; wait for the requests in flight, up to 5 s."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _MAX_WAIT_S
        while True:
            good = next((good for good in reversed(self.values()) if good.url != request.url), None)
            if good is not None or not self._limiter.in_flight or loop.time() >= until:
                return good
            await asyncio.sleep(_POLL_S)

    def error_of(self, response: Response, request: Request) -> ApiError:
        """Return the error of a response if its status is not a success.

        A page in place of JSON is a gateway's if the endpoint has responded as the API does before, if only with a refusal.
        """
        endpoint = request.endpoint
        error = api_error(response, has_worked=endpoint in self or endpoint in self._refusing)
        if not is_server_fault(response.status) and is_json_object(response.error_body()):
            self._refusing.add(endpoint)
        return error
