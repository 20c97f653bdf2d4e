"""A door before a server: a port of its own that can be shut, or answer the TLS handshake in ways that a client must refuse.

What a server's own faults cannot show: they begin once a request is in.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from types import TracebackType
from typing import Literal, Self

import attrs
import trustme

__all__ = ["Door", "Keys", "Manner"]

_HOST = "127.0.0.1"
_ALERT = b"\x15\x03\x03\x00\x02\x02\x50"  # a fatal one: internal error

Manner = Literal["open", "shut", "wrong certificate", "alert", "cut off"]
"""`shut`: nothing listens. The others than `open` are ends of the TLS handshake."""


@attrs.frozen
class Keys:
    """Certificates of an authority: a good one, one for another host, and how a client trusts the authority."""

    good: ssl.SSLContext
    wrong: ssl.SSLContext
    trusting: ssl.SSLContext

    @classmethod
    def made(cls) -> Self:
        authority = trustme.CA()
        good, wrong = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
        authority.issue_cert(_HOST).configure_cert(good)
        authority.issue_cert("elsewhere.example").configure_cert(wrong)
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(trusting)
        return cls(good, wrong, trusting)


class Door:
    """Pass connections on to `origin`, which speaks plain HTTP; with `keys`, take only those that speak TLS."""

    def __init__(self, origin: str, keys: Keys | None = None) -> None:
        self._port_behind = int(origin.rpartition(":")[2])
        self._keys = keys
        # Bound, but not listening: nobody else gets the port while the door is shut.
        self._holding = socket.socket()
        self._port = 0
        self._manner: Manner = "open"
        self._listening: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    @property
    def origin(self) -> str:
        return f"{'https' if self._keys else 'http'}://{_HOST}:{self._port}"

    async def __aenter__(self) -> Self:
        self._holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._holding.bind((_HOST, 0))
        self._port = self._holding.getsockname()[1]
        await self.be("open")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.be("shut")
        self._holding.close()

    async def be(self, manner: Manner) -> None:
        """Change what happens to whoever comes; `shut` ends those who are within as well."""
        self._manner = manner
        if manner == "shut":
            await self._shut()
        elif self._listening is None:
            self._listening = await asyncio.start_server(self._enter, _HOST, self._port, reuse_port=True)

    async def _shut(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for each in self._passing:
            each.cancel()
        if self._passing:
            await asyncio.wait(self._passing)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        try:
            if self._keys is None or await self._shake_hands(self._keys, reader, writer):
                await self._pass_on(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # either side has left, or the door was shut
        finally:
            self._passing.discard(task)
            writer.transport.abort()

    async def _shake_hands(self, keys: Keys, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if self._manner in {"open", "wrong certificate"}:
            await writer.start_tls(keys.good if self._manner == "open" else keys.wrong)
            return True
        await reader.read(1 << 16)  # the client's first words
        if self._manner == "alert":
            writer.write(_ALERT)
            writer.close()
            await writer.wait_closed()
        return False

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(_HOST, self._port_behind)
        try:
            ways = [asyncio.ensure_future(_carry(*way)) for way in ((reader, requests), (answers, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            requests.transport.abort()


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(1 << 16):
        target.write(piece)
        await target.drain()
