"""Getting started: install it, try it without credentials, and read the first sessions.

# How do I install it?

    pip install 'podero_async[backfill,cli]'

This works once 0.1.0 is released. Until then, install from a checkout of the repository: `pip install '.[backfill,cli]'`.
The library alone is `podero_async`. The extra `cli` adds the command `podero-async`, `backfill` the store, `frames`
data frames, `token-store` a token file that survives restarts, `postgres` the target PostgreSQL, and `speed` faster
gzip and event loop. Python 3.11 or newer is needed.

# Which credentials does it need?

The id of your organization, and a client id with its secret, or a user name with its password, or a token. The command
line and `PoderoClient.from_env` read them from the environment:

    export PODERO_ORG_ID=... PODERO_CLIENT_ID=... PODERO_CLIENT_SECRET=...

The others are `PODERO_USERNAME` and `PODERO_PASSWORD`, or `PODERO_TOKEN`. Credentials belong either to production or to
the sandbox; for the sandbox, also set `PODERO_BASE_URL=https://sandbox-app.podero.com`. This command checks the
settings, the network and the credentials, and says how to correct each fault:

```sh
podero-async doctor
```

In Python, `podero_async.PoderoClient` also takes them as arguments.

# How do I try it without credentials?

A simulated API runs on your own machine. In one terminal, start it:

```sh
podero-async simulate --vehicles 20
```

It prints the settings of a client. Paste the lines that begin with `export` into another terminal; every command and
program there uses the simulated fleet. Its users have the external ids `customer_1` to `customer_20`. Its sessions are
of the first half of 2026, however late it is now: `podero_async.guide.testing` shows how to make some of this week.

```sh
podero-async users
podero-async sessions --external-id customer_1 --from 2026-01-01 --to 2026-06-30
podero-async backfill --store fleet.duckdb --from 2026-01-01 --to 2026-06-30
podero-async sql --store fleet.duckdb "FROM monthly_savings LIMIT 5"
```

For tests, `podero_async.guide.testing` has a way with fewer steps.

# How do I read the sessions of one customer, by my own (external) id?

`external_id` is your own id for the customer; you need none of Podero's ids:

```python
import asyncio
from datetime import date

from podero_async import PoderoClient, VehicleFailure


async def print_sessions(external_id: str) -> None:
    async with PoderoClient.from_env() as client:
        user = await client.user_by_external_id(external_id)
        for outcome in await client.user_sessions(user.id, date(2026, 1, 1), date(2026, 6, 30)):
            if isinstance(outcome, VehicleFailure):
                print("one vehicle failed:", outcome.error)
                continue
            for session in outcome.sessions:
                print(session.plug_in_time, session.energy_charged_kwh, session.actual_savings_eur)


if __name__ == "__main__":
    asyncio.run(print_sessions("customer_1"))
```

An outcome is a `podero_async.VehicleSessions` or a `podero_async.VehicleFailure`. The fields of a session are those of
`podero_async.ChargingSession`. All sessions of a whole fleet are a stream: see `podero_async.PoderoClient.fetch_fleet`.

# How do I read the last and the current session of a car? Is it charging, or only plugged in?

`podero_async.PoderoClient.latest_session` returns the newest completed session of a vehicle, and
`podero_async.PoderoClient.current_session` the one that is going on, or None. A customer may have several vehicles, so
compare the sessions of all:

```python
from podero_async import PoderoClient


async def last_charge(client: PoderoClient, external_id: str) -> str:
    user = await client.user_by_external_id(external_id)
    vehicles = await client.electric_vehicles(user.id)
    if any([await client.current_session(user.id, vehicle.id) for vehicle in vehicles]):
        return "plugged in now"
    latest = [await client.latest_session(user.id, vehicle.id, days=365) for vehicle in vehicles]
    newest = max((each for each in latest if each), key=lambda each: each.plug_in_time, default=None)
    if newest is None:
        return "no session in the last year"
    return f"{newest.energy_charged_kwh} kWh, plugged in at {newest.plug_in_time:%Y-%m-%d %H:%M} UTC"
```

A current session lasts from plug-in to unplug. No field of the API's contract says whether energy flows now: the car may
charge, wait for cheaper hours, or be full.

# How do I share one client in a service (FastAPI) or a bot?

Create one client when the application starts and close it when the application stops; all handlers use it at the same
time. A client belongs to one event loop. If a person waits for the response, derive a client with shorter bounds once,
by `client.with_options(retry=RetryPolicy(max_elapsed=2.0))`: it shares the token, the connections and the limits.

```python
from podero_async import FileTokenStore, PoderoClient, RetryPolicy


class Application:
    async def start(self) -> None:
        self.client = PoderoClient.from_env(token_store=FileTokenStore("token.json"))
        self.quick = self.client.with_options(retry=RetryPolicy(max_elapsed=2.0))

    async def stop(self) -> None:
        await self.client.aclose()


async def serve(user_id: str, vehicle_id: str) -> None:
    application = Application()
    await application.start()
    try:
        print(await application.quick.current_session(user_id, vehicle_id))
    finally:
        await application.stop()
```

`FileTokenStore` needs the extra `token-store`; without it, each start asks for a token once.
`podero_async.guide.services` has replies within a second, status codes, health checks and disconnects.

# How do I use it in a notebook?

A notebook has a running event loop, so `await` works in its cells, and `asyncio.run` does not. Keep the client open
between cells, and close it at the end with `await client.aclose()`:

```python
from podero_async import PoderoClient


async def first_cell() -> PoderoClient:
    client = PoderoClient.from_env()
    users = [user async for user in client.users()]
    print(len(users), "users")
    return client
```

# How do I use a proxy, or my own aiohttp session?

The client's own session ignores the environment's proxies. Pass a session of yours, and its settings apply; the client
never closes it:

```python
import aiohttp

from podero_async import PoderoClient


async def through_a_proxy() -> None:
    async with aiohttp.ClientSession(trust_env=True) as session:
        async with PoderoClient.from_env(session=session) as client:
            print(len([user async for user in client.users()]), "users")
```

# Which time zone do the days have?

The days of all calls and commands, and those of a store, are UTC days, and both ends are inclusive: a plug-in in Vienna
at half past midnight is of the day before. All times are aware datetimes in UTC. To show a time to a person, use
`session.plug_in_time.astimezone(ZoneInfo("Europe/Vienna"))`.

# How do I get the savings of one customer in a month, in Vienna's time?

Ask for one day more at both ends, in any time zone, and take the month that you want of the sums: those of the
extra days are partial.

```python
from datetime import date, timedelta

from podero_async import PoderoClient, SessionTotals, summarize


async def savings_in_may(client: PoderoClient, external_id: str) -> float | None:
    user = await client.user_by_external_id(external_id)
    first, last, extra = date(2026, 5, 1), date(2026, 5, 31), timedelta(days=1)
    outcomes = await client.user_sessions(user.id, first - extra, last + extra)
    months = summarize(outcomes, "month", time_zone="Europe/Vienna")
    return months.get(first, SessionTotals()).actual_savings_eur
```

In a store, `monthly_savings_in('Europe/Vienna')` has all months: see `podero_async.guide.stores`.

# Why are the savings of a session None (null)?

The API computes `actual_savings_eur` after the session, and does not say when. Sums skip such sessions, and
`sessions_without_savings` counts them; a sum is None if it has no other sessions.
"""
