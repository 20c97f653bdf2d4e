"""`podero-async doctor`: says in one line each what a client depends on, how it is, and what to do about it."""

from __future__ import annotations

import argparse
import json

import attrs

from podero_async import PoderoClient, RetryPolicy
from podero_async._diagnostics import Check, diagnose
from podero_async.cli._options import ENVIRONMENT
from podero_async.cli._runtime import Exit, in_one_line

__all__ = ["add_to", "run"]

_ABOUT = """\
Snapshot at the settings, the origin, its TLS and certificate, the clock, the token and the
organization; one line each, with what to do. The exit code is that of the first that is not well.
"""
_RETRY = RetryPolicy(max_attempts=2)
_MARKS = {True: "ok", False: "FAILED", None: "-"}
_EXITS = {"configuration": Exit.USAGE, "credentials": Exit.CREDENTIALS, "api": Exit.API}


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Describe the command."""
    about = "say what is wrong with the settings, the network, the clock or the credentials"
    parser = commands.add_parser("doctor", help=about, description=_ABOUT, epilog=ENVIRONMENT, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


async def run(arguments: argparse.Namespace) -> Exit:
    """Snapshot at everything, and print."""
    checks = await diagnose(lambda: PoderoClient.from_env(retry=_RETRY))
    code = next((_EXITS[check.fault] for check in checks if check.fault), Exit.DONE)
    if arguments.json:
        print(json.dumps({"is_ok": code is Exit.DONE, "checks": [attrs.asdict(check) for check in checks]}))
    else:
        for check in checks:
            print(_line(check))
    return code


def _line(check: Check) -> str:
    advice = f" -> {check.advice}" if check.advice else ""
    return f"{_MARKS[check.is_ok]:<8}{check.name:<14}{in_one_line(check.detail + advice)}"
