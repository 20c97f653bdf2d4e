"""`main`: builds the parser, runs one command, and turns its error into one line on stderr and an exit code."""

from __future__ import annotations

import argparse
import errno
import logging
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from podero_async._failures import advice_on
from podero_async._version import __version__
from podero_async.cli._command import Command, Invocation
from podero_async.cli._log import add_log, logged
from podero_async.cli._output.json import print_error
from podero_async.cli._runtime import (
    MESSAGES,
    Exit,
    OutputError,
    UsageError,
    discard,
    in_one_line,
    open_missing_streams,
    run_loop,
    say,
)
from podero_async.cli._signals import Interrupted, Signals, StandardOutput
from podero_async.errors import AuthenticationError, ConfigurationError, PermissionDeniedError, PoderoError

if TYPE_CHECKING:
    from podero_async import RetryPolicy

__all__ = ["COMMANDS", "load", "main", "make_parser"]

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "demo": "Backfill a simulated fleet under faults, and check every session.",
        "simulate": "Serve a simulated fleet on loopback until Ctrl-C.",
        "doctor": "Check the settings, network, TLS, clock, token and organization.",
        "users": "Print the users of the organization, with your own ids for them.",
        "vehicles": "Print the vehicles of the organization, or those of one user.",
        "sessions": "Print the completed charging sessions of a vehicle.",
        "current": "Print the active charging session of a vehicle.",
        "backfill": "Fetch the charging sessions of a fleet into a DuckDB file.",
        "status": "Print the contents of a store, its age and its failures.",
        "report": "Print the figures of a store, or write them as a page in one HTML file.",
        "sql": "Run an SQL query over a store.",
        "runs": "Print the history of a store's backfills, the newest first.",
        "verify": "Re-read the settled days of a store, and compare the sessions with the API.",
        "export": "Write the sessions of a store to a Parquet, CSV or JSON lines file.",
        "publish": "Publish the changes of a store to PostgreSQL.",
        "merge": "Make one store of several, such as those of the shards of a fleet.",
        "forget": "Erase a user or old days from a store, and keep later runs from fetching them.",
        "completion": "Print a completion script for bash, zsh or tcsh.",
    }
)
"""The commands with the first lines of their descriptions, in the order of the help. Only the one that runs is imported."""
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
  1    finished, but some data is missing, unreadable or not proven complete, or
       seems to have vanished
  2    usage, configuration (also an unknown id), or a limit of the system
  3    the credentials were refused
  4    the API, the network or the target database failed
  5    the store, or the target of an export or a merge, cannot be used
  6    days are provisional (status --check)
  129  the terminal was closed (SIGHUP)
  130  interrupted (SIGINT)
  143  terminated (SIGTERM)
"""
_PASSWORD = re.compile(r"(?<=://).*(?=@)|(?:(?<=password=)|(?<=secret=)|(?<=token=)).*", re.IGNORECASE | re.DOTALL)
"""The part of a URL, or of other parameters of a connection, that may have a password."""
_NEEDS = {"rich": "tables and bars on a terminal need rich", "shtab": "shell completion needs shtab"}
"""Modules of the extra `cli`."""
_CREDENTIALS = "check PODERO_ORG_ID and PODERO_CLIENT_SECRET, PODERO_PASSWORD or PODERO_TOKEN with podero-async doctor"
_FAILURE_MODULE = "podero_async._decode.converter"
"""A module that only failures need. If a failure is a lack of file descriptors, it could not be imported any more."""
# If no handler is set, logging writes the library's warnings to stderr.
_NO_LOGGING = logging.NullHandler()


def main(
    argv: Sequence[str] | None = None,
    *,
    commands: Sequence[Command[Any]] | None = None,
    retry: RetryPolicy | None = None,
    shutdown_s: float = 4.5,
    line_every_s: float = 10.0,
) -> int:
    """Run one command, and return the exit code of the process.

    Args:
        argv: The arguments after the program's name; None takes those of the process.
        commands: The commands to choose from; None for those of this package.
        retry: If given, replaces the retry policy of each command.
        shutdown_s: Seconds from the first signal to the forced end of the process; a supervisor kills after five.
        line_every_s: Seconds between two lines of progress, when stderr is not a terminal.
    """
    open_missing_streams()
    logging.getLogger("podero_async").addHandler(_NO_LOGGING)
    signals = Signals(shutdown_s)
    arguments = tuple(sys.argv[1:] if argv is None else argv)
    invocation = Invocation(
        argv=arguments,
        parser=make_parser(_used(arguments) if commands is None else commands),
        retry=retry,
        signals=signals,
        line_every_s=line_every_s,
    )
    with signals.handled(), _guarded_stdout(signals):
        return _end_of(invocation).value


@contextmanager
def _guarded_stdout(signals: Signals) -> Iterator[None]:
    stdout = sys.stdout
    sys.stdout = StandardOutput(stdout, signals)
    try:
        yield
    finally:
        sys.stdout = stdout


def _end_of(invocation: Invocation) -> Exit:
    """Run the command; if stdout cannot be written to any more, the command ends."""
    try:
        code = _run(invocation)
        sys.stdout.flush()
    except OutputError as error:
        discard(sys.stdout)
        if error.errno == errno.EPIPE:  # the reader closed the pipe, as `head` does when it has enough lines
            return Exit.DONE
        say(f"cannot write the output: {error.strerror}")
        return Exit.INCOMPLETE
    except Interrupted:  # while the last output was written
        return invocation.signals.exit
    return code


def _run(invocation: Invocation) -> Exit:
    try:
        _check_order(invocation.argv)
        parsed, unknown = invocation.parser.parse_known_args(invocation.argv)
        if unknown:
            invocation.parser.error(f"unrecognized arguments: {' '.join(map(_name_of, unknown))}")
        _check_days(parsed)
        command: Command[Any] = parsed.command
        with logged(verbose=parsed.verbose, log_file=parsed.log_file):
            try:
                if command.uses_api:
                    import_module(_FAILURE_MODULE)
                running = command.start(parsed, attrs.evolve(invocation, is_quiet=parsed.quiet))
                code = run_loop(invocation.signals.supervise(running))
            except (PoderoError, UsageError, OSError, Interrupted, KeyboardInterrupt, ModuleNotFoundError) as error:
                code = _explain(error, invocation)
            MESSAGES.info("%s has ended with exit code %d", command.name, code)
            return code
    except SystemExit:  # argparse has printed the help or the version
        return Exit.DONE
    except UsageError as error:
        return _explain(error, invocation)


def _check_order(arguments: Sequence[str]) -> None:
    """Check that no option is before the command: argparse would take the option's value for the command."""
    first = next(iter(arguments), "")
    if first.startswith("-") and first not in {"-h", "--help", "--version"}:
        option = first.partition("=")[0]
        raise UsageError(f"options come after the command: podero-async COMMAND {option} ... (see podero-async --help)")


