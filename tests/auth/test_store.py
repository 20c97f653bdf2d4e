"""Token stores: a file that is private, replaced atomically and locked;
and the caller's own stores, which may fail or hang.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import stat
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import filelock
import pytest

from podero_async import ClientCredentials, ConfigurationError, FileTokenStore, PoderoClient, RetryPolicy, Token
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of
from tests._support.tokens import MemoryStore, ScriptedEndpoint, cache_of, refuse

TOKEN = Token(value="t0ken", refresh_token="r3fresh", renew_at=100.0, usable_until=200.0)


async def test_saved_tokens_are_loaded_by_key(tmp_path: Path) -> None:
    """Another store on the same file loads each token by its key."""
    store = FileTokenStore(tmp_path / "folder" / "tokens.json")
    async with store.lock("a"):
        await store.save("a", TOKEN)
        await store.save("b", Token(value="other"))
    again = FileTokenStore(str(tmp_path / "folder" / "tokens.json"))
    assert await again.load("a") == TOKEN
    assert await again.load("b") == Token(value="other", renew_at=math.inf, usable_until=math.inf)
    assert await again.load("c") is None


@pytest.mark.slow
async def test_a_store_that_was_used_before_a_fork_works_after_it(tmp_path: Path) -> None:
    """A store that saved a token before a fork, as under `gunicorn --preload`, loads it in the child without a wait."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", FORK, str(tmp_path / "tokens.json"))
    assert await process.wait() == 0


FORK = """
import asyncio, os, signal, sys
from podero_async import FileTokenStore, Token

async def save():
    async with store.lock("a"):
        await store.save("a", Token(value="t0ken"))

async def load():
    async with store.lock("a"):
        return await store.load("a")

store = FileTokenStore(sys.argv[1])
asyncio.run(save())
if child := os.fork():
    sys.exit(os.waitpid(child, 0)[1] != 0)
signal.alarm(5)
os._exit(asyncio.run(load()).value != "t0ken")
"""


async def test_a_file_of_an_older_version_is_read(tmp_path: Path) -> None:
    """A token file in the format of version 0.1.0 is used as it is."""
    fields = '"value": "t0ken", "refresh_token": null, "renew_at": 1795901271.5, "usable_until": null'
    (tmp_path / "t").write_text(f'{{"a": {{{fields}}}}}')
    store = FileTokenStore(tmp_path / "t")
    async with store.lock("a"):
        assert await store.load("a") == Token(value="t0ken", renew_at=1795901271.5)


async def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    """The file has mode 0600 and its directory 0700, and a wider mode is corrected by the next save."""
    path = tmp_path / "folder" / "tokens.json"
    store = FileTokenStore(path)
    async with store.lock("a"):
        await store.save("a", TOKEN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {child.name for child in path.parent.iterdir() if child.suffix != ".lock"} == {"tokens.json"}
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
        b'{"a": {"value": "x", "refresh_token": null, "renew_at": 1, "usable_until": 1}, "b": "%s"}'
        % (b"x" * (1 << 20)),
    ],
    ids=lambda content: content[:80].decode("latin-1"),
)
async def test_unreadable_content_counts_as_empty(tmp_path: Path, content: bytes) -> None:
    """A damaged, foreign or oversized file holds no token, and the next save replaces it."""
    path = tmp_path / "tokens.json"
    path.write_bytes(content)
    store = FileTokenStore(path)
    assert await store.load("a") is None
    await store.save("a", TOKEN)
    assert await store.load("a") == TOKEN


