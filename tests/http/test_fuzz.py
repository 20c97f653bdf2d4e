"""Responses that are cut, mutated and joined at random end a call in its data or in one of our errors, in time."""

from __future__ import annotations

import asyncio
import gzip
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest

from podero_async import ApiError, PoderoClient, PoderoError, RetryPolicy, Timeouts
from tests._support.clients import USER, static_client

BODY = b'[{"id":"00000000-0000-0000-0000-000000000001"}]'
ONCE = RetryPolicy(max_attempts=1)
TIMEOUTS = Timeouts(connect=5, read=5, total=10)
MAX_CALL_S = 60.0  # a leaping loop may leap while a thread decodes a body


def whole(body: bytes = BODY, status: bytes = b"200 OK", fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), fields, body)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
RESPONSES = (
    whole(),
    whole(gzip.compress(BODY), fields=b"Content-Encoding: gzip\r\n"),
    CHUNKED,
    CHUNKED.replace(b"chunked", b"gzip, chunked", 1),
    whole(b"{}", b"429 Too Many Requests", b"Retry-After: 1\r\n"),
    whole(b"", b"302 Found", b"Location: /x\r\nSet-Cookie: a=b; Domain=x\r\n"),
    whole(b"", b"204 No Content"),
    whole(b"", b"304 Not Modified"),
    b"HTTP/1.1 100 Continue\r\n\r\n" + whole(),
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + whole(),
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
    whole(fields=b"Content-Encoding: deflate\r\n"),
    whole(fields=b"Content-Encoding: zstd\r\n"),
    whole(fields=b'Content-Type: application/json; charset="\xff"\r\n'),
    whole(fields=b"X: " + b"y" * 20_000 + b"\r\n"),
    whole(fields=b"Set-Cookie: a=\x01\x02; $x=;;=; Domain==;\r\n"),
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + BODY,
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n" + BODY,
    b"HTTP/1.1 9999999999 x\r\n\r\n",
    b"\r\n" * 100,
)
FRAGMENTS = (
    b"\r\n",
    b"\n",
    b"\x00",
    b"\xff",
    b":",
    b"HTTP/1.1 ",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Encoding: gzip\r\n",
    b"FFFFFFFFFFFFFFFF\r\n",
    b"Retry-After: Thu, 99\r\n",
)


def mutated(chance: random.Random) -> bytes:
    """Return one of the responses with up to three changes, most of them near its beginning."""
    response = bytearray(chance.choice(RESPONSES))
    for _ in range(chance.randrange(4)):
        at = chance.randrange(min(len(response), chance.choice([60, 10**6])) or 1)
        match chance.randrange(4):
            case 0:
                response[at : at + 1] = chance.randbytes(1)
            case 1:
                del response[at : at + chance.randrange(1, 20)]
            case 2:
                response[at:at] = chance.choice(FRAGMENTS)
            case _:
                del response[at:]
    return bytes(response)


@attrs.define
class MutatingServer:
    """Send a mutated response to each request, in one or two chunks, and close most connections afterwards."""

    chance: random.Random
    sent: bytes = b""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.sent = mutated(self.chance)
                cut = self.chance.choice([0, self.chance.randrange(len(self.sent) + 1)])
                writer.write(self.sent[:cut])
                await asyncio.sleep(0)
                writer.write(self.sent[cut:])
                await writer.drain()
                if self.chance.random() < 0.9:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def mutating_server(chance: random.Random) -> AsyncIterator[tuple[str, MutatingServer]]:
    handler = MutatingServer(chance)
    server = await asyncio.start_server(handler.handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", handler
    finally:
        server.close()
        await server.wait_closed()


async def fuzz(count: int, seed: int) -> str:
    """Make `count` calls, and return a figure to report."""
    ends: Counter[str] = Counter()
    async with mutating_server(random.Random(seed)) as (origin, server):
        while (number := ends.total()) < count:
            # One client for as long as possible, since the rest of a response on a reused connection is a case, too.
            async with static_client(origin, retry=ONCE, timeouts=TIMEOUTS) as client:
                is_blocked = False
                while not is_blocked and number < count:
                    end = await end_of_call(client, lambda: f"seed {seed}, call {number}: {server.sent!r}")  # noqa: B023
                    is_blocked = isinstance(end, ApiError) and bool(end.retry_after)
                    ends["data" if end is None else type(end).__name__] += 1
                    number += 1
    assert len(ends) > 3
    return f"{count:,} responses (seed {seed}): {', '.join(f'{kind} {times:,}' for kind, times in ends.most_common())}"


async def end_of_call(client: PoderoClient, describe: Callable[[], str]) -> PoderoError | None:
    """Return the error of one call, or None; fail if the call took too long or raised another error."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    end = None
    try:
        await client.electric_vehicles(USER)
    except PoderoError as error:
        end = error
    except Exception as error:
        raise AssertionError(f"{error!r}: {describe()}") from error
    assert loop.time() - began < MAX_CALL_S, describe()
    return end


@pytest.mark.leaping
@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.soak)])
async def test_every_response_is_data_or_an_error_of_ours(
    count: int, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """A call ends in its data or in a `PoderoError`, and within its timeout, whichever bytes the server sends."""
    record_property("figure", await fuzz(round(count * soak_scale), seed=random.SystemRandom().randrange(10**6)))
