"""Send token requests: repeated like calls, but without a slot, a circuit breaker or a token of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from yarl import URL

from podero_async._auth.grants import TokenRequest, TokenResponse
from podero_async._decode import decode_json
from podero_async._failures import copy_of, is_retryable, is_server_fault, is_throttling
from podero_async._flow.retry import Call, RequestStats, Retrier
from podero_async._http.observed import observed
from podero_async._http.pauses import LongPauses
from podero_async._http.response import api_error
from podero_async._http.session import USER_AGENT, HttpSession
from podero_async._observation import Observation
from podero_async.errors import ApiError, DecodeError, PoderoError, RequestTimeoutError, TransportError

__all__ = ["TokenRequestSender"]

_MAX_BYTES = 256 << 10
_OK = 200


class TokenRequestSender:
    """Send the requests of the token cache.

    Attributes:
        counts: The token requests so far.
        is_sending: Whether a token request is under way, its retries and the waits between them included.
        failure: The error of its last attempt; None if none has failed yet.
    """

    def __init__(
        self,
        session: HttpSession,
        retrier: Retrier,
        pauses: LongPauses,
        url_of: Callable[[str], URL],
        observation: Observation,
    ) -> None:
        self._session = session
        self._observation = observation
        self._retrier = retrier
        self._pauses = pauses
        self._url_of = url_of
        self.counts = RequestStats()
        self.is_sending = False
        self.failure: PoderoError | None = None
        self._failed_at = 0.0
        self._paths_that_worked: set[str] = set()

    def late_error(self, path: str) -> PoderoError:
        """Return the error of a call to `path` that gets no token in time: the last failure of the token request, if any."""
        late = "endpoint has not responded" if self.is_sending else "store took too long"
        if self.failure is None:
            return RequestTimeoutError(f"no access token in time: the token {late}", "GET", path)
        error = copy_of(self.failure)
        if isinstance(error, ApiError) and error.retry_after is not None:
            left_s = error.retry_after - (asyncio.get_running_loop().time() - self._failed_at)
            error.retry_after = left_s if left_s > 0 else None
        return error

    def _failed(self, error: PoderoError) -> None:
        self.failure = copy_of(error)  # without its traceback
        self._failed_at = asyncio.get_running_loop().time()

    async def send(self, request: TokenRequest) -> TokenResponse:
        """Send a token request. It takes no slot, since all requests that hold one may be waiting for the token.

        Returns:
            The response. One that is worth another attempt is raised as an error instead.
        """
        path = request.path
        url = self._url_of(path)
        headers = {**request.headers, "Accept-Encoding": "gzip", "User-Agent": USER_AGENT}

        async def attempt(call: Call) -> TokenResponse:
            try:
                return await send_once(call)
            except (ApiError, TransportError, DecodeError) as error:
                error.attempts = call.attempts
                self._failed(error)
                raise

        async def send_once(call: Call) -> TokenResponse:
            paused, left_s = self._pauses.error("POST", path), self._pauses.left_s("POST")
            if paused is not None and left_s < min(self._pauses.max_pause_s, self._retrier.left_s(call)):
                self._failed(paused)
                await asyncio.sleep(left_s)
            self._pauses.check("POST", path)
            self.counts.requests += 1
            sending = self._session.send(
                "POST", url, path, headers, request.body, secrets=request.secrets, max_bytes=_MAX_BYTES
            )
            response = await observed(sending, call, url, method="POST")
            if response.status != _OK:
                error = api_error(response, has_worked=path in self._paths_that_worked)
                if is_server_fault(response.status) or is_retryable(error):
                    raise error
                return TokenResponse(response.status, response.error_body(), response.request_id)
            with response:
                body = response.body()
                decode_json(body)  # invalid JSON is retryable, as in every other call
            self._paths_that_worked.add(path)
            return TokenResponse(_OK, body, response.request_id)

        stats = RequestStats()
        running = self._retrier.run(attempt, stats)
        self.is_sending = True
        try:
            return await self._observation.call("token_request", stats, running, is_shared=True)
        except ApiError as error:
            # The next call must not send one before its time. If there was no attempt, the error comes from an earlier pause.
            if error.attempts and is_throttling(error.status, has_retry_after=True):
                self._pauses.record(error)
            raise
        finally:
            self.is_sending, self.failure = False, None
