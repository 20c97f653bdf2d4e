"""The command line, `podero-async`: one module for each command, and `main`, which runs the one that was asked for.

A command's module has `add_to(commands)`, which describes its arguments, and `run(arguments)`, which is awaited and
returns the exit code. It raises what went wrong; `main` turns that into one line and a code.
"""

from podero_async.cli._main import main

__all__ = ["main"]
