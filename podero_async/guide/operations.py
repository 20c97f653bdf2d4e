"""Operations: schedules, resuming, exit codes, logs, copies, shards and erasure of a nightly backfill.

# Which command do I schedule, and how often?

One command, every night, with a fixed first day. It is safe on any schedule, and at any time again:

```sh
podero-async backfill --store fleet.duckdb --from 2026-01-01 --to today --log-file backfill.log
```

For the whole history, take a first day before your first session, such as 2020-01-01: days without sessions cost no
request. The first run reads all days; later ones read those that are missing or may still change, in about one request
for each vehicle, as "Runs" in `podero_async.backfill` explains. A run outlasts an outage of two minutes if it already
holds a token and reads at least 20 vehicles. A longer one, or one at its start, may end it with exit code 4 or 1: the next
run reads the rest. In Python, the same is `podero_async.backfill.backfill`:

```python
from datetime import UTC, date, datetime

from podero_async import PoderoClient
from podero_async.backfill import ApiDownError, SessionStore, backfill


async def nightly(path: str) -> bool:
    today = datetime.now(UTC).date()
    async with PoderoClient.from_env() as client, SessionStore(path) as store:
        try:
            report = await backfill(client, store, date(2026, 1, 1), today)
        except ApiDownError as error:
            report = error.report  # it is committed; the next run reads the rest
    print(report.new, "new sessions", report.alarms)
    return report.is_clean
```

# How do I resume after a crash?

Run the same command again. No state needs a repair, and no option says "resume": a run reads the days that the store
lacks, and leaves out those that were read in the last 12 hours (`--fresh-for`). The same command continues after
Ctrl-C, a crash, `kill -9`, an outage, a full disk or a reboot. `--dry-run` shows the rest, and changes nothing:

```sh
podero-async backfill --store fleet.duckdb --from 2026-01-01 --to today --dry-run
podero-async status --store fleet.duckdb
```

To try only the vehicles that failed, add `--only-failed`.

# How do I run it every night with cron (environment, then publish and export)?

Cron has neither your `PATH` nor the variables `PODERO_*`. So put these into a file of mode 0600, here `/etc/podero.env`,
as lines such as `export PODERO_ORG_ID=...`, and let cron call a script, here `/opt/podero/nightly.sh`:

    0 3 * * *  sh /opt/podero/nightly.sh

Exit code 1 means that sessions are stored, but need a look: the script publishes them, and then ends with 1.

```bash
. /etc/podero.env
PATH="/opt/podero/bin:$PATH"
set -eu
code=0
podero-async backfill --store /data/fleet.duckdb --from 2026-01-01 --to today \
    --wait 3600 --quiet --log-file /data/nightly.log || code=$?
[ "$code" -le 1 ] || exit "$code"
podero-async export --store /data/fleet.duckdb --output /data/sessions --partition-by month --overwrite --quiet
podero-async publish --store /data/fleet.duckdb --to postgresql://etl@db.example.com/analytics --quiet
exit "$code"
```

With `--quiet`, a clean night prints nothing, so cron sends no mail; errors and alarms are printed. The log file has the
summary of each run. `--wait` waits for a run by hand.

# How do I run it in Airflow, Kubernetes or systemd?

`tests/examples/schedulers` has complete files for these, Dagster and Prefect. In Airflow, a `BashOperator` suffices:

    BashOperator(
        task_id="podero",
        bash_command="podero-async backfill --store /data/fleet.duckdb --from 2026-01-01 --to {{ ds }} --quiet",
        retries=3,
        retry_delay=timedelta(minutes=30),
    )

A retry reads the rest, and nothing twice. It helps after the exit codes 4, 129, 130 and 143. After 1, 2, 3 and 5 it costs
little and ends alike: the files for Kubernetes and systemd, and the tasks in Python, do not retry these.

# How do I monitor the freshness of a store (stale data, or a job that never ran)?

```sh
podero-async status --store fleet.duckdb --max-age 26
```

It ends with exit code 1 if the newest read is older than 26 hours. `--json` has the time as `fetched_at`. While a backfill
has the store open, `status` ends with 5: let the monitor read the copy of `--snapshot`. To monitor from SQL:
`SELECT max(read_at) FROM coverage`.

# Why is my nightly exit code 1?

The run is finished and its sessions are stored, but the result is not clean. The last lines on stderr say why.
`podero-async runs` shows the alarms of each run later. These are the reasons:

| the line is about | cause | remedy |
|---|---|---|
| of N vehicles failed | more than 2 % of the vehicles, `--max-failed`, had errors | the lines before it name some, and the table `failures` all; the next run tries them again |
| were not proven complete | these lists are UNPROVEN: see `podero_async.guide.completeness` | the next run reads them again |
| known vehicles not listed | more than 10 % of the fleet vanished, probably by a fault of the API, so none was marked as gone | if they have left, run once with `--max-vanished 1` |
| stored sessions not listed | more than 5 % of the sessions vanished, probably by a fault of the API, so none was withdrawn | if they were removed, run once with `--max-withdrawn 1` |
| sessions could not be read | rows do not follow the contract, and that began less than 3 days ago, or concerns over 5 % of the rows | the table `rejected_items` has them, with the reason; if the API has changed, a newer release may read them |
| the clock is ahead, or was set back | this machine's time is wrong | correct the clock, and run again |

Every command lists all exit codes in `--help`. For a scheduler: 1 needs a look but no hurry, 4 (the API was down) is
cured by the next run, and so is 5 if another process had the store open (`--wait`). 2 (such as an organization that the
API does not know), 3 and any other 5 need a person.
`status --check` with `--from` and `--to` says by its exit code whether a window is settled (0), may still change (6),
or has gaps (1).

# Where are the logs?

Nowhere until you ask: `--verbose` writes them to stderr, `--log-file FILE` appends them, and the summary,
messages and exit code of the command, to a file. In a program they are those of the logger `podero_async`. INFO has token requests, retries, pauses
and outages; no line has a secret or a body. The history of the runs is in the store:

```sh
podero-async runs --store fleet.duckdb
```

# How do I follow a run in a browser, or with Prometheus (metrics)?

While a backfill runs, `--serve` shows it at <http://127.0.0.1:8081/>: progress, rate, limit, pauses, coverage, and failures
by cause. `/metrics` has the same for Prometheus, as `podero_backfill_...`. Both have counts alone: no ids, no secrets.

    podero-async backfill --store fleet.duckdb --from 2026-01-01 --to today --serve 127.0.0.1:8081

Only this machine can reach the view, unless `--serve-publicly` lets it take another host, such as `0.0.0.0` in a
container; it asks for no password. A request must name the server by its address, or by the host of `--serve`. Readers
cannot slow the run. The view ends with the run, and the page waits for the next one. For an alert if a run fails, use
the exit code.

# How do I make a backup or a copy of a store?

`--snapshot FILE` at the end of a backfill, or `podero_async.backfill.SessionStore.snapshot`. A plain copy of the file
is right only while no process has the store open, and with the file `.wal` beside it, if there is one.

# A large fleet: one process, shards, or Dask?

| use | if |
|---|---|
| one process | nearly always. It takes about half a core at 1,000 requests a second, and its memory does not grow with the vehicles, so the rate of the API decides: 1,000,000 vehicles take 17 minutes at that rate, and 10,000,000 take 2.8 hours. Set `max_concurrency` to the rate times the latency in seconds: the default of 64 sends 107 requests a second if each takes 0.6 s. |
| shards | one core is too slow (over some 2,000 requests a second), or one disk: see the next question |
| Dask | a cluster of yours shall compute over more sessions than one machine holds: see `podero_async.dask` |

More processes do not raise the rate of the API: it is divided among them. A discovery keeps about 100 bytes of each user,
and fails if the API lists more than 64 MiB of users, some 135,000, in one array: give such a fleet as a list of vehicles.
With Dask:

```python
import asyncio
from datetime import date

import dask

from podero_async import PoderoClient
from podero_async.dask import read_outcomes, read_sessions


async def energy_by_vehicle(client: PoderoClient) -> object:
    vehicles = [vehicle async for vehicle in client.discover_vehicles()]
    window = vehicles, date(2026, 1, 1), date(2026, 6, 30)
    sessions = read_sessions(*window, partitions=16, requests_per_second=1000)
    outcomes = read_outcomes(*window, partitions=16, requests_per_second=1000)
    energy = sessions.groupby("vehicle_id").energy_charged_kwh.sum()
    return await asyncio.to_thread(dask.compute, energy, outcomes)  # together, so that each vehicle is fetched once
```

# How do I run it on several (multiple) machines, in several processes, or on a cluster?

Each machine or process reads a shard of the users into its own store, and one command makes one store of them:

```sh
podero-async backfill --store shard1.duckdb --shard 1/2 --from 2026-01-01 --to 2026-06-30
podero-async backfill --store shard2.duckdb --shard 2/2 --from 2026-01-01 --to 2026-06-30
podero-async merge --into whole.duckdb shard1.duckdb shard2.duckdb
```

Each night, run the shards again, and merge with `--overwrite`. From other machines, copy the files of `--snapshot`. Divide
a rate that Podero has given you between them. Two machines cannot write one store.

# How do I erase a user, or delete a customer (GDPR)?

Of this store, and of what later runs fetch:

```sh
podero-async forget --store fleet.duckdb --external-id customer_1
```

A job that may run twice passes `--user` with Podero's id: a repetition erases 0 sessions, and ends with 0. The store keeps a
hash of that id alone, so a second call with `--external-id` ends with 2, as a mistyped one does.

It rewrites the file, so that no byte of the user remains. Delete or write anew all copies, snapshots and exports;
`publish` removes the user from PostgreSQL the next time. "Erasure" in `podero_async.backfill` has the rules.

# How do I delete old sessions after a while (retention)?

Once a month, here all sessions that were plugged in over 24 months ago:

    podero-async forget --store fleet.duckdb --before "$(date -u -d '-24 months' +%F)" --wait 3600

The nightly command may keep its `--from`: later runs begin with the first day that is kept. As with a user, delete or write
anew all copies, snapshots and exports; `publish` removes the sessions from PostgreSQL the next time.

# How do I check that a store is right?

`verify` reads settled days again and compares each session with the API; `--repair` stores the differences:

```sh
podero-async verify --store fleet.duckdb --sample 5
```

# Which commands are there?

`podero-async --help` lists them, and `podero-async COMMAND --help` explains all options of one:

[the commands of "Commands" in README.md]
"""
