"""The lifetime of the simulator's HTTP server: in the running event loop, or in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

import attrs
from aiohttp import web

from podero_async.testing._server import Server

_HOST = "127.0.0.1"
_SHUTDOWN_S = 1.0  # enough for any response, since closing wakes the requests that sleep


@attrs.define
class Listener:
    """Serves an application on a loopback port. It starts once, and stops once."""

    _server: Server
    _port: int
    _ssl_context: ssl.SSLContext | None
    _runner: web.AppRunner | None = attrs.field(default=None, init=False)
    _socket: socket.socket | None = attrs.field(default=None, init=False)
    _thread: threading.Thread | None = attrs.field(default=None, init=False)
    _end_thread: Callable[[], object] = attrs.field(default=lambda: None, init=False)
    is_serving: bool = attrs.field(default=False, init=False)

    @property
    def origin(self) -> str:
        """The origin of the API, also after the simulator has stopped.

        Raises:
            RuntimeError: The simulator has not started, so its port is not known.
        """
        if self._socket is None:
            raise RuntimeError("the simulator has not started: enter it first, by `async with` or `with`")
        return f"{'https' if self._ssl_context else 'http'}://{_HOST}:{self._port}"

    async def start(self) -> None:
        """Listen in the running event loop.

        Raises:
            OSError: The port is in use.
            RuntimeError: The simulator was started before.
        """
        if self._runner is not None:
            raise RuntimeError("a simulator can be started only once: create another one")
        # A request is cancelled when its client disconnects, even if it hangs.
        self._runner = runner = web.AppRunner(
            self._server.app(), handler_cancellation=True, access_log=None, shutdown_timeout=_SHUTDOWN_S
        )
        await runner.setup()
        try:
            listening = socket.create_server((_HOST, self._port))
            await web.SockSite(runner, listening, ssl_context=self._ssl_context).start()
        except OSError:
            await runner.cleanup()
            raise
        self._socket, self._port = listening, listening.getsockname()[1]
        self.is_serving = True

    async def stop(self) -> None:
        """End all requests and connections."""
        if self._runner is None or self._socket is None or not self.is_serving:
            return
        self.is_serving = False
        # aiohttp would leave a connection open that is accepted while the server closes: accept no more, and let the
        # event loop process those that were accepted. (uvloop and Windows have no reader to remove.)
        with suppress(NotImplementedError):
            asyncio.get_running_loop().remove_reader(self._socket)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._server.close()
        await self._runner.cleanup()

    def start_thread(self) -> None:
        """Listen in a new thread; the errors are those of `start`."""
        started: Future[Callable[[], object]] = Future()
        # A daemon, so that a program that never stops it can still end.
        thread = threading.Thread(target=self._serve, args=(started,), name="podero-simulator", daemon=True)
        thread.start()
        try:
            self._end_thread = started.result()
        except (OSError, RuntimeError):
            thread.join()
            raise
        self._thread = thread

    def stop_thread(self) -> None:
        """End the thread, and wait for its end."""
        self._end_thread()
        if self._thread is not None:
            self._thread.join()

    def _serve(self, started: Future[Callable[[], object]]) -> None:
        async def serve() -> None:
            await self.start()
            loop, end = asyncio.get_running_loop(), asyncio.Event()
            started.set_result(lambda: loop.call_soon_threadsafe(end.set) if self.is_serving else None)
            await end.wait()
            await self.stop()

        # Not the loop of the event loop policy, which a test may have replaced.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            try:
                runner.run(serve())
            except Exception as error:
                if started.done():
                    raise
                started.set_exception(error)
