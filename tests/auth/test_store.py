"""The token file: private, atomic, locked between processes, and never a reason for a fetch to stop."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from podero_async import ConfigurationError, FileTokenStore, Token
from podero_async._auth import store as _token_store
from podero_async.testing import PoderoSimulator

TOKEN = Token(value="t0ken", refresh_token="r3fresh", renew_at=100.0, usable_until=200.0)


async def test_what_is_saved_is_loaded_and_stays_beside_others(tmp_path: Path) -> None:
    """A bot would lose its token at every restart, or two clients of one file each other's."""
    store = FileTokenStore(tmp_path / "folder" / "tokens.json")
    async with store.lock("a"):
        await store.save("a", TOKEN)
        await store.save("b", Token(value="other"))
    again = FileTokenStore(str(tmp_path / "folder" / "tokens.json"))
    assert await again.load("a") == TOKEN
    assert await again.load("b") == Token(value="other", renew_at=math.inf, usable_until=math.inf)
    assert await again.load("c") is None


async def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    """Another user of the machine could act as the partner."""
    path = tmp_path / "folder" / "tokens.json"
    store = FileTokenStore(path)
    os.umask(os.umask(0))  # whatever the umask is, the mode is explicit
    async with store.lock("a"):
        await store.save("a", TOKEN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(child.name for child in path.parent.iterdir()) == ["tokens.json", "tokens.json.lock"]
    path.chmod(0o644)
    await store.save("a", TOKEN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": 5}',
        b'{"a": {"value": 5}}',
        b'{"a": {"value": ""}}',
        b'{"a": {"value": "x", "refresh_token": 7, "renew_at": 1, "usable_until": 1}}',
        b'{"a": {"value": "x", "refresh_token": null, "renew_at": "soon", "usable_until": 1}}',
        b'{"a": {"value": "x", "refresh_token": null}}',
    ],
)
async def test_foreign_content_is_empty(tmp_path: Path, content: bytes) -> None:
    """A half-written or foreign file would stop every fetch until somebody deletes it."""
    path = tmp_path / "tokens.json"
    path.write_bytes(content)
    store = FileTokenStore(path)
    assert await store.load("a") is None
    await store.save("a", TOKEN)
    assert await store.load("a") == TOKEN


