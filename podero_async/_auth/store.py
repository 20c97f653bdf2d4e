"""Token stores, in which a token survives a restart and is shared between processes.

A store that fails or hangs costs a token request, never a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar, TypeVarTuple

import attrs

from podero_async._auth.credentials import is_header_safe
from podero_async._redaction import as_secret
from podero_async.errors import ConfigurationError

__all__ = ["BoundedStore", "FileTokenStore", "Token", "TokenStore"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_logger = logging.getLogger("podero_async")

_MAX_FILE_BYTES = 1 << 20
_LOCK_POLL_S = 0.02
_MAX_WRITE_LOCK_S = 2.0  # others hold it for the milliseconds of a write
_MAX_DISK_S = 5.0  # beyond the wait for the lock, for a disk that hangs


def _check_token(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not isinstance(value, str) or not is_header_safe(value):
        raise ConfigurationError(f"{attribute.name} must be printable ASCII without spaces")


def _check_time(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not isinstance(value, int | float) or math.isnan(value):
        raise ConfigurationError(f"{attribute.name} must be a number of seconds")


@attrs.frozen(kw_only=True)
class Token:
    """An access token and the times at which it is renewed and expires, in seconds since the epoch.

    Raises:
        ConfigurationError: No header can carry a token, such as one with a line break, or a time is not a number.
    """

    value: str = attrs.field(repr=False, converter=as_secret, validator=_check_token)
    refresh_token: str | None = attrs.field(
        default=None,
        repr=False,
        converter=attrs.converters.optional(as_secret),
        validator=attrs.validators.optional(_check_token),
    )
    renew_at: float = attrs.field(default=math.inf, validator=_check_time)
    usable_until: float = attrs.field(default=math.inf, validator=_check_time)


class TokenStore(Protocol):
    """Keeps tokens beyond the life of a client; a `key` is a hash of the origin and the credentials.

    Each method has a few seconds. If it takes longer or raises, a warning names the type of the error, and the client
    goes on without the lock or requests a token.
    """

    def lock(self, key: str) -> AbstractAsyncContextManager[None]:
        """Keep other processes from renewing the token while this one does."""
        ...

    async def load(self, key: str) -> Token | None:
        """Return the token that was saved last, or None."""
        ...

    async def save(self, key: str, token: Token) -> None:
        """Save the token."""
        ...


class BoundedStore:
    """Call a token store in bounded time, and log its failures instead of raising them.

    Args:
        store: The store.
        timeout_s: Seconds for one method. The lock of a `FileTokenStore` has its own `lock_timeout_s`.

    Raises:
        ConfigurationError: The store lacks one of the methods.
    """

    def __init__(self, store: TokenStore, *, timeout_s: float) -> None:
        methods = (getattr(store, name, None) for name in ("lock", "load", "save"))
        if isinstance(store, type) or not all(map(callable, methods)):
            raise ConfigurationError("token_store must be a TokenStore, such as FileTokenStore(path)")
        self._store = store
        self._timeout_s = timeout_s
        self._lock_timeout_s = None if isinstance(store, FileTokenStore) else timeout_s

    @contextlib.asynccontextmanager
    async def lock(self, key: str) -> AsyncIterator[None]:
        """Hold the store's lock, or go on without it."""
        lock = None
        with _logging_failure("lock"):
            async with asyncio.timeout(self._lock_timeout_s):
                entering = self._store.lock(key)
                await entering.__aenter__()
                lock = entering
        try:
            yield
        finally:
            if lock is not None:
                with _logging_failure("unlock"):
                    async with asyncio.timeout(self._timeout_s):
                        await lock.__aexit__(*sys.exc_info())

    async def load(self, key: str) -> Token | None:
        """Return the stored token, or None."""
        token: object = None
        with _logging_failure("load"):
            async with asyncio.timeout(self._timeout_s):
                token = await self._store.load(key)
        return token if isinstance(token, Token) else None

    async def save(self, key: str, token: Token) -> None:
        """Save the token, or go on without."""
        with _logging_failure("save"):
            async with asyncio.timeout(self._timeout_s):
                await self._store.save(key, token)


@contextlib.contextmanager
def _logging_failure(action: str) -> Iterator[None]:
    try:
        yield
    except (Exception, asyncio.CancelledError) as error:  # a store may be the caller's own code
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # else the store awaited something that was cancelled
        # The message of the error may repeat the token.
        _logger.warning("the token store failed to %s: %s", action, type(error).__name__)


