"""An answer, and how it goes over the wire: whole, or broken in the way a fault asks for. Knows no endpoint."""

from __future__ import annotations

import asyncio
import gzip
import math
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping

import attrs
from aiohttp import web

from podero_async.testing._faults import Fault
from podero_async.testing._session_list import encode

_GZIP_FROM = 1024  # bytes: below it, compressing costs more than it saves
_JSON = "application/json; charset=utf-8"
_LINGER_RESET = struct.pack("ii", 1, 0)  # closing sends RST instead of FIN

Pause = Callable[[float], Awaitable[bool]]
"""Waits so many seconds; False where the simulator closed meanwhile."""


@attrs.frozen
class Answer:
    """Status, body and headers, before compression."""

    status: int
    body: bytes
    content_type: str = _JSON
    headers: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def of(cls, status: int, value: object, headers: Mapping[str, str] | None = None) -> Answer:
        return cls(status, encode(value), headers=headers or {})

    @classmethod
    def detail(cls, status: int, text: str, headers: Mapping[str, str] | None = None) -> Answer:
        return cls.of(status, {"detail": text}, headers)


class RefusedError(Exception):
    """The request ends here, with this answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


def reset(request: web.Request) -> web.StreamResponse:
    """Drop the connection with a TCP RST."""
    if transport := request.transport:  # None: the client was quicker
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        transport.abort()
    # aiohttp asks for a response even so, and finds out by itself that nobody is there to take it.
    return web.Response()


async def deliver(request: web.Request, answer: Answer, fault: Fault | None, pause: Pause) -> web.StreamResponse:
    """Send the answer, compressed where the client takes that, and broken where the fault says how."""
    headers, body = dict(answer.headers) | {"Content-Type": answer.content_type}, answer.body
    if len(body) > _GZIP_FROM and "gzip" in request.headers.get("Accept-Encoding", ""):
        body = gzip.compress(body, compresslevel=1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    if fault is None or fault.kind not in {"drip", "reset", "truncated"}:
        return web.Response(status=answer.status, body=body, headers=headers)
    response = web.StreamResponse(status=answer.status, headers=headers | {"Content-Length": str(len(body))})
    await response.prepare(request)
    if fault.kind == "drip":
        await _drip(response, body, fault, pause)
        return response
    await _break_off(request, response, body, fault)
    return response


async def _drip(response: web.StreamResponse, body: bytes, fault: Fault, pause: Pause) -> None:
    size = fault.chunk_bytes or 1024
    for at in range(0, len(body), size):
        if not await pause(0.01 if fault.seconds is None else fault.seconds):
            return
        await response.write(body[at : at + size])


async def _break_off(request: web.Request, response: web.StreamResponse, body: bytes, fault: Fault) -> None:
    sent = len(body) // 2 if fault.after_bytes is None else fault.after_bytes
    await response.write(body[: min(sent, len(body) - 1)])
    if fault.kind == "reset":
        # A reset discards what the kernel has not sent: give the bytes their turn of the loop first.
        await asyncio.sleep(0)
        reset(request)
    elif transport := request.transport:
        transport.close()


def pause_until(closing: asyncio.Future[None]) -> Pause:
    """Make a `Pause` that the future cuts short: no wait outlives the simulator."""

    async def pause(seconds: float) -> bool:
        if seconds > 0:
            await asyncio.wait({closing}, timeout=None if math.isinf(seconds) else seconds)
        return not closing.done()

    return pause
