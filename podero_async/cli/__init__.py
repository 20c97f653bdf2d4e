"""The command line, `podero-async`: parses the arguments, runs one command, and returns its exit code.

Import direction: `_main` imports `commands`, which import `_output` and the shared modules `_options`, `_vehicle_file`,
`_command` and `_runtime`.
"""

from podero_async.cli._main import main

__all__ = ["main"]
