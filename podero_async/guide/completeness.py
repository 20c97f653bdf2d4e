"""Completeness: what VERIFIED, REPAIRED and UNPROVEN mean, and what to do with each.

A list that changes while its pages are read can lose or repeat sessions without any sign. Every list of this library
therefore has a verdict, `podero_async.Completeness`. The proof is described in `podero_async._paging`.

# What does VERIFIED mean?

Every session that existed throughout the read is there, once. Nothing is to be done.

# What does REPAIRED mean?

The same as VERIFIED: nothing is missing. The list changed during the read, or the server does not sort it, so parts of
it were read again or in windows of days. That costs requests, and nothing else: use the sessions.

# What does UNPROVEN mean?

The list was read to its end, but the server's responses do not prove that nothing is missing.
`podero_async.VehicleSessions` has the `reason` in words. Read the list again later, or in shorter windows. A backfill
does that by itself: the days stay missing, and the next run reads them again.

# How does my program see the verdict?

It is on each outcome. `rejected` has the rows that arrived but could not be read; they are not among the sessions:

```python
from datetime import date

from podero_async import Completeness, PoderoClient, VehicleSessions


async def complete_energy(client: PoderoClient) -> float | None:
    total = 0.0
    async with client.fetch_fleet(date(2026, 1, 1), date(2026, 6, 30)) as fleet:
        async for outcome in fleet:
            if not isinstance(outcome, VehicleSessions):
                return None
            if outcome.completeness is Completeness.UNPROVEN or outcome.rejected:
                print(outcome.vehicle, outcome.completeness, outcome.reason, outcome.rejected)
                return None
            total += sum(session.energy_charged_kwh or 0.0 for session in outcome.sessions)
    return total
```

| you use | a list that is not proven complete |
|---|---|
| `podero_async.PoderoClient.vehicle_sessions`, `user_sessions`, `fetch_fleet` | has `completeness` UNPROVEN and a `reason`; no error |
| `podero_async.PoderoClient.sessions`, `latest_session` | raises `podero_async.CompletenessError`; the stream does so after its last session |
| `podero_async.PoderoClient.list_sessions` | is one page, and has no verdict |
| `podero_async.backfill.backfill` | counts in `report.unproven`; its sessions are stored, its days stay missing, and many of them make an alarm |
| the command `podero-async sessions` | prints the sessions, says so, and ends with exit code 1 |

# Are hidden sessions included?

The API hides plug-ins of under five minutes, and a list without them is complete. To include them, pass
`include_hidden=True`, or `--include-hidden`; `is_hidden` tells them apart.

# Is a complete list final?

No. The API lists a session once it is completed, sometimes weeks after the plug-in, and corrects sessions later. A
verdict is about the moment of the read. A store knows which days may still change: see "Days" in
`podero_async.backfill`.
"""
