"""The server of the benchmarks: it sends prepared responses, and runs in its own process on its own core.

It is a bare protocol on uvloop, faster than any client that is measured. On request it adds latency, limits or a rate.
"""

from __future__ import annotations

import asyncio
import gzip
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import cast
from urllib.parse import parse_qs

import attrs

from benchmarks.fleet import is_slow, sessions_of, wire_rows

__all__ = ["Plan", "ResponseRecord", "Served", "serving"]

_QUEUE = 10  # requests that wait at the hidden limit; further ones get 429
_WINDOW_S = 1.0
_RATE_BURST = 20
_TOKEN = b'{"access_token": "benchmark", "token_type": "Bearer", "expires_in": 36000}'
_USER_ID = "00000000-0000-4000-8000-%012x"
_THROTTLED_HEADERS = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n"
_OVER_LIMIT = _THROTTLED_HEADERS + b"Content-Length: 2\r\n\r\n{}"
_OVER_RATE = _THROTTLED_HEADERS + b"Retry-After: 1\r\nContent-Length: 2\r\n\r\n{}"


@attrs.frozen(kw_only=True)
class Plan:
    """The behaviour of the server."""

    gzip: bool = False
    max_rows: int = 200
    latency_s: float = 0.0
    slow_s: float = 0.0
    """Latency of the vehicles that are marked as slow."""
    limit: int | None = None
    """Requests served at a time; some more wait, and further ones get 429."""
    halved_after_s: float | None = None
    rate: float | None = None
    """Requests per second; further ones get 429 with `Retry-After: 1`."""
    rate_by_window: bool = False
    """Whether the rate is counted in fixed windows of a second instead of a token bucket."""
    users: int = 0
    """The list of users, in one array."""
    sessions_of_user: int | None = None
    """If given, each user has one vehicle with this number of sessions."""


ResponseRecord = tuple[float, int, int]
"""The time of a response (seconds since the first request), its status, and the number of requests in service."""


class _Throttle:
    """Delays or throttles requests: by latency, a hidden limit or a hidden rate."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._serving = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._bucket = plan.rate if plan.rate_by_window else _RATE_BURST
        self._filled_at = 0.0
        self.began = 0.0
        self.responses: list[ResponseRecord] = []

    async def admit(self, *, slow: bool) -> bytes | None:
        """Delay a request; return None if it is served, or else the throttling response."""
        now = time.monotonic()
        self.began = self.began or now
        if self._plan.rate and not self._is_in_rate(now):
            return self._note(429, _OVER_RATE)
        if self._plan.limit and self._serving >= self._limit(now):
            if len(self._waiting) >= _QUEUE:
                return self._note(429, _OVER_LIMIT)
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        else:
            self._serving += 1
        await asyncio.sleep(self._plan.slow_s if slow else self._plan.latency_s)
        if self._waiting and self._serving <= self._limit(time.monotonic()):
            self._waiting.popleft().set_result(None)
        else:
            self._serving -= 1
        return self._note(200, None)

    def _limit(self, now: float) -> float:
        limit = self._plan.limit or float("inf")
        halved_after_s = self._plan.halved_after_s
        return limit / 2 if halved_after_s and now - self.began >= halved_after_s else limit

    def _is_in_rate(self, now: float) -> bool:
        rate = self._plan.rate or 0.0
        self._filled_at = self._filled_at or now
        if self._plan.rate_by_window:
            windows = int((now - self._filled_at) / _WINDOW_S)
            if windows:
                self._filled_at += windows * _WINDOW_S
                self._bucket = rate
        else:
            self._bucket = min(_RATE_BURST, (self._bucket or 0.0) + (now - self._filled_at) * rate)
            self._filled_at = now
        if (self._bucket or 0.0) < 1:
            return False
        self._bucket = (self._bucket or 0.0) - 1
        return True

    def _note(self, status: int, throttled: bytes | None) -> bytes | None:
        self.responses.append((time.monotonic() - self.began, status, self._serving))
        return throttled


class _State:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.requests = 0
        self.throttle = _Throttle(plan) if plan.latency_s or plan.slow_s or plan.limit or plan.rate else None
        self.pages: dict[tuple[int, bytes], bytes] = {}
        self.token = _response(_TOKEN, plan=plan)
        owned = int(plan.sessions_of_user is not None)
        user = f'{{"id": "{_USER_ID}", "num_electric_vehicles": {owned}, "joined_at": "2026-01-01T00:00:00Z"}}'
        users = ", ".join(user % number for number in range(plan.users))
        self.users = _response(f"[{users}]".encode(), plan=plan)

    def vehicles(self, user_id: bytes) -> bytes:
        """The vehicle of a user: its id contains the user's number."""
        vehicle = b'[{"id": "%08x-0000-4000-8000-%s"}]' % (self.plan.sessions_of_user or 0, user_id[-12:])
        return _response(vehicle, plan=self.plan)

    def page(self, vehicle_id: bytes, query: bytes) -> bytes:
        total = sessions_of(vehicle_id)
        page = self.pages.get((total, query))
        if page is None:
            fields = parse_qs(query.decode())
            offset = int(fields.get("offset", ["0"])[0])
            limit = min(int(fields.get("limit", ["50"])[0]), self.plan.max_rows)
            rows = b", ".join(wire_rows(total)[offset : offset + limit])
            page = _response(b'{"total": %d, "items": [%s]}' % (total, rows), plan=self.plan)
            self.pages[total, query] = page
        return page


