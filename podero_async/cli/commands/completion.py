"""`podero-async completion`: prints a script that completes commands and options in a shell."""

from __future__ import annotations

from argparse import ArgumentParser

import attrs

from podero_async.cli._command import Command, Invocation
from podero_async.cli._runtime import Exit

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Print a completion script for bash, zsh or tcsh.

For bash, add this line to ~/.bashrc: source <(podero-async completion bash)
"""


@attrs.frozen(kw_only=True)
class Options:
    shell: str


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("output").add_argument
    add("shell", choices=("bash", "zsh", "tcsh"), help="the shell that reads the script")


async def run(options: Options, invocation: Invocation) -> Exit:
    """Print the script."""
    import shtab  # noqa: PLC0415 - an extra

    print(shtab.complete(invocation.parser, options.shell))
    return Exit.DONE


COMMAND = Command("completion", _DESCRIPTION, Options, add_arguments, run)
