"""The command line, `podero-async`: parses the arguments, runs one command, and returns its exit code.

Import direction: `_entry` > `_main` > `commands`, `_log` > `_command`, `_options`, `_snapshot`, `_vehicle_file` > `_output`,
`_signals` > `_runtime`.
"""

from podero_async.cli._entry import main

__all__ = ["main"]
