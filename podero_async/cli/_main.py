"""The parser, and the way from what a command raises to one line on stderr and an exit code."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from podero_async._version import __version__
from podero_async.backfill import StoreError
from podero_async.cli._options import ENVIRONMENT
from podero_async.cli._runtime import Exit, UsageError, discard, ready_streams, run_loop, say
from podero_async.cli.commands import backfill as _backfill
from podero_async.cli.commands import doctor as _doctor
from podero_async.cli.commands import export as _export
from podero_async.cli.commands import sessions as _sessions
from podero_async.cli.commands import simulate as _simulate
from podero_async.cli.commands import status as _status
from podero_async.cli.commands import verify as _verify
from podero_async.cli.commands.demo import command as _demo
from podero_async.errors import AuthenticationError, ConfigurationError, PermissionDeniedError, PoderoError

__all__ = ["main"]

_COMMANDS = (_demo, _simulate, _doctor, _sessions, _backfill, _status, _verify, _export)
_EXIT_CODES = """\
exit codes:
  0    done
  1    finished, but something is missing, or not proven to be all
  2    usage or configuration
  3    the credentials were refused
  4    the API or the network failed
  5    the store cannot be used
  130  interrupted (SIGINT)
  143  terminated (SIGTERM)
"""
# Without a handler, logging would write the library's warnings to stderr, beside the one line of an error.
_SILENCE = logging.NullHandler()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return the exit code of the process.

    Args:
        argv: The arguments after the program's name; None takes those of the process.
    """
    ready_streams()
    logging.getLogger("podero_async").addHandler(_SILENCE)
    code = Exit.DONE
    try:
        code = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        discard(sys.stdout)
    except OSError as error:
        say(f"cannot write the output: {error.strerror}")
        discard(sys.stdout)
        code = Exit.INCOMPLETE
    return code.value


def _run(argv: Sequence[str] | None) -> Exit:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parser().parse_args(words, argparse.Namespace(argv=words))
    except SystemExit as end:  # argparse has said all there is to say
        return Exit.USAGE if end.code else Exit.DONE
    try:
        return run_loop(arguments.run(arguments))
    except (PoderoError, UsageError) as error:
        say(error)
        return _code_of(error)
    except KeyboardInterrupt:
        say("interrupted")
        return Exit.INTERRUPTED
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        say("a terminal's tables and bars need rich: pip install 'podero_async[cli]'")
        return Exit.USAGE


def _code_of(error: PoderoError | UsageError) -> Exit:
    match error:
        case UsageError() | ConfigurationError():
            return Exit.USAGE
        case AuthenticationError() | PermissionDeniedError():
            return Exit.CREDENTIALS
        case StoreError():
            return Exit.STORE
    return Exit.API


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with one line, instead of the usage and another one."""
        self.exit(Exit.USAGE, f"podero-async: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="podero-async",
        description="Charging sessions from Podero's Partner API, every one of them.",
        epilog=ENVIRONMENT,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"podero-async {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    parsers = [parser]
    for command in _COMMANDS:
        parsers.append(command.add_to(commands))
        parsers[-1].set_defaults(run=command.run)
    for each in parsers:
        each.formatter_class = argparse.RawDescriptionHelpFormatter
        each.epilog = f"{each.epilog or ''}\n{_EXIT_CODES}".strip()
    return parser
