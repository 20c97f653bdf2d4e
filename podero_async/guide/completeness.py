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

# How does my program see the verdict? Is a sum complete?

It is on each outcome, of a user as of a fleet. `rejected` has the rows that arrived but could not be read; they are not
among the sessions. `summarize` looks at neither, so look yourself if a sum must be complete:

```python
from datetime import date

from podero_async import Completeness, PoderoClient, VehicleFailure, summarize


async def complete_energy(client: PoderoClient, user_id: str) -> float | None:
    outcomes = await client.user_sessions(user_id, date(2026, 1, 1), date(2026, 6, 30))
    for outcome in outcomes:
        if isinstance(outcome, VehicleFailure):
            return None
        if outcome.completeness is Completeness.UNPROVEN or outcome.rejected:
            print(outcome.vehicle, outcome.reason, outcome.rejected)
            return None
    return summarize(outcomes)[()].energy_charged_kwh
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
verdict is about the moment of the read. A store knows which days may still change.

# What do missing, provisional and settled mean?

They are the states of a vehicle's day in a store:

| state | meaning |
|---|---|
| missing | no read of the day has been proven complete: the next run reads it |
| provisional | it was read, and sessions may still come or change: the next run reads it again |
| settled | it was read 30 days after its end or later (`--settle-days`), and nothing more can come: no run reads it |

`podero-async status` counts them; with `--check`, `--from` and `--to`, its exit code tells a script. The rules are in "Days" in
`podero_async.backfill`.

# Why is yesterday's session not there yet?

- The car is still plugged in: the API lists a session once it is completed, under the UTC day of its plug-in.
  `podero-async current` shows one that is going on.
- No run has read the day since: see `fetched` and `failed` of `podero-async status`. A run leaves out days that it read
  less than 12 hours ago; `--fresh-for 0` reads them again.
- It was shorter than five minutes: the API hides it, unless you pass `--include-hidden`.
- Its day is another one: days are UTC days.

# Why is a day still provisional after a month?

Either no run has read it since it was 30 days old; or the vehicle's current session was plugged in on this day or before;
or a row of the day cannot be read; or a session of the day shows no end: it has neither `unplug_time` nor
`inferred_session_end`, or its outcome is `in_progress`. The last ones are:

```sh
podero-async sql --store fleet.duckdb "SELECT external_user_id, vehicle_id, plug_in_time, session_outcome FROM live_sessions \
    WHERE session_outcome = 'in_progress' OR coalesce(unplug_time, inferred_session_end) IS NULL ORDER BY plug_in_time"
```

Such a day is read about once a week: one request more for its vehicle, if the day is before the other days to read.
"""
