"""Options that several commands share, and the parsers of arguments' texts."""

from __future__ import annotations

import asyncio
import math
from argparse import Action, ArgumentParser, ArgumentTypeError
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, NoReturn
from uuid import UUID

import attrs

import podero_async
from podero_async.cli._runtime import say
from podero_async.cli._signals import Interrupted

if TYPE_CHECKING:
    from podero_async.backfill import SessionStore, Shard

__all__ = [
    "MOMENT",
    "AddArgument",
    "StoreOptions",
    "add_days",
    "add_include_hidden",
    "add_json",
    "add_memory_limit",
    "add_speed",
    "add_store",
    "client_at_speed",
    "completes_files",
    "day",
    "hours",
    "moment",
    "opened",
    "positive_number",
    "seconds",
    "shard",
    "share",
    "store",
    "uuid",
    "whole_number",
]

_DAYS_AGO = {"today": 0, "yesterday": 1}
MOMENT = "YYYY-MM-DDTHH:MM[:SS] in UTC or with an offset such as +01:00, YYYY-MM-DD, today or yesterday"
"""How a time is written."""
_MIN_PAUSE_S = 0.05
_MAX_PAUSE_S = 1.0

AddArgument = Callable[..., Action]
"""The method `add_argument` of a parser or of a group of arguments."""


def uuid(text: str) -> UUID:
    """Parse an id."""
    try:
        return UUID(text)
    except ValueError:
        raise ArgumentTypeError(f"not a uuid: {text!r}") from None


def day(text: str) -> date:
    """Parse a UTC day: `YYYY-MM-DD`, `today` or `yesterday`."""
    if text in _DAYS_AGO:
        return datetime.now(UTC).date() - timedelta(days=_DAYS_AGO[text])
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007 - a day; "2026-W05" would be one in ISO 8601
    except ValueError:
        raise ArgumentTypeError(f"not a day: {text!r}; write YYYY-MM-DD, today or yesterday") from None


def moment(text: str) -> datetime:
    """Parse a time such as `2026-01-31T06:00+01:00`, or the start of a UTC day; without an offset it is UTC."""
    try:
        parsed = datetime.combine(day(text), time.min) if text in _DAYS_AGO else datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"not a time: {text!r}; write {MOMENT}") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def whole_number(minimum: int, maximum: int) -> Callable[[str], int]:
    """Return a parser of whole numbers within bounds."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if not minimum <= number <= maximum:
            raise ArgumentTypeError(f"not a whole number from {minimum} to {maximum}: {text!r}")
        return number

    return parse


def shard(text: str) -> Shard:
    """Parse a shard of the fleet, `I/N`."""
    from podero_async.backfill import Shard  # noqa: PLC0415  # not every command needs it

    try:
        return Shard.parse(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def share(text: str) -> float:
    """Parse a share, from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ArgumentTypeError(f"not a number from 0 to 1: {text!r}")
    return number


def hours(text: str) -> timedelta:
    """Parse a duration in hours."""
    try:
        return timedelta(hours=float(text)) if float(text) >= 0 else _not_hours(text)
    except (ValueError, OverflowError):
        return _not_hours(text)


def _not_hours(text: str) -> NoReturn:
    raise ArgumentTypeError(f"not a number of hours: {text!r}")