async def test_a_path_that_cannot_be_used_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If the file can be neither locked nor written, two warnings are logged and the store holds nothing."""
    (tmp_path / "file").write_text("")
    store = FileTokenStore(tmp_path / "file" / "tokens.json")
    with caplog.at_level(logging.WARNING, "podero_async"):
        async with store.lock("a"):
            assert await store.load("a") is None
            await store.save("a", TOKEN)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "t0ken" not in caplog.text


async def test_a_write_that_fails_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full, the temporary file is removed."""

    def fail(_: Path, __: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    await FileTokenStore(tmp_path / "tokens.json").save("a", TOKEN)
    assert [file for file in tmp_path.iterdir() if file.suffix != ".lock"] == []


async def test_the_lock_excludes_other_stores(tmp_path: Path) -> None:
    """A second store on the same file waits until the first one releases the lock of the key."""
    store, other = FileTokenStore(tmp_path / "t"), FileTokenStore(tmp_path / "t")
    order = []

    async def wait_for_it() -> None:
        async with other.lock("a"):
            order.append("second")

    async with store.lock("a"):
        waiting = asyncio.create_task(wait_for_it())
        await asyncio.sleep(0.05)
        order.append("first")
    await waiting
    assert order == ["first", "second"]


async def test_a_token_request_of_other_credentials_is_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While one key is locked, another one on the same file is locked, saved and loaded at once, and no token is lost."""
    store, other = FileTokenStore(tmp_path / "t"), FileTokenStore(tmp_path / "t", lock_timeout_s=0)
    async with store.lock("a"), other.lock("b"):
        saves = [
            asyncio.gather(store.save(f"a{number}", TOKEN), other.save(f"b{number}", TOKEN)) for number in range(20)
        ]
        await asyncio.gather(*saves)
    assert [await store.load(f"{name}{number}") for name in "ab" for number in range(20)] == [TOKEN] * 40
    assert caplog.messages == []


async def test_after_the_timeout_a_store_goes_on_without_the_lock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If another process keeps the lock, a store waits for `lock_timeout_s`, logs a warning and goes on."""
    store, other = FileTokenStore(tmp_path / "t"), FileTokenStore(tmp_path / "t", lock_timeout_s=0.03)
    async with store.lock("a"), other.lock("a"):
        await other.save("a", TOKEN)
    assert caplog.messages == ["the token store could not be locked within 0.03 s; going on without the lock"]
    assert await store.load("a") == TOKEN


@pytest.mark.parametrize(
    "arguments",
    [
        *({"path": path} for path in ("", "/", "..", None, 5)),
        *({"lock_timeout_s": value} for value in ("a", -1, math.nan)),
    ],
)
def test_a_file_store_without_a_file_name_or_a_time_is_refused(arguments: dict[str, Any]) -> None:
    """A path without a file name and a time that is not a number of seconds are a `ConfigurationError` at once."""
    with pytest.raises(ConfigurationError, match="must"):
        FileTokenStore(**{"path": "t", **arguments})


async def test_a_cancelled_waiter_does_not_take_the_lock_later(tmp_path: Path) -> None:
    """If a waiter is cancelled, the lock is free once its holder has released it."""
    store, other = FileTokenStore(tmp_path / "t"), FileTokenStore(tmp_path / "t")

    async def wait_for_it() -> None:
        async with store.lock("a"):
            pytest.fail("taken after the cancellation")

    async with other.lock("a"):
        waiting = asyncio.create_task(wait_for_it())
        await asyncio.sleep(0.03)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
    assert await is_free(tmp_path / "t")


async def is_free(path: Path) -> bool:
    with filelock.FileLock(f"{path}.lock", timeout=60):  # for a thread that is about to release it
        pass
    async with asyncio.timeout(30), FileTokenStore(path, lock_timeout_s=60).lock("a"):
        return True


@pytest.fixture
def _locks_are_not_released_by_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filelock.FileLock, "__del__", lambda _: None)