def _response(body: bytes, *, plan: Plan) -> bytes:
    encoding = b""
    if plan.gzip:
        body, encoding = gzip.compress(body, 6), b"Content-Encoding: gzip\r\n"
    fields = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + encoding
    return fields + b"Content-Length: %d\r\n\r\n" % len(body) + body


class _Connection(asyncio.Protocol):
    def __init__(self, state: _State) -> None:
        self._state = state
        self._received = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class does not inherit from it

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            if head.startswith(b"POST"):
                fields = head.lower().split(b"content-length:", 1)[1]
                size = int(fields.split(b"\r\n", 1)[0])
                if len(self._received) < end + 4 + size:
                    return
                self._received = self._received[end + 4 + size :]
                self._transport.write(self._state.token)
            else:
                self._received = self._received[end + 4 :]
                self._get(head.split(b" ", 2)[1])

    def _get(self, target: bytes) -> None:
        state = self._state
        path, _, query = target.partition(b"?")
        owner, is_list, vehicle = path.partition(b"/electric-vehicles")
        if not is_list:
            self._transport.write(state.users)
            return
        if not vehicle:
            self._transport.write(state.vehicles(owner))
            return
        state.requests += 1
        vehicle_id = vehicle[1:37]
        response = state.page(vehicle_id, query)
        if state.throttle is None:
            self._transport.write(response)
            return
        task = asyncio.create_task(self._respond(state.throttle, response, slow=is_slow(vehicle_id)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _respond(self, throttle: _Throttle, response: bytes, *, slow: bool) -> None:
        throttled = await throttle.admit(slow=slow)
        if not self._transport.is_closing():
            self._transport.write(throttled or response)


def _serve(pipe: Connection, plan: Plan, core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})

    async def run() -> None:
        state = _State(plan)
        server = await asyncio.get_running_loop().create_server(lambda: _Connection(state), "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        while await asyncio.to_thread(pipe.recv) == "counts":
            pipe.send((state.requests, state.throttle.responses if state.throttle else []))
        server.close()

    try:
        import uvloop  # noqa: PLC0415  # optional
    except ImportError:
        asyncio.run(run())
    else:
        uvloop.run(run())


@attrs.frozen
class Served:
    """The server as the client's process sees it."""

    origin: str
    _pipe: Connection

    def counts(self) -> tuple[int, list[ResponseRecord]]:
        """Return the number of requested pages, and a record of each response if the server delays or throttles."""
        self._pipe.send("counts")
        requests, responses = self._pipe.recv()
        return requests, responses


@contextmanager
def serving(plan: Plan | None = None, *, core: int | None = None) -> Iterator[Served]:
    """Run the server until the end of the block, on the given core if there is one."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, plan or Plan(), core), daemon=True)
    process.start()
    try:
        yield Served(f"http://127.0.0.1:{ours.recv()}", ours)
    finally:
        ours.send("end")
        process.join()