class FileTokenStore:
    """Keep tokens in one JSON file of mode 0600, which is replaced atomically and locked between processes.

    The file holds access and refresh tokens unencrypted, but not the credentials. Beside it are lock files: one for writes,
    and one for each key, so that a long token request does not delay other credentials. If the file cannot be locked or
    written, the store logs a warning, and the client goes on. All disk work is done in one thread. If a caller is
    cancelled, a save that it began still runs to its end, and a lock that it waited for is not kept.

    Args:
        path: The file; `~` is the home directory. Its directory is created if needed.
        lock_timeout_s: Seconds to wait for the lock, so that a process that hangs with it does not stop all others.

    Raises:
        ConfigurationError: The extra `token-store` (filelock) is not installed, or an argument is wrong.
    """

    def __init__(self, path: str | os.PathLike[str], *, lock_timeout_s: float = 30.0) -> None:
        if find_spec("filelock") is None:
            raise ConfigurationError("FileTokenStore needs the extra: pip install 'podero_async[token-store]'")
        try:
            self._path = Path(path).expanduser()
        except RuntimeError:
            raise ConfigurationError("the home directory in the token store's path is unknown") from None
        except TypeError:
            self._path = Path()
        if self._path.name in {"", ".."}:
            raise ConfigurationError("the token store's path must name a file")
        if isinstance(lock_timeout_s, bool) or not isinstance(lock_timeout_s, int | float) or not lock_timeout_s >= 0:
            raise ConfigurationError("lock_timeout_s must be a number of seconds, at least 0")
        self._lock_timeout_s = lock_timeout_s
        self._thread: ThreadPoolExecutor | None = None
        self._pid = 0  # of the process that has the thread

    def __repr__(self) -> str:
        return f"FileTokenStore({str(getattr(self, '_path', None))!r})"  # unset if __init__ failed

    @contextlib.asynccontextmanager
    async def lock(self, key: str) -> AsyncIterator[None]:
        """Hold the lock of a key between processes; after `lock_timeout_s`, go on without it."""
        held = contextlib.ExitStack()
        is_entered = False
        try:
            await self._acquire(held, key)
            is_entered = True
            yield
        finally:
            # The thread runs this after an attempt that a cancelled caller has left.
            releasing = self._in_thread(held.close)
            if is_entered:
                await asyncio.shield(releasing)

    async def load(self, key: str) -> Token | None:
        """Return the token saved under `key`; None if it is missing or unreadable."""
        fields: Any = (await self._in_thread(self._read)).get(key)
        try:
            return Token(
                value=fields["value"],
                refresh_token=fields["refresh_token"] or None,
                renew_at=_as_time(fields["renew_at"]),
                usable_until=_as_time(fields["usable_until"]),
            )
        except (TypeError, KeyError, ValueError, OverflowError):
            return None

    async def save(self, key: str, token: Token) -> None:
        """Save the token beside the others in the file."""
        fields = {name: None if value == math.inf else value for name, value in attrs.asdict(token).items()}
        try:
            # Shielded, since the server may accept no older refresh token than this one.
            await asyncio.shield(self._in_thread(self._write, key, fields))
        except OSError as error:
            _logger.warning("the token store cannot be written: %s", error.strerror)

    async def _acquire(self, held: contextlib.ExitStack, key: str) -> None:
        now = asyncio.get_running_loop().time
        give_up_at = now() + self._lock_timeout_s
        is_locked = False
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lock_timeout_s + _MAX_DISK_S):
                    while (  # noqa: ASYNC110
                        not (is_locked := await self._in_thread(self._try_lock, held, key)) and now() < give_up_at
                    ):
                        await asyncio.sleep(_LOCK_POLL_S)
        except (OSError, NotImplementedError) as error:  # the latter if the file system has no locks
            _logger.warning("the token store cannot be locked: %s", getattr(error, "strerror", None) or error)
        else:
            if not is_locked:
                message = "the token store could not be locked within %g s; going on without the lock"
                _logger.warning(message, self._lock_timeout_s)

    def _in_thread(self, work: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        if self._thread is None or self._pid != os.getpid():  # a forked process does not inherit the thread
            self._thread, self._pid = ThreadPoolExecutor(1, thread_name_prefix="podero_async token store"), os.getpid()
        return asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    # These run in the thread.

    def _try_lock(self, held: contextlib.ExitStack, key: str) -> bool:
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        with contextlib.suppress(TimeoutError):
            held.enter_context(self._lock_file(f"{name}.lock", timeout_s=0))
            return True
        return False

    def _lock_file(self, suffix: str, *, timeout_s: float) -> AbstractContextManager[object]:
        from filelock import FileLock  # noqa: PLC0415  # in an extra, and its import takes 20 ms

        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path, blocking = f"{self._path}.{suffix}", timeout_s > 0
        return FileLock(path, mode=0o600, timeout=timeout_s, blocking=blocking, thread_local=False)

    def _write(self, key: str, fields: dict[str, Any]) -> None:
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError, NotImplementedError):  # no locks, or a process that hangs
                held.enter_context(self._lock_file("lock", timeout_s=_MAX_WRITE_LOCK_S))
            self._replace(json.dumps(self._read() | {key: fields}))

    def _replace(self, content: str) -> None:
        if self._path.exists() and not self._path.is_file():
            raise OSError(errno.EINVAL, "it is not a regular file")  # never replace a device, such as /dev/null
        path = self._path.resolve()  # keeps a symbolic link
        # mkstemp creates the file with mode 0600, in the same directory, so that the replacement is atomic.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(content)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _read(self) -> dict[str, Any]:
        """Read the file; a missing, unreadable, oversized or foreign file counts as empty."""
        try:
            with self._path.open("rb") as file:
                content = json.loads(file.read(_MAX_FILE_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}


def _as_time(value: Any) -> float:
    return math.inf if value is None else float(value)
