"""The log of a command: the lines of the logger `podero_async`, on stderr or in a file."""

from __future__ import annotations

import logging
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from podero_async.cli._options import completes_files
from podero_async.cli._runtime import MESSAGES, UsageError, in_one_line, say

__all__ = ["add_log", "logged"]

_LIBRARY = logging.getLogger("podero_async")


def add_log(parser: ArgumentParser) -> None:
    """Add `--verbose`, `--quiet` and `--log-file`."""
    add = parser.add_argument_group("log").add_argument
    verbose = "write the log to stderr: token requests, retries, pauses and outages"
    add("-v", "--verbose", action="store_true", help=verbose)
    add("-q", "--quiet", action="store_true", help="show no progress and no summary, only errors and alarms")
    file = "append the log, the summary, all messages and the exit code of this command to a file"
    completes_files(add("--log-file", metavar="FILE", help=file))


@contextmanager
def logged(*, verbose: bool, log_file: str | None) -> Iterator[None]:
    """Write the log while the block runs.

    Raises:
        UsageError: The file cannot be opened.
    """
    level = _LIBRARY.level
    with ExitStack() as undo:
        undo.callback(_LIBRARY.setLevel, level)
        if log_file is not None:
            try:
                handler = _ToFile(log_file, encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                raise UsageError(f"cannot write the log file {log_file}: {error.strerror}") from error
            undo.callback(_close, handler)
            _add(handler, [_LIBRARY, MESSAGES], undo)
        if verbose:
            _add(_ToStderr(), [_LIBRARY], undo)
        yield


def _add(handler: logging.Handler, loggers: Sequence[logging.Logger], undo: ExitStack) -> None:
    handler.setFormatter(_Formatter())
    _LIBRARY.setLevel(logging.INFO)
    for logger in loggers:
        logger.addHandler(handler)
        undo.callback(logger.removeHandler, handler)


def _close(handler: logging.Handler) -> None:
    with suppress(OSError):  # the disk may be full
        handler.close()


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return one line, with the time in UTC."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{moment}.{int(record.msecs):03}Z {record.levelname} {in_one_line(record.getMessage())}"


class _ToStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Write a line to the current `sys.stderr`, since a progress bar replaces it while it is shown."""
        with suppress(OSError):
            print(self.format(record), file=sys.stderr, flush=True)


class _ToFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - given by logging
        """Stop writing to the file, and say so once, instead of writing a traceback for each line."""
        for logger in (_LIBRARY, MESSAGES):
            logger.removeHandler(self)
        error = sys.exc_info()[1]
        say(f"the log file cannot be written: {getattr(error, 'strerror', None) or error}")
