"""On paper: what one process does for a large fleet, from the service times that were measured."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["table"]

_VEHICLES = 1_000_000


def table(cpu_s_a_request: float) -> Iterator[str]:
    """Say how long a nightly read of a million vehicles of one page takes, and when another machine helps.

    Args:
        cpu_s_a_request: What one request and its 10 sessions cost the client, in seconds of CPU.
    """
    most = 1 / cpu_s_a_request
    yield "| allowed requests/s | bound by | time | a second machine |"
    yield "|---|---|---|---|"
    for allowed in (100, 1_000, 10_000):
        rate = min(allowed, most)
        bound = "the API" if allowed <= most else "the client's core"
        use = "no gain" if allowed <= most else f"pays: {_hours(_VEHICLES / min(allowed, 2 * most))} with two"
        yield f"| {allowed:,} | {bound} | {_hours(_VEHICLES / rate)} | {use} |"
    yield ""
    yield (
        f"One request of 10 sessions costs {cpu_s_a_request * 1e3:.2f} ms of CPU here, so one process bears {most:,.0f}"
        " requests a second; from that rate on a second core pays, or a second machine (`--shard 1/2`, `--shard 2/2`)."
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