@pytest.mark.usefixtures("_locks_are_not_released_by_the_collector")
async def test_a_caller_that_is_cancelled_at_any_moment_leaves_nothing(tmp_path: Path) -> None:
    """A lock, a load and a save that are cancelled leave no lock and no temporary file, and a save is whole or absent."""
    path, tokens = tmp_path / "t", [Token(value=f"token-{number}", refresh_token="x" * 5000) for number in range(200)]
    store = FileTokenStore(path)
    await store.save("a", TOKEN)

    async def renew(token: Token) -> None:
        async with store.lock("a"):
            assert await store.load("a")
            await store.save("a", token)

    cancelled = 0
    for number, token in enumerate(tokens):
        renewal = asyncio.create_task(renew(token))
        for _ in range(number % 12):
            await asyncio.sleep(0 if number % 2 else 0.0002)
        renewal.cancel()
        await asyncio.wait([renewal])
        cancelled += renewal.cancelled()
        assert await store.load("a") in [TOKEN, *tokens[: number + 1]]
    assert 0 < cancelled < len(tokens)
    assert await is_free(tmp_path / "t")
    assert {file.name for file in tmp_path.iterdir() if file.suffix != ".lock"} == {"t"}


@pytest.mark.parametrize(
    ("operation", "cancels"), [("mkdir", 1), ("replace", 2)]
)  # the second ends the wait for the release
@pytest.mark.usefixtures("_locks_are_not_released_by_the_collector")
async def test_a_disk_that_hangs_holds_up_no_cancelled_caller(
    operation: str, cancels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk hangs, a caller that is cancelled ends; later its lock is free, and the last token that was to be
    saved is saved, since the server may accept no older refresh token.
    """
    store, goes_on = FileTokenStore(tmp_path / "t"), threading.Event()
    work = getattr(Path, operation)

    def hang(*arguments: Any, **options: Any) -> Any:
        assert goes_on.wait(60)
        return work(*arguments, **options)

    monkeypatch.setattr(Path, operation, hang)

    async def renew() -> None:
        async with store.lock("a"):
            await store.save("a", Token(value="older"))

    for calls in (renew(), store.save("a", TOKEN)):
        task = asyncio.create_task(calls)
        for _ in range(cancels):
            await asyncio.sleep(0.02)
            task.cancel()
        await asyncio.wait([task], timeout=60)
        assert task.cancelled()
    goes_on.set()
    assert await store.load("a") == TOKEN
    assert await is_free(tmp_path / "t")


async def test_a_store_that_is_dropped_leaves_no_thread(tmp_path: Path) -> None:
    """The thread of a store ends with the store."""
    store, before = FileTokenStore(tmp_path / "t"), set(threading.enumerate())
    await store.save("a", TOKEN)
    (thread,) = set(threading.enumerate()) - before
    del store
    thread.join(60)
    assert not thread.is_alive()


async def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If filelock raises `NotImplementedError`, the store logs its message and goes on without the lock."""

    def acquire(_: object, **__: object) -> None:
        raise NotImplementedError("no locks here")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    async with FileTokenStore(tmp_path / "t").lock("a"):
        pass
    assert caplog.messages == ["the token store cannot be locked: no locks here"]


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If filelock is not installed, the error says which extra to install."""
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(ConfigurationError, match=r"podero_async\[token-store\]"):
        FileTokenStore(tmp_path / "t")


@pytest.mark.parametrize(("path", "expected"), [("~/t", "home/t"), ("folder/~/t", "folder/~/t")])
async def test_a_tilde_is_the_home_directory(
    path: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that begins with `~` is a path in the user's home directory."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    store = FileTokenStore(path)
    async with store.lock("a"):
        await store.save("a", TOKEN)
    assert (tmp_path / expected).is_file()


def test_an_unknown_home_directory_is_a_configuration_error() -> None:
    """A path in the home directory of a user that does not exist is refused."""
    with pytest.raises(ConfigurationError, match="home directory"):
        FileTokenStore("~no-such-user-of-this-machine/t")


def test_the_repr_shows_only_the_path(tmp_path: Path) -> None:
    """The `repr` of a store is its constructor call with the path."""
    assert repr(FileTokenStore(tmp_path / "t")) == f"FileTokenStore({str(tmp_path / 't')!r})"


# --- stores that fail -------------------------------------------------------------------------------------------------


class FailingStore(MemoryStore):
    """A store whose method `action` calls `fail` first."""

    def __init__(self, action: str, fail: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._action, self._fail = action, fail

    async def _begin(self, action: str) -> None:
        if action == self._action:
            await self._fail()

    @contextlib.asynccontextmanager
    async def lock(self, key: str) -> AsyncIterator[None]:  # type: ignore[override]
        await self._begin("lock")
        async with super().lock(key):
            yield
        await self._begin("unlock")

    async def load(self, key: str) -> Token | None:
        await self._begin("load")
        return self.tokens.get(key)

    async def save(self, key: str, token: Token) -> None:
        await self._begin("save")
        self.tokens[key] = token


async def fail() -> None:
    raise ConnectionError("cannot save t0ken")


async def hang() -> None:
    await asyncio.sleep(3600)


async def await_a_cancelled_task() -> None:
    task = asyncio.create_task(hang())
    task.cancel()
    await task


@pytest.mark.leaping
@pytest.mark.parametrize("action", ["lock", "load", "save", "unlock"])
@pytest.mark.parametrize(
    ("failure", "error"),
    [(fail, "ConnectionError"), (hang, "TimeoutError"), (await_a_cancelled_task, "CancelledError")],
)
async def test_a_store_that_fails_costs_no_call(
    action: str, failure: Callable[[], Awaitable[None]], error: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If a method of a store raises or hangs, one token request serves all calls,
    and one warning names the error's type.
    """
    endpoint = ScriptedEndpoint(takes_s=0.0)
    cache = cache_of(endpoint, store=FailingStore(action, failure), store_timeout_s=2.0)
    started = asyncio.get_running_loop().time()
    for _ in range(3):
        assert await cache.get() == "token-1"
    assert asyncio.get_running_loop().time() - started <= (2.1 if action in {"lock", "load"} else 0.1)
    await asyncio.sleep(10)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [f"the token store failed to {action}: {error}"]
    assert len(endpoint.requests) == 1
    await cache.aclose()


@pytest.mark.leaping
async def test_a_store_that_hangs_costs_a_bot_no_call() -> None:
    """If a store hangs, a call with `max_elapsed=1.0` still succeeds, since the store may take only a part of that time."""
    async with PoderoSimulator(users=1, vehicles=1, sessions_per_vehicle=1) as simulator:
        for action in ("lock", "load", "save"):
            options = {"token_store": FailingStore(action, hang), "retry": RetryPolicy(max_elapsed=1.0)}
            async with client_of(simulator, **options) as client:
                assert [user async for user in client.users()]


@pytest.mark.leaping
async def test_a_token_that_is_refused_while_it_is_saved_is_not_used_again() -> None:
    """If the token is refused while the store still saves it, the next call waits for the next token."""
    endpoint = ScriptedEndpoint(takes_s=0.0)
    cache = cache_of(endpoint, store=FailingStore("save", hang), store_timeout_s=2.0)
    cache.served(await cache.get())
    assert await refuse(cache, "token-1")
    assert await cache.get() == "token-2"
    await cache.aclose()


@pytest.mark.leaping
@pytest.mark.parametrize("action", ["lock", "load", "save", "unlock"])
async def test_closing_cancels_a_store_that_hangs(action: str) -> None:
    """`aclose` ends a renewal that waits for a store, and leaves no task."""
    cache = cache_of(ScriptedEndpoint(takes_s=0.0), store=FailingStore(action, hang))
    waiting = asyncio.create_task(cache.get())
    await asyncio.sleep(0.01)
    await cache.aclose()
    await asyncio.wait([waiting])
    assert isinstance(waiting.exception(), ConfigurationError if action in {"lock", "load"} else type(None))
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"value": "t0ken\n"},
        {"value": None},
        {"value": "t0ken", "refresh_token": "a b"},
        {"value": "t0ken", "renew_at": None},
        {"value": "t0ken", "usable_until": math.nan},
    ],
)
async def test_a_store_cannot_return_an_unusable_token(fields: dict[str, Any]) -> None:
    """A token that no header can carry, or without times, cannot be made, so another one is requested."""

    async def make() -> None:
        with pytest.raises(ConfigurationError, match="must be") as caught:
            Token(**fields)
        assert "t0ken" not in str(caught.value)
        raise caught.value

    store = FailingStore("load", make)
    assert await cache_of(ScriptedEndpoint(takes_s=0.0), store=store).get() == "token-1"


