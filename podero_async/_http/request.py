"""Send one request of a call: in a slot, with a token, and again with another token if the server refuses it (401)."""

from __future__ import annotations

import asyncio
import copy
import math
from contextlib import suppress
from typing import Any

from multidict import CIMultiDict

from podero_async._auth.cache import TokenCache
from podero_async._auth.refusals import Refusals
from podero_async._failures import is_retryable, is_server_fault, is_throttling
from podero_async._flow.limiter import Limiter
from podero_async._flow.queue import NoSlotError, Slot
from podero_async._flow.retry import Call, NotRetriedError, RequestStats, Retrier
from podero_async._http.body_decoder import BodyDecoder
from podero_async._http.known_good import KnownGood, Request
from podero_async._http.observed import observed
from podero_async._http.pauses import LongPauses, not_sent
from podero_async._http.response import Response
from podero_async._http.session import USER_AGENT, HttpSession
from podero_async._http.token_request import TokenRequestSender
from podero_async._redaction import Secret
from podero_async.errors import ApiError, AuthenticationError, DecodeError, PoderoError, TransportError

__all__ = ["RequestSender"]

_OK, _UNAUTHORIZED, _TOO_MANY = 200, 401, 429


class RequestSender:
    """Send the GET requests of all calls, one attempt at a time, decode each response, and report it to the limiter.

    Attributes:
        counts: The requests and retries so far.
        last_date: The header `Date` of the last response.
    """

    def __init__(
        self,
        session: HttpSession,
        retrier: Retrier,
        limiter: Limiter,
        tokens: TokenCache,
        token_requests: TokenRequestSender,
        pauses: LongPauses,
    ) -> None:
        self._session = session
        self._retrier = retrier
        self._limiter = limiter
        self._tokens = tokens
        self._token_requests = token_requests
        self._pauses = pauses
        self._decoder = BodyDecoder()
        self.counts = RequestStats()
        self.last_date = ""
        self._known_good = KnownGood(limiter)
        self._headers, self._headers_token = CIMultiDict[str](), ""

    def close(self) -> None:
        """End the thread that decodes large bodies."""
        self._decoder.close()

    def derive(self, session: HttpSession, retrier: Retrier) -> RequestSender:
        """Return a sender with another session and retrier, which shares the tokens, limiter and counts of this one."""
        derived = copy.copy(self)
        derived._session, derived._retrier = session, retrier  # noqa: SLF001
        return derived

    async def send(self, request: Request, call: Call) -> Any:
        """Send one attempt, again with another token if the server refuses its token (401), and return the decoded value."""
        self.counts.retries += call.attempts > 1
        refusals, token = None, ""
        while True:
            # 1. Fail if the server asked for no requests until later.
            self._pauses.check("GET", request.path)
            # 2. Wait for a token, without a slot, which other calls may need. In an outage, only a probe requests a token.
            token = self._tokens.current() or token
            if not token and self._limiter.breakers[request.endpoint].is_closed:
                token = await self._new_token(request, call)
            # 3. Wait for a slot.
            slot = self._limiter.try_acquire(request.endpoint, is_bulk=request.is_bulk)
            if slot is None or slot.is_probe:
                slot = await self._wait_for_slot(slot, request, call)
                token = self._tokens.current() or token
            # 4. Send the request.
            response, token = await self._send_in_slot(request, call, slot, token)
            # 5. Return the value, repeat the request with another token, or raise the error.
            if (error := response.error) is None:
                return await self._decode(response, request, slot, token)
            if error.status == _UNAUTHORIZED:
                refusals = refusals or Refusals()
                if await self._is_replayed(token, refusals, request, call) and self._retrier.left_s(call) > 0:
                    token = ""
                    continue
            if isinstance(error, AuthenticationError):
                error.affects_all_calls = refusals is not None and refusals.affects_all_calls
            raise error

    async def _is_replayed(self, token: str, refusals: Refusals, request: Request, call: Call) -> bool:
        """Decide within the time of the call whether it is sent again after a 401."""

        async def is_accepted(token: str) -> bool | None:
            good = await self._known_good.other_than(request) if self._retrier.left_s(call) > 0 else None
            if good is None:
                return None
            self._pauses.check("GET", good.path)
            call.stats.requests += 1
            self.counts.requests += 1
            # The check takes no slot: behind queued requests it would come late, and these would be refused, too.
            with suppress(TransportError):
                sending = self._session.send("GET", good.url, good.path, self._headers_for(token))
                (response := await observed(sending, call, good.url, good.endpoint)).release()
                if response.status == _OK:
                    return True
                if not is_server_fault(response.status) and not is_retryable(self._known_good.error_of(response, good)):
                    return response.status != _UNAUTHORIZED
            return None

        with suppress(TimeoutError):
            async with asyncio.timeout(self._retrier.left_s(call)):
                return await self._tokens.refused(token, refusals, is_accepted)
        return False

    async def _decode(self, response: Response, request: Request, slot: Slot, token: str) -> Any:
        """Decode a response of status 200, tell the limiter how the request ended, and release the slot.

        A body that is not JSON, such as a proxy's page, is a fault.
        """
        # A slot is for the time until the response has arrived. A probe keeps it until its outcome is known.
        is_decisive = not slot.breaker.is_calm
        if not is_decisive:
            self._limiter.release(slot)
        try:
            with response:
                if self._decoder.decodes_at_once(response, is_alone=not self._limiter.in_flight):
                    value = request.decode(response.body())
                else:
                    value = await self._decoder.decode(response, request.decode)
        except (DecodeError, TransportError) as error:
            if error.retryable:
                self._limiter.failed(slot, error.reason)
            else:
                self._accept(request, slot, token)
            raise
        else:
            self._accept(request, slot, token)
            return value
        finally:
            if is_decisive:
                self._limiter.release(slot)

    def _accept(self, request: Request, slot: Slot, token: str) -> None:
        self._tokens.served(token)
        self._known_good[request.endpoint] = request
        self._limiter.succeeded(slot)

    async def _send_in_slot(self, request: Request, call: Call, slot: Slot, token: str) -> tuple[Response, str]:
        """Send one request. Tell the limiter how it ended, and release the slot, unless the body of the response decides.

        Returns:
            The response, read whole, and the token that the request carried.
        """
        is_decided = True
        try:
            token = token or await self._new_token(request, call, slot)
            response = await self._send_with(token, request, call, slot)
            is_decided = response.status != _OK
            if is_decided:
                response.error = self._known_good.error_of(response, request)
                self._report(response.error, slot, call)
            return response, token
        finally:
            if is_decided:
                self._limiter.release(slot)

    async def _send_with(self, token: str, request: Request, call: Call, slot: Slot) -> Response:
        call.stats.requests += 1
        self.counts.requests += 1
        try:
            sending = self._session.send(
                "GET",
                request.url,
                request.path,
                self._headers_for(token),
                secrets=(token, request.private) if request.private else (token,),
                max_bytes=request.max_bytes,
                left_s=math.inf if slot.is_bulk else self._retrier.left_s(call),
            )
            if call.stats.call is not None:
                sending = observed(sending, call, request.url, request.endpoint, limit=self._limiter.limit)
            response = await sending
        except TransportError as error:
            if slot.is_bulk or self._retrier.left_s(call) > 0:
                self._limiter.failed(slot, error.reason)
            elif call.last_error is not None:  # the call's time is over: the attempt before says more
                call.last_error.attempts = call.attempts  # type: ignore[attr-defined]  # a request's error
                raise NotRetriedError(call.last_error) from None
            raise
        self.last_date = response.headers.get("Date", "")
        return response

    async def _wait_for_slot(self, slot: Slot | None, request: Request, call: Call) -> Slot:
        """Wait for a slot; if a probe is due, send it first."""
        loop = asyncio.get_running_loop()
        since, is_new = loop.time(), call.attempts == 1
        while True:
            try:
                slot = slot or await self._limiter.acquire(
                    request.endpoint, is_bulk=request.is_bulk, left_s=self._retrier.left_s(call), is_new=is_new
                )
            except NoSlotError as error:
                raise not_sent(error, request.path, call) from None
            if not request.is_bulk and self._retrier.left_s(call) <= 0:  # it was granted too late
                self._limiter.release(slot)
                slot = None
                continue
            if not slot.is_probe or not await self._probe(slot, call):
                break
            slot = None
        if request.is_bulk and slot.breaker.is_closed:  # a wait for the end of an outage counts as elapsed time
            call.waited_s += loop.time() - since
        try:
            self._pauses.check("GET", request.path)  # the server may have asked for it while this request was queued
        except NotRetriedError:
            self._limiter.release(slot)
            raise
        return slot

    async def _probe(self, slot: Slot, call: Call) -> bool:
        """Repeat the endpoint's last request that succeeded, and release the slot; return False if none has succeeded yet.

        A repeated success tells an outage from the faults of some vehicles. In case it cannot be repeated any more, the
        call's own request is the probe from time to time: each second time if the call has not failed yet, each eighth
        time otherwise, so that an outage does not use up the call's attempts.
        """
        request = self._known_good.probe(slot.breaker.endpoint)
        if request is None or slot.breaker.waits % (2 if call.last_error is None else 8) == 0:
            return False
        call.stats.retries += 1
        self.counts.retries += 1
        with suppress(TransportError, DecodeError, ApiError):  # it was reported to the limiter
            response, token = await self._send_in_slot(request, call, slot, self._tokens.current() or "")
            if response.error is None:
                await self._decode(response, request, slot, token)
        return True

    async def _new_token(self, request: Request, call: Call, slot: Slot | None = None) -> str:
        """Wait for a token; a fault of the token endpoint is reported to the limiter like one of the request.

        The token request was already repeated. A bulk call asks again if calls have succeeded before, since it has the time.
        """
        slot = slot or Slot(0, self._limiter.breakers[request.endpoint], is_probe=False, is_bulk=request.is_bulk)
        try:
            async with asyncio.timeout(self._retrier.left_s(call)):
                return await self._tokens.get()
        except PoderoError as error:
            if is_retryable(error):
                self._limiter.failed(slot, str(error))
                if slot.is_bulk and self._known_good:
                    raise
            raise NotRetriedError(error) from None
        except TimeoutError:  # the token request goes on for other calls
            failure = self._token_requests.late_error(request.path)
            if slot.is_bulk:  # the bound of a single call may be so short that it says nothing about the server
                self._limiter.failed(slot, str(failure))
            raise NotRetriedError(failure) from None

    def _report(self, error: ApiError, slot: Slot, call: Call) -> None:
        wait_s, cause = error.retry_after, f"HTTP {error.status}: {error.detail}"
        is_429 = error.status == _TOO_MANY
        is_throttled = is_throttling(error.status, has_retry_after=wait_s is not None)
        # A 503 with a `Retry-After` may concern one vehicle, and then delays its call alone; so may a repeated 429.
        if is_throttled and slot.breaker.concerns_all(slot.number, is_429=is_429, is_retry=call.attempts > 1):
            if self._pauses.record(error):
                wait_s = None  # it becomes an error with `retry_after`, not a pause of all requests
            self._limiter.throttled(slot, wait_s, cause, tells_rate=is_429)
        elif is_server_fault(error.status) or is_retryable(error):
            self._limiter.failed(slot, cause)
        else:
            self._limiter.succeeded(slot)

    def _headers_for(self, token: str) -> CIMultiDict[str]:
        if token != self._headers_token:  # the headers are built once for each token
            self._headers_token = token
            self._headers = CIMultiDict(
                {
                    "Authorization": Secret(f"Bearer {token}"),
                    "Accept": "application/json",
                    "Accept-Encoding": "gzip",
                    "User-Agent": USER_AGENT,
                }
            )
        return self._headers
