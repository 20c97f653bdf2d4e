"""Random and hostile bodies are decoded or refused, without other errors and within the memory cap."""

from __future__ import annotations

import gc
import gzip
import random
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from aiohttp import web

from podero_async import DecodeError, RetryPolicy, TransportError
from podero_async._decode import (
    decode_current_session,
    decode_json,
    decode_listed_vehicles,
    decode_page,
    decode_user,
    decode_users,
    describe_error,
    oauth_error_code,
    read_page,
)
from podero_async._http.gzip import CorruptBodyError, OversizedBodyError, inflate
from podero_async._http.retry_after import retry_after
from tests._support.clients import USER, serving, static_client
from tests._support.odd_bodies import bodies

CAP = 64 << 20
ONCE = RetryPolicy(max_attempts=1)
MAX_S = 2.0  # processor time of one small body


DECODERS: tuple[Callable[[bytes], object], ...] = (
    decode_page,
    read_page,
    decode_users,
    decode_user,
    decode_listed_vehicles,
    decode_current_session,
    decode_json,
    describe_error,
    oauth_error_code,
    lambda body: inflate(body, 1 << 20),
    lambda body: retry_after({"Retry-After": body.decode("latin-1")}),
)


def fuzz(count: int, seed: int) -> str:
    """Decode that many bodies, and check that each is decoded or refused; return a summary."""
    chance = random.Random(seed)
    refused = 0
    gc.freeze()  # so that objects of other tests do not count
    for number, body in zip(range(count), bodies(chance), strict=False):
        began = time.thread_time()
        try:
            chance.choice(DECODERS)(body)
        except (DecodeError, CorruptBodyError, OversizedBodyError) as error:
            refused += 1
            assert getattr(error, "json_path", "$").startswith("$")
        except Exception as error:
            raise AssertionError(f"seed {seed}, body {number}: {type(error).__name__} of {body[:200]!r}") from error
        assert time.thread_time() - began < MAX_S, f"seed {seed}, body {number} took too long"
    gc.unfreeze()
    assert 0 < refused < count
    return f"{count:,} bodies (seed {seed}): {refused:,} refused, 0 other errors"


@pytest.mark.parametrize("count", [3_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_any_body_is_decoded_or_refused(
    count: int, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """Every decoder either returns or raises its own error, for any body."""
    record_property("figure", fuzz(round(count * soak_scale), seed=random.SystemRandom().randrange(10**6)))


def gzip_bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)), packer.flush()])


async def refuse(body: bytes, **headers: str) -> tuple[type[BaseException], int]:
    """Serve a body as a list of vehicles; return the client's error and its peak memory."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async with serving(handler) as origin, static_client(origin, retry=ONCE) as client:
        tracemalloc.start()
        try:
            with pytest.raises((DecodeError, TransportError)) as caught:
                await client.electric_vehicles(USER)
            return caught.type, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("is_honest", [True, False])
async def test_a_gzip_bomb_stays_within_the_cap(is_honest: bool) -> None:
    """256 MiB of zeros in a small gzip body are refused within three times the cap, even if the stated size is small."""
    body = gzip_bomb(256 << 20)
    if not is_honest:
        body = body[:-4] + (100).to_bytes(4, "little")  # the stated size
    error, peak_bytes = await refuse(body, Content_Encoding="gzip")
    assert error is TransportError
    assert peak_bytes < 3 * CAP


@pytest.mark.parametrize(
    ("before", "repeated", "after"),
    [
        pytest.param(b"[", b" ", b"x", marks=pytest.mark.slow),
        pytest.param(b"[", b"[],", b"[]]", marks=pytest.mark.soak),
        pytest.param(b"[", b"{},", b"{}]", marks=pytest.mark.slow),
        pytest.param(b'["', b"\\u0041", b'"]', marks=pytest.mark.slow),
        pytest.param(b"", b"9", b"", marks=pytest.mark.slow),
    ],
)
async def test_an_invalid_body_of_7_mb_stays_within_the_cap(before: bytes, repeated: bytes, after: bytes) -> None:
    """7 MiB of invalid JSON, just under the cap of such a response,
    are a `DecodeError` within four times the cap of all.
    """
    body = before + repeated * ((7 << 20) // len(repeated)) + after
    error, peak_bytes = await refuse(gzip.compress(body, 1), Content_Encoding="gzip")
    assert error is DecodeError
    assert peak_bytes < 4 * CAP