async def test_a_stored_value_that_is_no_token_is_ignored() -> None:
    """If `load` returns anything but a `Token`, a token is requested."""
    store = MemoryStore(defaultdict(lambda: {"value": "x"}))  # type: ignore[arg-type, return-value]
    assert await cache_of(ScriptedEndpoint(takes_s=0.0), store=store).get() == "token-1"


@pytest.mark.parametrize("store", ["token.json", Path("token.json"), FileTokenStore, 7], ids=repr)
def test_a_store_without_the_methods_is_a_configuration_error(store: Any) -> None:
    """A path or any other object that is not a `TokenStore` is refused when the client is made."""
    with pytest.raises(ConfigurationError, match="token_store must be a TokenStore"):
        PoderoClient(UUID(int=1), ClientCredentials("a", "b"), token_store=store)


# --- processes --------------------------------------------------------------------------------------------------------


WORKER = """
import asyncio, sys
from podero_async import ClientCredentials, FileTokenStore, PoderoClient

async def main(url, org, client_id, secret, path):
    calls = 0
    credentials = ClientCredentials(client_id, secret)
    async with PoderoClient(org, credentials, base_url=url, token_store=FileTokenStore(path)) as client:

        async def call_repeatedly():
            nonlocal calls
            while not stopped:
                [_ async for _ in client.users()]
                calls += 1
                await asyncio.sleep(0.05)

        stopped = False
        callers = asyncio.gather(*(call_repeatedly() for _ in range(4)))
        await asyncio.to_thread(sys.stdin.read)  # until the parent closes it
        stopped = True
        await callers
    print(calls)

asyncio.run(main(*sys.argv[1:]))
"""


