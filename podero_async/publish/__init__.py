"""Publishes a store of sessions to PostgreSQL: the changes since the last time, in one transaction.

    async with SessionStore("fleet.duckdb", read_only=True) as store:
        await publish(store, "postgresql://etl@db.example.com/analytics?sslmode=verify-full")

The extra `postgres` installs the driver, which has libpq built in. The role needs the right to create a schema the first
time, and later the rights to read and write rows.

# Tables

The schema `podero` has the tables `sessions`, `users`, `vehicles` and `coverage` of the store, with the store's
comments. `fetched_at` and `absent_at` of sessions are left out, since they change with every read. Each row has a `store_id`,
so that several stores, such as those of shards, can have one target; `stores` lists them. In the view `live_sessions` each
session that the API lists is once, with the customer's `external_user_id` and the `manufacturer` and `model` of the vehicle.
If a vehicle changes to a user of another shard, the store that lists it counts. Indexes, views and grants of your own stay:

    GRANT USAGE ON SCHEMA podero TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA podero TO reader;

# Changes

The target remembers, for each store, the number of its newest change, the number of its sessions and a
checksum, all written in the same transaction as the rows. No clock is compared. Of sessions, those with a newer number are
copied; the other tables change with nearly each run, so they are copied as a whole and compared. A user that the store has
forgotten is removed, and so are the days that it has erased. If a later release adds a column, the next call adds it to
the target and fills it.

# Failures

If the client or the server is killed, also during the commit, the target is as before or as the store is,
and the same call again does the rest. An advisory lock keeps publishers of one database apart; the second one waits. If a
store was restored from a copy, the target has changes that the store does not: `StoreRestoredError` says so, and
`publish(..., full=True)` replaces the rows of that store. An older snapshot is refused in the same way. After a merge of
shards, or if a store was created anew, `drop_others=True` removes the rows of the former stores.

# Connection

All that the URL leaves out comes from libpq: from `PGHOST`, `PGUSER`, `PGSSLMODE` and its other variables,
from a service file, and the password from `PGPASSWORD` or `~/.pgpass`. A URL with a password is refused, since others can
see the arguments of a process. `sslmode` is libpq's: the default, `prefer`, goes on without encryption if the server has
none, and checks no certificate. For a server that is not on the same machine set `sslmode=verify-full`, with
`sslrootcert=system` (the authorities in `/etc/ssl`, or those of the variable `SSL_CERT_FILE`) or the file of your authority.
The built-in libpq looks for Unix sockets in `/tmp`: on Debian, add `?host=/var/run/postgresql`.

# Texts

PostgreSQL cannot store the character NUL: it becomes U+FFFD. All other characters are stored as they are; the
database must have the encoding UTF-8 to hold all of them.

Import direction: `_publish` > `_target`, `_sql` > `errors`.
"""

from podero_async.publish._publish import Published, publish
from podero_async.publish.errors import StoreRestoredError, TargetError

__all__ = ["Published", "StoreRestoredError", "TargetError", "publish"]

for _name in __all__:
    globals()[_name].__module__ = __name__  # so that reprs, tracebacks and pickles name no private module