def positive_number(text: str) -> float:
    """Parse a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not (number > 0 and math.isfinite(number)):
        raise ArgumentTypeError(f"not a number above 0: {text!r}")
    return number


def seconds(text: str) -> float:
    """Parse a number of seconds, at least 0."""
    return 0.0 if text == "0" else positive_number(text)


def store(text: str) -> str:
    """Parse the path of a store."""
    if text in {"", ":memory:"}:
        raise ArgumentTypeError(f"not a file: {text!r}")
    return text


def add_days(add: AddArgument, *, required: bool = True, kind: str = "UTC day") -> None:
    """Add `--from` and `--to`."""
    first, last = (f"{which} {kind}: YYYY-MM-DD, today or yesterday" for which in ("first", "last"))
    add("--from", type=day, required=required, dest="from_date", metavar="DAY", help=first)
    add("--to", type=day, required=required, dest="to_date", metavar="DAY", help=last)


def add_include_hidden(add: AddArgument) -> None:
    """Add `--include-hidden`."""
    text = "include sessions hidden by the server (plug-ins under five minutes)"
    add("--include-hidden", action="store_true", help=text)


@attrs.frozen(kw_only=True)
class StoreOptions:
    """The options of a command that opens a store; `add_store` adds their arguments."""

    store: str
    wait: float
    memory_limit: int


def add_store(parser: ArgumentParser) -> None:
    """Add `--store`, `--wait` and `--memory-limit`."""
    add = parser.add_argument_group("store").add_argument
    completes_files(add("--store", type=store, required=True, metavar="FILE", help="DuckDB file with the sessions"))
    wait = "how long to wait if another process has the store open (default: not at all)"
    add("--wait", type=seconds, default=0.0, metavar="SECONDS", help=wait)
    add_memory_limit(add)


def add_memory_limit(add: AddArgument) -> None:
    """Add `--memory-limit`."""
    memory = "the maximum size of the database's buffers (default: %(default)s)"
    add("--memory-limit", type=whole_number(16, 10_000_000), default=1024, metavar="MB", help=memory)


@asynccontextmanager
async def opened(
    options: StoreOptions, stop: asyncio.Event, *, read_only: bool = False, path: str | None = None
) -> AsyncIterator[SessionStore]:
    """Open the store of a command; if it is in use, try again until `--wait` is over, or `stop` is set.

    Args:
        options: The options of the command.
        stop: If this event is set, the wait ends. A command that a signal cancels does not need it.
        read_only: Whether to open an existing store for reading.
        path: Takes the place of `--store`.

    Raises:
        StoreInUseError: The store was in use to the end.
        Interrupted: A signal has arrived.
    """
    from podero_async.backfill import SessionStore, StoreInUseError  # noqa: PLC0415  # not every command has a store

    store = SessionStore(path or options.store, read_only=read_only, memory_limit_mb=options.memory_limit)
    async with AsyncExitStack() as opening:
        clock = asyncio.get_running_loop().time
        until, pause_s = 0.0, _MIN_PAUSE_S
        while True:
            try:
                await opening.enter_async_context(store)
                break
            except StoreInUseError as error:
                if not until and options.wait:
                    until = clock() + options.wait
                    say(f"{error}; waiting for up to {options.wait:g} s")
                left_s = until - clock()
                if left_s <= 0:
                    raise
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), min(pause_s, left_s))
                raise Interrupted
            pause_s = min(pause_s * 2, _MAX_PAUSE_S)
        yield store
    if store.close_warning:
        say(store.close_warning)


def add_speed(parser: ArgumentParser) -> None:
    """Add `--max-concurrency` and `--requests-per-second`."""
    add = parser.add_argument_group("speed").add_argument
    concurrency = "most requests in flight; the actual limit adapts below it (default: %(default)s)"
    add("--max-concurrency", type=whole_number(1, 10_000), default=64, metavar="N", help=concurrency)
    rate = "most requests per second (default: no limit)"
    add("--requests-per-second", type=positive_number, metavar="R", help=rate)


def add_json(add: AddArgument) -> None:
    """Add `--json`."""
    add("--json", action="store_true", help="print one JSON object to stdout")


def completes_files(action: Action) -> None:
    """Let a shell complete an argument with the names of files."""
    files = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}
    action.complete = files  # type: ignore[attr-defined]  # shtab reads this attribute


def client_at_speed(
    max_concurrency: int, requests_per_second: float | None, retry: podero_async.RetryPolicy | None
) -> podero_async.PoderoClient:
    """Return a client with the settings of the environment and the given limits."""
    throttle = podero_async.ThrottlePolicy(max_concurrency=max_concurrency, requests_per_second=requests_per_second)
    return podero_async.PoderoClient.from_env(retry=retry or podero_async.RetryPolicy(), throttle=throttle)
