"""Tuning: the three knobs, what the client waits for, too many requests, speed, and memory.

The defaults suit a nightly job. Three policies change them, and each documents its arguments:

- `podero_async.ThrottlePolicy`: how many requests are in flight, and how many start per second. `max_concurrency` is an
  upper bound; the client finds the best limit below it.
- `podero_async.RetryPolicy`: how often and for how long a request is tried. Lower `max_elapsed` if a person waits for the
  response, and raise it if a job should outlast longer outages.
- `podero_async.Timeouts`: the seconds of one attempt.

# How do I see what it is waiting for?

On the command line, add `--verbose`, or `--log-file FILE`: each pause, retry and outage is a line. On a terminal, a
backfill shows its progress as well. In a program, switch on the log, and look at the statistics at any time:

```python
import logging

from podero_async import PoderoClient


def show_log() -> None:
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("podero_async").setLevel(logging.INFO)


def why_is_it_waiting(client: PoderoClient) -> str:
    now = client.statistics()
    if now.waiting_for_token:
        state = "the last token request failed" if now.is_token_failing else "one is requested"
        return f"{now.waiting_for_token} calls wait for a token: {state}"
    if now.is_breaker_open:
        return "the API is unavailable: only single probes are sent until one succeeds"
    if now.paused_for_s:
        return f"the server asked for a pause: nothing is sent for {now.paused_for_s:.0f} s"
    if now.queued:
        return f"{now.queued} requests wait for a slot: {now.in_flight} of at most {now.limit} are in flight"
    return f"{now.in_flight} requests wait for the server"
```

If it waits for none of these, it waits for your program: a fleet is read only as fast as you take its outcomes. A
backfill also has a live state: pass a `podero_async.backfill.Progress`, and read it from another task.

# Too many requests, a rate limit (429): what do I do?

Nothing is to be done. If the server responds with 429 and a `Retry-After`, or with 503 and a `Retry-After` to several
of the last requests, all requests of the client pause for that time; then fewer are in flight at once, and their number
grows again slowly. A single 503 delays its own vehicle only. If the server throttles at a rate, the client learns the
rate. Sessions are not lost. These are the reasons to change something:

- A call raises `podero_async.RateLimitError`: the pause, or the queue after it, is longer than its `max_elapsed`. Try
  again after `error.retry_after` seconds, if it is set.
- Podero has told you a rate: set `ThrottlePolicy(requests_per_second=10)`, or `--requests-per-second 10`.
- Several processes share the organization: each client knows its own requests only, so give each its part of the rate.

# It is slow: how do I make it faster?

Install the extra `speed`. If `statistics().limit` stays at `max_concurrency`, raise that; if the limit is lower, the
server is the bound. Use `fetch_fleet` for many vehicles in place of a loop of your own. Several processes with a shard
each use several cores: see "Shards" in `podero_async.backfill`.

# How long does a call wait (timeout)?

At most `max_elapsed` (120 s) for each request of a single call, with all queues, pauses and retries, also if the server
hangs. A fleet or a backfill waits through pauses and outages for longer. To bound a call as a whole, put it into
`asyncio.timeout(5)`: a call that is cancelled ends at once and leaves nothing behind. If a person waits, also in an outage,
see `podero_async.guide.services`.

# How many requests does a call cost?

Retries apart:

| call | requests |
|---|---|
| `user_by_external_id`, `electric_vehicles`, `current_session`, `list_sessions` | 1 |
| `latest_session` | 1, or 2 if the last 31 days have no session |
| `vehicle_sessions`, `sessions` | 1 for up to 199 sessions, 26 for 5,000 |
| `user_sessions` | 1, and as `vehicle_sessions` for each vehicle |
| `discover_vehicles` | 1 for each page of users, and 1 for each user with a vehicle |
| `fetch_fleet` | as `discover_vehicles`, unless you give it the vehicles, and as `vehicle_sessions` for each of them |

A backfill needs one for nearly every vehicle: see "Runs" in `podero_async.backfill`.

# How much memory does it need?

| you use | in memory |
|---|---|
| `podero_async.PoderoClient.fetch_fleet` | a few vehicles at a time, however large the fleet is, as long as you do not keep the outcomes |
| `podero_async.PoderoClient.sessions` | a few pages at a time |
| `podero_async.PoderoClient.vehicle_sessions`, `user_sessions` | all sessions that they return |
| `podero_async.backfill.backfill` | flat; the database's buffers take at most 1,024 MB, or `SessionStore(path, memory_limit_mb=...)`, `--memory-limit` |
| `podero_async.frames.to_pandas`, `to_polars`, `to_arrow` | the whole frame; `podero_async.frames.arrow_batches` streams it |
| `podero_async.backfill.SessionStore.query` | all rows of the result; `podero_async.backfill.SessionStore.stream` has some at a time |

In a container with little memory, set `--memory-limit` to half of it.
"""