async def _call_while_tokens_expire(simulator: PoderoSimulator, path: Path, expiries: int) -> str:
    """Have eight processes call until that many tokens have expired; return a summary."""
    life_s = simulator.token_lifetime_s
    arguments = [simulator.base_url, str(simulator.org_id), simulator.client_id, simulator.client_secret, str(path)]
    workers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", WORKER, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(8)
    ]
    requested_at: set[float] = set()

    def note_requests() -> None:
        requested_at.update(request.time for request in simulator.requests if request.endpoint == "token")

    try:
        async with asyncio.timeout(60 + 2 * life_s * expiries):
            while len(requested_at) <= expiries:
                await asyncio.sleep(0.05)
                note_requests()
            outputs = await asyncio.gather(*(worker.communicate(b"") for worker in workers))
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
    calls = [int(output) for output, _ in outputs]  # a worker that failed has printed nothing
    assert min(calls) > 0
    note_requests()
    # Tokens are renewed after 0.8 of their life; two requests for the same expiry would be closer.
    assert min(later - earlier for earlier, later in pairwise(sorted(requested_at))) > 0.4 * life_s
    assert simulator.counts.tokens_issued == simulator.counts.requests["token"] == len(requested_at)
    content = path.read_text()
    assert simulator.client_secret not in content
    assert simulator.client_id not in content
    assert len(json.loads(content)) == 1
    return f"{len(workers)} processes, {sum(calls):,} calls, {len(requested_at)} token requests"


@pytest.mark.parametrize(
    "expiries", [pytest.param(1, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.soak)]
)
async def test_processes_that_share_a_file_make_one_request_per_expiry(
    tmp_path: Path, expiries: int, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """Eight processes on one token file make one token request at the start and one per expiry, and no call fails."""
    async with PoderoSimulator(users=8, vehicles=8, sessions_per_vehicle=1, token_lifetime_s=2) as simulator:
        figure = await _call_while_tokens_expire(
            simulator, tmp_path / "tokens.json", max(1, round(expiries * soak_scale))
        )
        record_property("figure", figure)
