"""How hard a command that reads a whole fleet may ask the API: its arguments, and the client that keeps to them."""

from __future__ import annotations

import argparse

from podero_async import PoderoClient, RetryPolicy, ThrottlePolicy
from podero_async.cli import _options as types

__all__ = ["add_pace", "paced_client"]

_RETRY = RetryPolicy()
_MAX_AT_ONCE = 64


def add_pace(parser: argparse.ArgumentParser) -> None:
    """Add `--max-concurrency` and `--requests-per-second`."""
    parser.add_argument(
        "--max-concurrency",
        type=types.whole_number(1, 10_000),
        default=_MAX_AT_ONCE,
        metavar="N",
        help=f"most requests under way at once; fewer where the API pushes back (default: {_MAX_AT_ONCE})",
    )
    parser.add_argument(
        "--requests-per-second", type=types.rate, metavar="R", help="most requests a second (default: no such bound)"
    )


def paced_client(arguments: argparse.Namespace) -> PoderoClient:
    """Make a client from the environment, with the pace that was asked for."""
    throttle = ThrottlePolicy(
        max_concurrency=arguments.max_concurrency, requests_per_second=arguments.requests_per_second
    )
    return PoderoClient.from_env(retry=_RETRY, throttle=throttle)
