"""`Command`: the name, help, options and coroutine of a subcommand. `Invocation`: one call of the program."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from podero_async.cli._output.progress import can_draw, show_progress
from podero_async.cli._runtime import MESSAGES, Exit
from podero_async.cli._signals import Signals

if TYPE_CHECKING:
    from podero_async import RetryPolicy
    from podero_async.backfill import Progress

__all__ = ["Command", "Invocation"]

OptionsT = TypeVar("OptionsT", bound=attrs.AttrsInstance)


@attrs.frozen(kw_only=True)
class Invocation:
    """One call of the program."""

    argv: tuple[str, ...]
    parser: argparse.ArgumentParser
    retry: RetryPolicy | None
    """If given, replaces the retry policy of each command."""
    signals: Signals
    line_every_s: float
    """Seconds between two lines of progress, when stderr is not a terminal."""
    is_quiet: bool = False
    """Whether neither progress nor a summary is shown."""

    def summarize(self, *lines: str, is_printed: bool = True) -> None:
        """Print the summary of a command that has done its work, except with `--quiet`; a log file gets it in any case."""
        for line in lines:
            MESSAGES.info("%s", line)
            if is_printed and not self.is_quiet:
                print(line)

    def shown(self, progress: Progress) -> AbstractAsyncContextManager[None]:
        """Show a progress on stderr while the block runs."""
        if self.is_quiet:
            return nullcontext()
        is_live = can_draw(sys.stderr)
        return show_progress(progress, sys.stderr, is_live=is_live, line_every_s=self.line_every_s)


@attrs.frozen
class Command(Generic[OptionsT]):
    """A subcommand of `podero-async`."""

    name: str
    description: str
    """Its first line is the summary in the list of commands; lines have at most 80 characters."""
    options: type[OptionsT]
    """An attrs class; each field is the `dest` of one argument."""
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[OptionsT, Invocation], Coroutine[Any, Any, Exit]]
    uses_api: bool = attrs.field(default=False, kw_only=True)
    """Whether the command reads credentials from the environment."""

    def start(self, parsed: argparse.Namespace, invocation: Invocation) -> Coroutine[Any, Any, Exit]:
        """Convert the parsed arguments to typed options, and return the coroutine that runs the command."""
        values = {field.name: getattr(parsed, field.name) for field in attrs.fields(self.options)}
        return self.run(self.options(**values), invocation)
