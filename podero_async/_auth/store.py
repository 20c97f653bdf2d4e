"""Where a token survives a restart and is shared between processes: one file, mode 0600.

A store that cannot be read or written costs a token request, never a fetch.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import math
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import attrs

from podero_async._auth.credentials import is_header_safe
from podero_async._redaction import as_secret
from podero_async.errors import ConfigurationError

__all__ = ["FileTokenStore", "Token", "TokenStore"]

_logger = logging.getLogger("podero_async")

_MAX_FILE = 1 << 20
_MAX_LOCK_S = 30.0  # a process that hangs with the lock held must not hang all others
_POLL_S = 0.02


@attrs.frozen(kw_only=True)
class Token:
    """An access token and how long it serves. Times are seconds since the epoch."""

    value: str = attrs.field(repr=False, converter=as_secret)
    refresh_token: str | None = attrs.field(default=None, repr=False, converter=attrs.converters.optional(as_secret))
    renew_at: float = math.inf
    usable_until: float = math.inf


class TokenStore(Protocol):
    """A place for tokens that outlives the client; `key` names the origin and the credentials without telling them.

    None of the three may raise for what is wrong with the place itself: what cannot be loaded is None.
    """

    def lock(self, key: str) -> AbstractAsyncContextManager[None]:
        """Hold off other processes while this one renews the token."""
        ...

    async def load(self, key: str) -> Token | None:
        """Return the token that was saved last."""
        ...

    async def save(self, key: str, token: Token) -> None:
        """Keep the token."""
        ...


class FileTokenStore:
    """Keep tokens in one JSON file of mode 0600, replaced atomically and locked between processes.

    Needs the extra `token-store` (filelock). The file holds access and refresh tokens in the clear, and nothing that
    says whose they are. The lock stands beside it, as `<name>.lock`.

    Raises:
        ConfigurationError: The extra is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            import filelock  # noqa: PLC0415  # an extra, wanted only here
        except ImportError:
            raise ConfigurationError(
                "FileTokenStore needs the extra: pip install 'podero_async[token-store]'"
            ) from None
        self._path = Path(path)
        self._timeout_error = filelock.Timeout
        self._lock_class = filelock.FileLock

    def __repr__(self) -> str:
        return f"FileTokenStore({str(self._path)!r})"

    @contextlib.asynccontextmanager
    async def lock(self, key: str) -> AsyncIterator[None]:  # noqa: ARG002  # one lock for the whole file
        """Hold the lock between processes; after 30 s without it go on without it."""
        lock = self._lock_class(f"{self._path}.lock", mode=0o600, thread_local=False)
        try:
            await self._acquire(lock)
            yield
        finally:
            lock.release()

    async def _acquire(self, lock: Any) -> None:
        # Asked for again and again rather than waited for in a thread: a cancelled caller leaves no thread behind
        # that would take the lock later.
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _MAX_LOCK_S
        while loop.time() < give_up_at:
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock.acquire(blocking=False)
            except self._timeout_error:
                await asyncio.sleep(_POLL_S)
            except OSError as error:
                _logger.warning("the token store cannot be locked: %s", error.strerror)
                return
            else:
                return
        _logger.warning("the token store stayed locked for %s s: going on without the lock", _MAX_LOCK_S)

    async def load(self, key: str) -> Token | None:
        """Return the token saved under `key`; None where there is none, or nothing that can be read."""
        fields: Any = self._read().get(key)
        try:
            return Token(
                value=_text(fields["value"]),
                refresh_token=fields["refresh_token"] and _text(fields["refresh_token"]),
                renew_at=_time(fields["renew_at"]),
                usable_until=_time(fields["usable_until"]),
            )
        except (TypeError, KeyError, ValueError, OverflowError):
            return None

    async def save(self, key: str, token: Token) -> None:
        """Write the token beside the others of the file."""
        fields = attrs.asdict(token)
        tokens = self._read() | {key: {name: None if value == math.inf else value for name, value in fields.items()}}
        try:
            self._replace(json.dumps(tokens))
        except OSError as error:
            _logger.warning("the token store cannot be written: %s", error.strerror)

    def _replace(self, content: str) -> None:
        # mkstemp makes it 0600 from the start, and in the same folder, so that replacing it is atomic.
        if self._path.exists() and not self._path.is_file():
            raise OSError(errno.EINVAL, "it is no regular file")  # a device, say, which must not be replaced
        path = self._path.resolve()  # a link stays one
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        written = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(content)
            written.replace(path)
        except OSError:
            written.unlink(missing_ok=True)
            raise

    def _read(self) -> dict[str, Any]:
        """Read the file; what is missing, unreadable, too large or foreign is empty."""
        try:
            with self._path.open("rb") as file:
                content = json.loads(file.read(_MAX_FILE))
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}


def _text(value: Any) -> str:
    if not isinstance(value, str) or not is_header_safe(value):
        raise TypeError
    return value


def _time(value: Any) -> float:
    return math.inf if value is None else float(value)
