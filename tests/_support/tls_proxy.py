"""A TCP proxy on a port of its own that refuses connections, or breaks the TLS handshake, on demand.

A simulator's faults begin only after a request has arrived.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from types import TracebackType
from typing import Literal, Self

import attrs
import trustme

__all__ = ["Certificates", "ProxyMode", "TlsProxy"]

_HOST = "127.0.0.1"
_FATAL_ALERT = b"\x15\x03\x03\x00\x02\x02\x50"  # internal error

ProxyMode = Literal["open", "shut", "wrong certificate", "alert", "cut off"]
"""`shut` refuses connections. "wrong certificate", "alert" and "cut off" break the TLS handshake."""


@attrs.frozen
class Certificates:
    """TLS contexts: a server with a valid certificate, one with that of another host, and a client that trusts both."""

    valid: ssl.SSLContext
    wrong: ssl.SSLContext
    trusting: ssl.SSLContext

    @classmethod
    def issue(cls) -> Self:
        authority = trustme.CA()
        valid, wrong = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
        authority.issue_cert(_HOST).configure_cert(valid)
        authority.issue_cert("elsewhere.example").configure_cert(wrong)
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(trusting)
        return cls(valid, wrong, trusting)


class TlsProxy:
    """Forward connections to `origin`, which speaks plain HTTP. The proxy speaks TLS if it has `certificates`."""

    def __init__(self, origin: str, certificates: Certificates | None = None) -> None:
        self._target_port = int(origin.rpartition(":")[2])
        self._certificates = certificates
        # This socket is bound but does not listen. It reserves the port while the proxy is shut.
        self._reservation = socket.socket()
        self._port = 0
        self._mode: ProxyMode = "open"
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def origin(self) -> str:
        return f"{'https' if self._certificates else 'http'}://{_HOST}:{self._port}"

    async def __aenter__(self) -> Self:
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reservation.bind((_HOST, 0))
        self._port = self._reservation.getsockname()[1]
        await self.set_mode("open")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.set_mode("shut")
        self._reservation.close()

    async def set_mode(self, mode: ProxyMode) -> None:
        """Change the treatment of new connections. If the mode is `shut`, existing ones are closed, too."""
        self._mode = mode
        if mode == "shut":
            await self._shut()
        elif self._server is None:
            self._server = await asyncio.start_server(self._serve, _HOST, self._port, reuse_port=True)

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if self._certificates is None or await self._shake_hands(self._certificates, reader, writer):
                await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # one side disconnected, or the proxy was shut
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _shake_hands(
        self, certificates: Certificates, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if self._mode in {"open", "wrong certificate"}:
            await writer.start_tls(certificates.valid if self._mode == "open" else certificates.wrong)
            return True
        await reader.read(1 << 16)  # the client's hello
        if self._mode == "alert":
            writer.write(_FATAL_ALERT)
            writer.close()
            await writer.wait_closed()
        return False

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_target, to_target = await asyncio.open_connection(_HOST, self._target_port)
        try:
            copies = [asyncio.ensure_future(_copy(*pair)) for pair in ((reader, to_target), (from_target, writer))]
            try:
                await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for copy in copies:
                    copy.cancel()
                await asyncio.gather(*copies, return_exceptions=True)
        finally:
            to_target.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(1 << 16):
        target.write(data)
        await target.drain()
