"""The command `demo`: a simulated fleet, its backfill, and the check that no session is lost."""

from podero_async.cli.commands.demo.command import COMMAND

__all__ = ["COMMAND"]