async def test_a_place_that_cannot_be_used_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A read-only disk would stop a fetch that needs no disk."""
    (tmp_path / "file").write_text("")
    store = FileTokenStore(tmp_path / "file" / "tokens.json")
    with caplog.at_level(logging.WARNING, "podero_async"):
        async with store.lock("a"):
            assert await store.load("a") is None
            await store.save("a", TOKEN)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "t0ken" not in caplog.text


async def test_a_write_that_fails_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk would fill further, with tokens in stray files."""

    def fail(_: Path, __: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    await FileTokenStore(tmp_path / "tokens.json").save("a", TOKEN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.leaping
async def test_the_lock_is_held_against_others(tmp_path: Path) -> None:
    """Two processes would renew at once, and one rotate the other's refresh token away."""
    store, other = FileTokenStore(tmp_path / "t"), FileTokenStore(tmp_path / "t")
    order = []

    async def wait_for_it() -> None:
        async with other.lock("a"):
            order.append("second")

    async with store.lock("a"):
        waiting = asyncio.create_task(wait_for_it())
        await asyncio.sleep(5)
        order.append("first")
    await waiting
    assert order == ["first", "second"]


@pytest.mark.leaping
async def test_a_lock_that_is_never_given_back_is_waited_for_30_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One hanging process would hang all others."""
    store, other = FileTokenStore(tmp_path / "t"), FileTokenStore(tmp_path / "t")
    loop = asyncio.get_running_loop()
    async with store.lock("a"):
        started = loop.time()
        async with other.lock("a"):
            assert loop.time() - started == pytest.approx(30, abs=0.5)
    assert "going on without the lock" in caplog.text


@pytest.mark.leaping
async def test_a_cancelled_waiter_does_not_take_the_lock_later(tmp_path: Path) -> None:
    """A lock taken by nobody would block every renewal."""
    store = FileTokenStore(tmp_path / "t")

    async def wait_for_it() -> None:
        async with store.lock("a"):
            pytest.fail("taken after cancellation")

    async with store.lock("a"):
        waiting = asyncio.create_task(wait_for_it())
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.sleep(1)
    async with asyncio.timeout(1), store.lock("a"):
        assert waiting.cancelled()


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ImportError would not say what to install."""
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(ConfigurationError, match=r"podero_async\[token-store\]"):
        FileTokenStore(tmp_path / "t")


def test_a_store_shows_its_path_only(tmp_path: Path) -> None:
    """A logged store would tell more than where it is."""
    assert repr(FileTokenStore(tmp_path / "t")) == f"FileTokenStore({str(tmp_path / 't')!r})"
    assert _token_store._MAX_FILE == 1 << 20


WORKER = """
import asyncio, sys
from podero_async import ClientCredentials, FileTokenStore, PoderoClient

async def main(url, org, client_id, secret, path):
    calls = 0
    credentials = ClientCredentials(client_id, secret)
    async with PoderoClient(org, credentials, base_url=url, token_store=FileTokenStore(path)) as client:

        async def call_on():
            nonlocal calls
            while not stopped:
                [_ async for _ in client.users()]
                calls += 1
                await asyncio.sleep(0.05)

        stopped = False
        callers = asyncio.gather(*(call_on() for _ in range(4)))
        await asyncio.to_thread(sys.stdin.read)  # until the parent closes it
        stopped = True
        await callers
    print(calls)

asyncio.run(main(*sys.argv[1:]))
"""


async def _call_while_tokens_expire(simulator: PoderoSimulator, path: Path, expiries: int) -> str:
    """Have 8 processes call on and on until so many tokens have expired; say what that cost."""
    lifetime_s = simulator.token_lifetime_s
    arguments = [simulator.base_url, str(simulator.org_id), simulator.client_id, simulator.client_secret, str(path)]
    workers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", WORKER, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(8)
    ]
    asked_at: set[float] = set()
    try:
        async with asyncio.timeout(20 + 2 * lifetime_s * expiries):
            while len(asked_at) <= expiries:
                await asyncio.sleep(0.05)
                asked_at |= {request.time for request in simulator.requests if request.endpoint == "token"}
            await asyncio.sleep(0.3 * lifetime_s)  # for whoever would ask for one token more
            outputs = await asyncio.gather(*(worker.communicate(b"") for worker in workers))
    except TimeoutError:
        for worker in workers:
            worker.kill()
        raise
    calls = [int(output) for output, _ in outputs]  # whoever failed has printed nothing
    assert min(calls) > 0
    assert min(later - earlier for earlier, later in pairwise(sorted(asked_at))) >= 0.79 * lifetime_s
    assert simulator.counts.tokens_issued == simulator.counts.requests["token"] == expiries + 1
    content = path.read_text()
    assert simulator.client_secret not in content
    assert simulator.client_id not in content
    assert len(json.loads(content)) == 1
    return f"{len(workers)} processes, {sum(calls):,} calls; expiries: {expiries}, token requests: {expiries + 1}"


async def test_processes_that_share_a_file_make_one_request_an_expiry(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every worker of a backend would ask for a token of its own, at its start and once an hour, or fail its calls."""
    async with PoderoSimulator(users=8, vehicles=8, sessions_per_vehicle=1, token_lifetime_s=1) as simulator:
        record_property("figure", await _call_while_tokens_expire(simulator, tmp_path / "tokens.json", 1))


@pytest.mark.soak
async def test_processes_that_share_a_file_make_one_request_an_expiry_in_the_long_run(
    tmp_path: Path, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The rarer the order in which processes renew, the longer nobody would notice."""
    expiries = max(1, round(10 * soak_scale))
    async with PoderoSimulator(users=8, vehicles=8, sessions_per_vehicle=1, token_lifetime_s=1) as simulator:
        record_property("figure", await _call_while_tokens_expire(simulator, tmp_path / "tokens.json", expiries))
