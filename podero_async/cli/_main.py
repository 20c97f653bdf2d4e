"""`main`: builds the parser, runs one command, and turns its error into one line on stderr and an exit code."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from podero_async import RetryPolicy
from podero_async._version import __version__
from podero_async.backfill import StoreError
from podero_async.cli._command import Command, Invocation
from podero_async.cli._runtime import Exit, UsageError, discard, open_missing_streams, run_loop, say
from podero_async.cli.commands import backfill, completion, doctor, export, runs, sessions, simulate, status, verify
from podero_async.cli.commands.demo import command as demo
from podero_async.errors import AuthenticationError, ConfigurationError, PermissionDeniedError, PoderoError

__all__ = ["COMMANDS", "main", "make_parser"]

COMMANDS: tuple[Command[Any], ...] = (
    demo.COMMAND,
    simulate.COMMAND,
    doctor.COMMAND,
    sessions.COMMAND,
    backfill.COMMAND,
    status.COMMAND,
    runs.COMMAND,
    verify.COMMAND,
    export.COMMAND,
    completion.COMMAND,
)
_ENVIRONMENT = """\
environment:
  PODERO_ORG_ID    id of the organization
  PODERO_BASE_URL  another origin than production (optional)
  and one of
  PODERO_CLIENT_ID and PODERO_CLIENT_SECRET
  PODERO_USERNAME and PODERO_PASSWORD
  PODERO_TOKEN

"""
_EXIT_CODES = """\
exit codes:
  0    done
  1    finished, but some data is missing or could not be verified as complete
  2    usage or configuration
  3    the credentials were refused
  4    the API or the network failed
  5    the store cannot be used
  6    days are provisional (status --check)
  130  interrupted (SIGINT)
  143  terminated (SIGTERM)
"""
_NEEDS = {"rich": "tables and bars on a terminal need rich", "shtab": "shell completion needs shtab"}
"""Modules of the extra `cli`."""
# If no handler is set, logging writes the library's warnings to stderr.
_NO_LOGGING = logging.NullHandler()


def main(
    argv: Sequence[str] | None = None,
    *,
    commands: Sequence[Command[Any]] = COMMANDS,
    retry: RetryPolicy | None = None,
    shutdown_s: float = 4.5,
    line_every_s: float = 10.0,
) -> int:
    """Run one command, and return the exit code of the process.

    Args:
        argv: The arguments after the program's name; None takes those of the process.
        commands: The commands to choose from.
        retry: If given, replaces the retry policy of each command.
        shutdown_s: Seconds from the first signal to the forced end of the process; a supervisor kills after five.
        line_every_s: Seconds between two lines of progress, when stderr is not a terminal.
    """
    open_missing_streams()
    logging.getLogger("podero_async").addHandler(_NO_LOGGING)
    invocation = Invocation(
        argv=tuple(sys.argv[1:] if argv is None else argv),
        parser=make_parser(commands),
        retry=retry,
        shutdown_s=shutdown_s,
        line_every_s=line_every_s,
    )
    code = Exit.DONE
    try:
        code = _run(invocation)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader closed the pipe, as `head` does when it has enough lines
        discard(sys.stdout)
    except OSError as error:
        say(f"cannot write the output: {error.strerror}")
        discard(sys.stdout)
        code = Exit.INCOMPLETE
    return code.value


def _run(invocation: Invocation) -> Exit:
    try:
        parsed = invocation.parser.parse_args(invocation.argv)
    except SystemExit as end:  # argparse has printed the help or the error
        return Exit.USAGE if end.code else Exit.DONE
    command: Command[Any] = parsed.command
    try:
        return run_loop(command.start(parsed, invocation))
    except (PoderoError, UsageError) as error:
        say(error)
        return _code_of(error)
    except KeyboardInterrupt:
        say("interrupted")
        return Exit.INTERRUPTED
    except ModuleNotFoundError as error:
        need = _NEEDS.get((error.name or "").partition(".")[0])
        if need is None:
            raise
        say(f"{need}: pip install 'podero_async[cli]'")
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
        """Exit with one line when the arguments are wrong; argparse prints the usage, too."""
        self.exit(Exit.USAGE, f"podero-async: {message} (see {self.prog} --help)\n")


def make_parser(commands: Sequence[Command[Any]] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of all commands; a parsed namespace has the chosen one as `command`."""
    parser = _Parser(
        prog="podero-async",
        description="Fetches every completed charging session from Podero's Partner API.",
        epilog=_ENVIRONMENT + _EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"podero-async {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in commands:
        subparser = subparsers.add_parser(
            command.name,
            help=command.description.partition("\n")[0],
            description=command.description,
            epilog=(_ENVIRONMENT if command.uses_api else "") + _EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(command=command)
    return parser
