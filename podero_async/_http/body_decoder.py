"""Decode the bodies of responses without blocking the event loop for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from podero_async._http.gzip import OversizedBodyError
from podero_async._http.response import Response

__all__ = ["BodyDecoder"]

T = TypeVar("T")

_MAX_INLINE_BYTES = 16 << 10  # decoded in less time than a turn of the event loop takes
_MAX_LOOP_BYTES = 256 << 10  # decoded in 15 ms even if each row is faulty; a page of 200 sessions has 136 kB


class BodyDecoder:
    """Decode bodies without blocking the event loop for long.

    Args:
        max_inline_bytes: The largest body that is decoded without a pause for other tasks.
        max_loop_bytes: The largest body that is decoded on the event loop.
    """

    def __init__(self, *, max_inline_bytes: int = _MAX_INLINE_BYTES, max_loop_bytes: int = _MAX_LOOP_BYTES) -> None:
        self._max_inline_bytes = max_inline_bytes
        self._max_loop_bytes = max_loop_bytes
        self._lock = asyncio.Lock()
        # The event loop's own threads may be busy with another program's work. One thread decodes one body at a time, even
        # if its caller was cancelled, so few inflated bodies are in memory.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="podero_async decoding")

    def close(self) -> None:
        """Let the thread end, after the body that it decodes now."""
        self._thread.shutdown(wait=False)

    def decodes_at_once(self, response: Response, *, is_alone: bool) -> bool:
        """Return whether to decode a body without `decode`, because nothing is gained by letting other tasks run first.

        It is small, or no other request is under way (`is_alone`). A gzip body may be larger than it says.
        """
        max_bytes = self._max_loop_bytes if is_alone else self._max_inline_bytes
        return response.is_plain and response.declared_bytes <= max_bytes

    async def decode(self, response: Response, decode: Callable[[bytes], T]) -> T:
        """Inflate a body, and return the value that `decode` makes of it.

        Raises:
            CorruptBodyError, OversizedBodyError: See `Response.body`.
        """
        size = response.declared_bytes
        try:
            # 1. A small body is decoded at once.
            if size <= self._max_inline_bytes:
                return decode(response.body(self._max_loop_bytes))
            # 2. A page is decoded on the event loop, one at a time, and other tasks run in between: they send their next
            #    requests, so the server is not idle, and use the last value while it is in the CPU cache.
            if size <= self._max_loop_bytes:
                async with self._lock:
                    await asyncio.sleep(0)
                    return decode(response.body(self._max_loop_bytes))
        except OversizedBodyError:
            pass  # the body is larger than its gzip trailer declares
        # 3. A larger body is decoded in a thread.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: decode(response.body()))
