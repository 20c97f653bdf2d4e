"""A process that publishes a store, and tells when it begins a given call of the target, so that a test can kill it then."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol

from podero_async.backfill import SessionStore
from podero_async.publish import TargetError, publish
from podero_async.publish._target import Target

CALLS = "execute", "copy", "commit"


class Event(Protocol):
    """An event of another process."""

    def set(self) -> None:
        """Set it."""


def count_calls(on_call: Callable[[int, str], None]) -> None:
    """Call a function with the number, from 1, and the name of each call of the target, before it is made."""
    number = 0

    def counted(name: str) -> Callable[..., Any]:
        call = getattr(Target, name)

        @wraps(call)
        def run(*arguments: Any) -> Any:
            nonlocal number
            number += 1
            on_call(number, name)
            return call(*arguments)

        return run

    for name in CALLS:
        setattr(Target, name, counted(name))


def main(path: str, url: str, at: int, reached: Event) -> None:
    """Publish a store; before call number `at`, or before the commit if it is 0, set the event. Exits with 4 on failure."""

    def on_call(number: int, name: str) -> None:
        if number == at or (at == 0 and name == "commit"):
            reached.set()

    async def run() -> None:
        async with SessionStore(path, read_only=True) as store:
            await publish(store, url)

    count_calls(on_call)
    try:
        asyncio.run(run())
    except TargetError:
        sys.exit(4)
