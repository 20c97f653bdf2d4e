"""`podero-async doctor`: checks the settings, the network and the credentials, and prints one line per check."""

from __future__ import annotations

import json
from argparse import ArgumentParser

import attrs

from podero_async import PoderoClient, RetryPolicy
from podero_async._diagnostics import Check, diagnose
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._runtime import Exit, in_one_line

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Check the settings, network, TLS, clock, token and organization.

Each check prints one line and, if it fails, how to fix it. The exit code is
that of the first failed check.
"""
_RETRY = RetryPolicy(max_attempts=2)
_MARKS = {True: "ok", False: "FAILED", None: "-"}
_EXITS = {"configuration": Exit.USAGE, "credentials": Exit.CREDENTIALS, "api": Exit.API}


@attrs.frozen(kw_only=True)
class Options:
    json: bool


def add_arguments(parser: ArgumentParser) -> None:
    shared.add_json(parser.add_argument_group("output").add_argument)


async def run(options: Options, invocation: Invocation) -> Exit:
    """Run all checks, and print them."""
    checks = await diagnose(lambda: PoderoClient.from_env(retry=invocation.retry or _RETRY))
    code = next((_EXITS[check.fault] for check in checks if check.fault), Exit.DONE)
    if options.json:
        print(json.dumps({"is_ok": code is Exit.DONE, "checks": [_json_row(check) for check in checks]}))
    else:
        for check in checks:
            print(_line(check))
    return code


def _json_row(check: Check) -> dict[str, object]:
    fields = attrs.asdict(check)
    return {"words" if name == "detail" else name: value for name, value in fields.items()}


def _line(check: Check) -> str:
    advice = f" -> {check.advice}" if check.advice else ""
    return f"{_MARKS[check.is_ok]:<8}{check.name:<14}{in_one_line(check.detail + advice)}"


COMMAND = Command("doctor", _DESCRIPTION, Options, add_arguments, run, uses_api=True)