def _check_days(parsed: argparse.Namespace) -> None:
    first, last = (getattr(parsed, name, None) for name in ("from_date", "to_date"))
    if first is not None and last is not None and first > last:
        raise UsageError(f"--from must not be after --to: {first} is after {last}")


def _explain(error: BaseException, invocation: Invocation) -> Exit:
    """Write one line about an error and, with `--json`, one object; return the exit code.

    Raises:
        OutputError: Stdout cannot be written to, either because of this object or before.
    """
    message: object = error
    match error:
        case OutputError():
            raise error
        case UsageError() | ConfigurationError():
            code = Exit.USAGE
        case PoderoError() if advice := advice_on(error):
            message, code = f"{error}; {advice}", Exit.USAGE
        case AuthenticationError() | PermissionDeniedError():
            message, code = f"{error}; {_CREDENTIALS}", Exit.CREDENTIALS
        case PoderoError():
            code = Exit.STORE if _is_of_store(error) else Exit.API
        case OSError():
            message, code = (
                error.strerror if error.filename is None else f"{error.strerror}: {error.filename}",
                Exit.USAGE,
            )
        case ModuleNotFoundError():
            need = _NEEDS.get((error.name or "").partition(".")[0])
            if need is None:
                raise error
            message, code = f"{need}: pip install 'podero_async[cli]'", Exit.USAGE
        case _:
            message, code = "interrupted", invocation.signals.exit
    say(message)
    if "--json" in invocation.argv:
        print_error(error, in_one_line(message), code)
    return code


def _is_of_store(error: PoderoError) -> bool:
    """Return whether an error is a `StoreError`. A command that opens a store has imported that class; others need not."""
    errors = sys.modules.get("podero_async.backfill.errors")
    return errors is not None and isinstance(error, errors.StoreError)


def _name_of(argument: str) -> str:
    """Return the name of an unknown option; its value, and any other argument, may be a secret."""
    return argument.partition("=")[0] if argument.startswith("--") else "***"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise an error of one line if the arguments are wrong, instead of printing the usage as argparse does."""
        raise UsageError(f"{_PASSWORD.sub('***', message)} (see {self.prog} --help)")


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Return a formatter of lines of at most 80 characters, even on a wider terminal."""
    width = min(80, shutil.get_terminal_size().columns)
    return argparse.RawDescriptionHelpFormatter(prog, width=width - 2)


def load(name: str) -> Command[Any]:
    """Import a command."""
    command: Command[Any] = import_module(f"podero_async.cli.commands.{name}").COMMAND
    return command


def _used(arguments: Sequence[str]) -> list[Command[Any]]:
    """Import the command that the arguments name; `completion` describes all of them."""
    name = next((text for text in arguments if not text.startswith("-")), "")
    return [load(each) for each in COMMANDS if name in {each, "completion"}]


def make_parser(commands: Sequence[Command[Any]]) -> argparse.ArgumentParser:
    """Return the parser of the given commands, which lists the other ones in its help.

    A parsed namespace has the chosen command as `command`.
    """
    parser = _Parser(
        prog="podero-async",
        description="Fetches every completed charging session from Podero's Partner API.",
        epilog=_ENVIRONMENT + _EXIT_CODES,
        formatter_class=_formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"podero-async {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    given = {command.name: command for command in commands}
    for name in dict.fromkeys((*COMMANDS, *given)):
        command = given.get(name)
        if command is None:
            subparsers.add_parser(name, help=COMMANDS[name])
            continue
        subparser = subparsers.add_parser(
            name,
            help=command.description.partition("\n")[0],
            description=command.description,
            epilog=(_ENVIRONMENT if command.uses_api else "") + _EXIT_CODES,
            formatter_class=_formatter,
            allow_abbrev=False,
        )
        command.add_arguments(subparser)
        add_log(subparser)
        subparser.set_defaults(command=command)
    return parser
