"""The server: the contract's paths from prepared bytes, in a process of its own, on a core of its own.

A bare protocol on uvloop, quicker than any client that is measured; it can also be far away, guarded or partly slow.
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

__all__ = ["Answered", "Plan", "Served", "serving"]

_QUEUE = 10  # requests that wait for a hidden limit before more are refused
_WINDOW_S = 1.0
_RATE_BURST = 20
_TOKEN = b'{"access_token": "benchmark", "token_type": "Bearer", "expires_in": 36000}'
_GUARDED_FIELDS = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n"
_NO_ROOM = _GUARDED_FIELDS + b"Content-Length: 2\r\n\r\n{}"
_NOT_YET = _GUARDED_FIELDS + b"Retry-After: 1\r\nContent-Length: 2\r\n\r\n{}"


@attrs.frozen(kw_only=True)
class Plan:
    """How the server answers."""

    gzip: bool = False
    most_rows: int = 200
    latency_s: float = 0.0
    slow_s: float = 0.0
    """Latency of the vehicles that are marked slow."""
    limit: int | None = None
    """Requests served at a time; a few more wait, the rest gets 429."""
    halved_after_s: float | None = None
    rate: float | None = None
    """Requests a second; the rest gets 429 with `Retry-After: 1`."""
    rate_by_window: bool = False
    """Whether the rate counts within whole seconds, instead of filling a bucket."""
    users: int = 0


Answered = tuple[float, int, int]
"""When a request was answered (seconds since the first came), its status, and how many were being served."""


class _Guard:
    """What holds requests back: latency, a hidden limit or a hidden rate."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._serving = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._bucket = plan.rate if plan.rate_by_window else _RATE_BURST
        self._filled_at = 0.0
        self.began = 0.0
        self.answered: list[Answered] = []

    async def admit(self, *, slow: bool) -> bytes | None:
        """Hold a request as long as its service takes; return what refuses it."""
        now = time.monotonic()
        self.began = self.began or now
        if self._plan.rate and not self._is_in_rate(now):
            return self._note(429, _NOT_YET)
        if self._plan.limit and self._serving >= self._limit(now):
            if len(self._waiting) >= _QUEUE:
                return self._note(429, _NO_ROOM)
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

    def _note(self, status: int, refusal: bytes | None) -> bytes | None:
        self.answered.append((time.monotonic() - self.began, status, self._serving))
        return refusal


class _State:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.requests = 0
        self.guard = _Guard(plan) if plan.latency_s or plan.slow_s or plan.limit or plan.rate else None
        self.pages: dict[tuple[int, bytes], bytes] = {}
        self.token = _answer(_TOKEN, plan=plan)
        user = (
            '{"id": "00000000-0000-4000-8000-%012x", "num_electric_vehicles": 0, "joined_at": "2026-01-01T00:00:00Z"}'
        )
        self.users = _answer(("[" + ", ".join(user % number for number in range(plan.users)) + "]").encode(), plan=plan)

    def page(self, vehicle_id: bytes, query: bytes) -> bytes:
        total = sessions_of(vehicle_id)
        page = self.pages.get((total, query))
        if page is None:
            fields = parse_qs(query.decode())
            offset = int(fields.get("offset", ["0"])[0])
            limit = min(int(fields.get("limit", ["50"])[0]), self.plan.most_rows)
            rows = b", ".join(wire_rows(total)[offset : offset + limit])
            page = _answer(b'{"total": %d, "items": [%s]}' % (total, rows), plan=self.plan)
            self.pages[total, query] = page
        return page


def _answer(body: bytes, *, plan: Plan) -> bytes:
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
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

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
        _, is_list, vehicle = path.partition(b"/electric-vehicles/")
        if not is_list:
            self._transport.write(state.users)
            return
        state.requests += 1
        vehicle_id = vehicle[:36]
        answer = state.page(vehicle_id, query)
        if state.guard is None:
            self._transport.write(answer)
            return
        task = asyncio.create_task(self._guarded(state.guard, answer, slow=is_slow(vehicle_id)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, guard: _Guard, answer: bytes, *, slow: bool) -> None:
        refusal = await guard.admit(slow=slow)
        if not self._transport.is_closing():
            self._transport.write(refusal or answer)


def _serve(pipe: Connection, plan: Plan, core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})

    async def run() -> None:
        state = _State(plan)
        server = await asyncio.get_running_loop().create_server(lambda: _Connection(state), "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        while await asyncio.to_thread(pipe.recv) == "counts":
            pipe.send((state.requests, state.guard.answered if state.guard else []))
        server.close()

    try:
        import uvloop  # noqa: PLC0415  # of the extra `bench`
    except ImportError:
        asyncio.run(run())
    else:
        uvloop.run(run())


@attrs.frozen
class Served:
    """The server, seen from the client's process."""

    origin: str
    _pipe: Connection

    def counts(self) -> tuple[int, list[Answered]]:
        """Return how many pages were asked for, and when each was answered, where the server holds them back."""
        self._pipe.send("counts")
        requests, answered = self._pipe.recv()
        return requests, answered


@contextmanager
def serving(plan: Plan | None = None, *, core: int | None = None) -> Iterator[Served]:
    """Run the server until the end of the block, on that core where one is named."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, plan or Plan(), core), daemon=True)
    process.start()
    try:
        yield Served(f"http://127.0.0.1:{ours.recv()}", ours)
    finally:
        ours.send("end")
        process.join()
