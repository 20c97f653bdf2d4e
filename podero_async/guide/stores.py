"""Stores: ask a store with SQL, find changes, share it, and get data frames of it.

A store is a DuckDB file. `podero_async.backfill` documents its tables, views and columns, and what a day's state means;
`podero_async.guide.operations` is about the jobs that fill it. All examples here need a store that a backfill has
filled.

# How do I ask a store with SQL?

```sh
podero-async sql --store fleet.duckdb "SELECT external_user_id, count(*) AS sessions FROM live_sessions GROUP BY ALL"
podero-async sql --store fleet.duckdb "SHOW TABLES"
```

In Python, `podero_async.backfill.SessionStore.query` returns rows as dictionaries. DuckDB itself, its CLI, and each
tool that reads DuckDB files do, too. Start with `live_sessions`: the table `sessions` also has withdrawn ones.

# How do I get the savings of each customer by month?

The view `monthly_savings` has the months in UTC, and `monthly_savings_in` those of a time zone:

```sql
SELECT external_user_id, month, sessions, actual_savings_eur, sessions_without_savings
FROM monthly_savings_in('Europe/Vienna') ORDER BY month, external_user_id;
```

`sessions_without_savings` counts those whose savings the API has not computed yet. A month without a row has no session,
or no user has this external id: `podero-async users` lists the ids. The directories of `podero-async export --partition-by
month` are UTC months, so their sums are those of `monthly_savings`.

# How do I get the energy of each vehicle model by month?

By month of Vienna's time:

```sql
SELECT
    manufacturer,
    model,
    strftime(plug_in_time AT TIME ZONE 'Europe/Vienna', '%Y-%m') AS month,
    sum(energy_charged_kwh) AS energy_kwh
FROM live_sessions GROUP BY ALL ORDER BY ALL;
```

# How do I make a report that a fleet manager can read?

```sh
podero-async report --store fleet.duckdb --time-zone Europe/Vienna --html report.html
podero-async report --store fleet.duckdb --from 2026-05-01 --to 2026-05-31 --by vehicle
```

The first line writes a page, the second one prints the same figures: energy, cost and savings by month, sessions by week,
when cars are plugged in and for how long, the outcomes in words, the customers, vehicles or price zones with the most
savings and the most trouble, and the days that are settled, provisional or missing. Days and hours are those of the time
zone. The page is one file, which loads nothing and runs no script: send it by mail, or put it on any web server. It has the
ids of customers. The extra `report` makes it; in Python, `podero_async.report.build_report` returns the figures.

# Which sessions changed since yesterday?

Those with a newer `changed_at`: new sessions, changed ones, and withdrawn ones with their `withdrawn_at`.

```sql
SELECT id, user_id, vehicle_id, plug_in_time, changed_at, withdrawn_at
FROM sessions WHERE changed_at > now() - INTERVAL 1 DAY ORDER BY changed_at;
```

# How do I export only the changes since the last time (incremental export)?

Keep the largest `changed_at` of each time, and export the rows with a larger one the next time, here those since the
time that the first command printed the last time:

```sh
podero-async sql --store fleet.duckdb --csv "SELECT max(changed_at) AS newest FROM sessions"
podero-async export --store fleet.duckdb --since 2026-11-27T03:12:45.123456Z --output changes.parquet
```

No clock is compared, so nothing is missed, if the time is read before the export, as here. Replace rows by their `id`, and
delete those with a `withdrawn_at`. `--since` also takes a day, such as `yesterday`.

`podero_async.publish` does the same for PostgreSQL, `podero-async export --partition-by month --overwrite` for files, and
`tests/examples/dlt_changes.py` for each target of dlt.

# The API sends fields that the library does not know: can I keep them?

With `--keep-unknown` (`keep_unknown=True`). From the first such run on, `sessions` and `live_sessions` have the JSON column
`unknown_fields`, with the API's names and the values as they were sent:

```sh
podero-async backfill --store fleet.duckdb --from 2026-01-01 --to 2026-06-30 --keep-unknown
podero-async sql --store fleet.duckdb "SELECT id, unknown_fields FROM live_sessions WHERE unknown_fields IS NOT NULL"
```

In SQL, `unknown_fields ->> 'tariff'` is the text of one field. Unknown fields may hold anything that the API sends, also
personal data; `forget` removes them with their user.

- They are those of the last run with the option. A run without it reads none, and leaves the stored ones as they are.
- A change of them alone is a change of the session: `changed_at` moves. `verify` does not compare them.
- Days that are settled are not read again, so their sessions get none.
- Unknown fields of over 16 KiB are left out, and a warning counts their sessions.
- Exports and merged stores have the column if a store has it; PostgreSQL gets it as a text, for `unknown_fields::jsonb`.

# The store is in use, or the database is locked: what now?

One process at a time opens a store for writing, and while it does, no other process can read it. `StoreInUseError`, or
the exit code 5 of a command, names the process.

- To wait for it: `--wait 600`, in seconds.
- To read at any time: let the backfill leave a copy, and read that. It is replaced at the end of each run:

```sh
podero-async backfill --store fleet.duckdb --from 2026-01-01 --to 2026-06-30 --snapshot fleet-copy.duckdb
podero-async sql --store fleet-copy.duckdb "SELECT count(*) FROM live_sessions"
```

- A notebook or a DuckDB CLI that was left open holds the store, too: close it, and open the copy next time.
- Several processes may read at once, with `SessionStore(path, read_only=True)` or `duckdb.connect(path, read_only=True)`.

A lock does not outlive its process, so there is nothing to remove after a crash.

# How do I get a data frame of a store?

With DuckDB, as pandas, polars or Arrow; `podero_async.frames` makes the same of what a client returns:

```python
import duckdb


def month_by_month(path: str) -> object:
    with duckdb.connect(path, read_only=True) as store:
        return store.sql("FROM monthly_savings_in('Europe/Vienna')").df()  # or .pl(), or .arrow()
```

# How do I bring the sessions to another database?

`podero_async.publish` to PostgreSQL; `podero-async export` to Parquet, CSV or JSON lines, on a disk or in S3, GCS and
Azure; `tests/examples/dlt_changes.py` to each target of dlt.
"""
