"""A response, and how it is sent: complete, or broken by a fault."""

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

_MIN_COMPRESSED_BYTES = 1024
_JSON = "application/json; charset=utf-8"
_LINGER_RESET = struct.pack("ii", 1, 0)  # closing sends RST instead of FIN

Sleep = Callable[[float], Awaitable[bool]]
"""Sleeps for a number of seconds; returns False as soon as the simulator closes."""


@attrs.frozen
class Response:
    """Status, body and headers, before compression."""

    status: int
    body: bytes
    content_type: str = _JSON
    headers: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def of(cls, status: int, value: object, headers: Mapping[str, str] | None = None) -> Response:
        """Make a response with a JSON body."""
        return cls(status, encode(value), headers=headers or {})

    @classmethod
    def of_detail(cls, status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
        return cls.of(status, {"detail": detail}, headers)


class RefusedError(Exception):
    """The request is refused with this response."""

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response


def reset_connection(request: web.Request) -> web.StreamResponse:
    """Drop the connection with a TCP RST."""
    if transport := request.transport:  # None if the client has already gone
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        transport.abort()
    return web.Response()  # aiohttp requires one, and finds the connection closed


async def send(request: web.Request, response: Response, fault: Fault | None, sleep: Sleep) -> web.StreamResponse:
    """Send a response, compressed if the client accepts gzip, and broken if there is a fault that breaks it."""
    headers, body = dict(response.headers) | {"Content-Type": response.content_type}, response.body
    if len(body) > _MIN_COMPRESSED_BYTES and "gzip" in request.headers.get("Accept-Encoding", ""):
        body = gzip.compress(body, compresslevel=1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    if fault is None or fault.kind not in {"drip", "reset", "truncated"}:
        return web.Response(status=response.status, body=body, headers=headers)
    stream = web.StreamResponse(status=response.status, headers=headers | {"Content-Length": str(len(body))})
    await stream.prepare(request)
    if fault.kind == "drip":
        await _drip(stream, body, fault, sleep)
    else:
        await _break_off(request, stream, body, fault)
    return stream


async def _drip(stream: web.StreamResponse, body: bytes, fault: Fault, sleep: Sleep) -> None:
    size = fault.chunk_bytes or 1024
    for start in range(0, len(body), size):
        if not await sleep(0.01 if fault.seconds is None else fault.seconds):
            return
        await stream.write(body[start : start + size])


async def _break_off(request: web.Request, stream: web.StreamResponse, body: bytes, fault: Fault) -> None:
    sent = len(body) // 2 if fault.after_bytes is None else fault.after_bytes
    await stream.write(body[: min(sent, len(body) - 1)])
    if fault.kind == "reset":
        # A reset discards unsent bytes: let the event loop write them to the kernel first.
        await asyncio.sleep(0)
        reset_connection(request)
    elif transport := request.transport:
        transport.close()


def sleep_unless(closing: asyncio.Future[None]) -> Sleep:
    """Make a `Sleep` that ends when the future is done, so that no request outlives the simulator."""

    async def sleep(seconds: float) -> bool:
        if seconds > 0:
            await asyncio.wait({closing}, timeout=None if math.isinf(seconds) else seconds)
        return not closing.done()

    return sleep
