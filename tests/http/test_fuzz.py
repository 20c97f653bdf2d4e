"""Whatever comes down the wire, a call ends in its data or in one of our errors, and soon: HTTP cut, bent and joined."""

from __future__ import annotations

import asyncio
import gzip
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest

from podero_async import PoderoError, RetryPolicy, Timeouts
from tests._support.clients import USER, static_client

BODY = b'[{"id":"00000000-0000-0000-0000-000000000001"}]'
MAX_S = 30.0  # of one call, on a clock that leaps over what it waits


def whole(body: bytes = BODY, status: bytes = b"200 OK", fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), fields, body)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
ANSWERS = (
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
PIECES = (
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


def bent(chance: random.Random) -> bytes:
    """Take one of the answers, and change up to three things of it, rather at its beginning."""
    answer = bytearray(chance.choice(ANSWERS))
    for _ in range(chance.randrange(4)):
        place = chance.randrange(min(len(answer), chance.choice([60, 10**6])) or 1)
        match chance.randrange(4):
            case 0:
                answer[place : place + 1] = chance.randbytes(1)
            case 1:
                del answer[place : place + chance.randrange(1, 20)]
            case 2:
                answer[place:place] = chance.choice(PIECES)
            case _:
                del answer[place:]
    return bytes(answer)


@attrs.define
class Bender:
    """A server that answers each request with another thing, in one piece or in two, and stays or leaves."""

    chance: random.Random
    sent: bytes = b""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.sent = bent(self.chance)
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
async def bending(chance: random.Random) -> AsyncIterator[tuple[str, Bender]]:
    bender = Bender(chance)
    server = await asyncio.start_server(bender.handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", bender
    finally:
        server.close()
        await server.wait_closed()


async def fuzz(count: int, seed: int) -> str:
    """Make so many calls, and return a figure to quote."""
    loop = asyncio.get_running_loop()
    ends: Counter[str] = Counter()
    options = {"retry": RetryPolicy(max_attempts=1), "timeouts": Timeouts(connect=5, read=5, total=10)}
    async with bending(random.Random(seed)) as (origin, bender), static_client(origin, **options) as client:
        for number in range(count):
            client._transport._quiet_until["GET"] = -math.inf
            began = loop.time()
            try:
                await client.electric_vehicles(USER)
                ends["data"] += 1
            except PoderoError as error:
                ends[type(error).__name__] += 1
            except Exception as error:
                raise AssertionError(f"seed {seed}, call {number}: {error!r} of {bender.sent!r}") from error
            assert loop.time() - began < MAX_S, f"seed {seed}, call {number}: {bender.sent!r}"
    assert len(ends) > 3
    return f"{count:,} answers (seed {seed}): {', '.join(f'{kind} {times:,}' for kind, times in ends.most_common())}"


@pytest.mark.leaping
async def test_any_answer_is_data_or_an_error_of_ours(record_property: Callable[[str, object], None]) -> None:
    """A proxy's slip would end a fleet with an error that nobody catches, or hold it for ever."""
    record_property("figure", await fuzz(300, seed=random.SystemRandom().randrange(10**6)))


@pytest.mark.soak
@pytest.mark.leaping
async def test_any_answer_is_data_or_an_error_of_ours_in_the_long_run(
    soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The rarer the slip, the longer nobody would notice."""
    record_property("figure", await fuzz(round(10_000 * soak_scale), seed=random.SystemRandom().randrange(10**6)))
