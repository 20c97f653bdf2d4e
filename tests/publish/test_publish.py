"""A store is published to PostgreSQL: afterwards the target has the rows of the store."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

from podero_async import ConfigurationError
from podero_async.backfill import SessionStore, StoreError
from podero_async.publish import Published, StoreRestoredError, TargetError, publish
from tests._support.canaries import assert_no_canary, exposed_by
from tests._support.clients import wire_row
from tests._support.postgres import LOGIN, PASSWORD, Postgres, assert_published
from tests._support.written_store import Read
from tests.publish.conftest import StoreFile


async def publish_file(path: Path, url: str, **options: Any) -> Published:
    async with SessionStore(path, read_only=True) as store:
        return await publish(store, url, **options)


@pytest.mark.slow
async def test_the_first_time_publishes_all_rows_and_later_ones_the_changes(server: Postgres, made: StoreFile) -> None:
    """The result counts the rows that were written: at first all of them, later those that changed, and none twice."""
    assert await publish_file(made.path, server.url) == Published(
        sessions=4, users=2, vehicles=2, coverage=2, removed=0, is_full=True
    )
    assert_published(server, made.path)
    again = await publish_file(made.path, server.url)
    assert again == Published(sessions=0, users=0, vehicles=0, coverage=0, removed=0, is_full=False)
    made.write(Read(1, [wire_row(1, energy_charged_kwh=99.0), wire_row(2), wire_row(5)]))
    assert (await publish_file(made.path, server.url)).sessions == 2
    assert_published(server, made.path)


@pytest.mark.slow
async def test_a_session_that_moves_is_withdrawn_and_returns(server: Postgres, made: StoreFile) -> None:
    """The target follows a session to another vehicle and user, through its withdrawal and its return."""
    await publish_file(made.path, server.url)
    made.write(Read(2, [wire_row(1), wire_row(3), wire_row(4)], user=2), Read(1, [wire_row(2)]))
    assert (await publish_file(made.path, server.url)).sessions == 1
    assert_published(server, made.path)
    made.query(
        "UPDATE sessions SET withdrawn_at = now(), changed_at = now() WHERE id = uuid '" + str(UUID(int=1)) + "'"
    )
    assert (await publish_file(made.path, server.url)).sessions == 1
    assert server.execute("SELECT count(*) FROM podero.live_sessions") == [(3,)]
    assert_published(server, made.path)
    made.write(Read(2, [wire_row(1)], user=2))
    assert (await publish_file(made.path, server.url)).sessions == 1
    assert server.execute("SELECT count(*) FROM podero.live_sessions") == [(4,)]
    assert_published(server, made.path)


@pytest.mark.slow
async def test_a_forgotten_user_disappears(server: Postgres, made: StoreFile) -> None:
    """After `forget`, publishing removes the user's rows from all tables, also if new sessions came since."""
    await publish_file(made.path, server.url)
    async with SessionStore(made.path) as store:
        await store.forget(UUID(int=1))
    made.write(Read(2, [wire_row(3), wire_row(4), wire_row(5), wire_row(6)], user=2))
    published = await publish_file(made.path, server.url)
    assert (published.sessions, published.removed, published.is_full) == (
        2,
        5,
        False,
    )  # 2 sessions, user, vehicle, span
    assert_published(server, made.path)


@pytest.mark.slow
async def test_erased_days_disappear(server: Postgres, made: StoreFile) -> None:
    """After `forget_before`, publishing removes the rows of older days from the target, and sends new sessions alone."""
    made.write(Read(1, [wire_row(1), wire_row(2), wire_row(20 * 1440)]))
    await publish_file(made.path, server.url)
    async with SessionStore(made.path) as store:
        assert await store.forget_before(date(2026, 1, 15)) == 4
    made.write(Read(2, [wire_row(21 * 1440)], user=2, days=(date(2026, 1, 15), date(2026, 1, 31))))
    published = await publish_file(made.path, server.url)
    assert (published.sessions, published.is_full) == (1, False)
    assert server.execute("SELECT count(*) FROM podero.sessions") == [(2,)]
    assert_published(server, made.path)


@pytest.mark.slow
async def test_the_clock_of_the_store_may_step_back(server: Postgres, made: StoreFile) -> None:
    """A batch that is committed while the clock is a year behind is published like any other."""
    await publish_file(made.path, server.url)
    made.write(Read(1, [wire_row(1), wire_row(2), wire_row(9)]), now=made.at.replace(year=2025))
    assert (await publish_file(made.path, server.url)).sessions == 1
    assert_published(server, made.path)


@pytest.mark.slow
async def test_a_store_that_was_restored_is_noticed(server: Postgres, made: StoreFile, tmp_path: Path) -> None:
    """A restored store is refused in one line, before and after it went on; `full` replaces its rows."""
    backup = tmp_path / "backup.duckdb"
    shutil.copy(made.path, backup)
    made.write(Read(1, [wire_row(1, energy_charged_kwh=1.0), wire_row(2), wire_row(5)]))
    await publish_file(made.path, server.url)
    shutil.copy(backup, made.path)
    with pytest.raises(StoreRestoredError, match="restored from a copy, run once with --full") as caught:
        await publish_file(made.path, server.url)
    assert "\n" not in str(caught.value)
    made.at = made.at.replace(month=6)  # its number is newer than the target's now
    made.write(Read(1, [wire_row(1), wire_row(2), wire_row(6)]))
    with pytest.raises(StoreRestoredError, match="differ from the 5 of the store: if it was restored"):
        await publish_file(made.path, server.url)
    published = await publish_file(made.path, server.url, full=True)
    assert (published.sessions, published.removed, published.is_full) == (2, 1, True)
    assert_published(server, made.path)


@pytest.mark.slow
async def test_an_older_snapshot_is_refused_and_a_current_one_published(
    server: Postgres, made: StoreFile, tmp_path: Path
) -> None:
    """A snapshot counts as its store; one that is older than the target is refused."""
    snapshot = tmp_path / "snapshot.duckdb"
    async with SessionStore(made.path) as store:
        await store.snapshot(snapshot)
    await publish_file(snapshot, server.url)
    assert_published(server, snapshot)
    made.write(Read(1, [wire_row(1), wire_row(2), wire_row(5)]))
    await publish_file(made.path, server.url)
    with pytest.raises(StoreRestoredError, match="publish the newest store or snapshot"):
        await publish_file(snapshot, server.url)
    assert_published(server, made.path)


@pytest.mark.slow
async def test_shards_share_a_target(server: Postgres, made: StoreFile, tmp_path: Path) -> None:
    """Each store has its own rows; a session in two stores is live once, in the store that lists its vehicle."""
    other = StoreFile(tmp_path / "other.duckdb")
    other.write(Read(3, [wire_row(7)], user=3), listed={3: (3,)})
    await asyncio.gather(*(publish_file(each.path, server.url) for each in (made, other)))
    assert_published(server, made.path, other.path)
    made.write(listed={2: (2,)})  # vehicle 1 has a user of the other shard now
    other.write(Read(1, [wire_row(1), wire_row(2)], user=3), listed={3: (3, 1)})
    made.write(Read(1, [wire_row(1, energy_charged_kwh=1.0), wire_row(2)]))  # by a list of vehicles, and later
    for order in ((made, other), (other, made)):
        for each in order:
            await publish_file(each.path, server.url)
        assert_published(server, made.path, other.path)
        live = server.execute("SELECT id, user_id, external_user_id, model FROM podero.live_sessions ORDER BY id")
        owners = [(id_.int, user.int, external, model) for id_, user, external, model in live]
        assert owners == [
            (1, 3, "customer_3", "ID.3"),
            (2, 3, "customer_3", "ID.3"),
            (3, 2, "customer_2", "ID.3"),
            (4, 2, "customer_2", "ID.3"),
            (7, 3, "customer_3", "ID.3"),
        ]
    published = await publish_file(other.path, server.url, drop_others=True)
    assert published.removed == 4 + 2 + 2 + 2 + 1
    assert_published(server, other.path)


@pytest.mark.slow
async def test_texts_keep_all_characters_but_nul(
    server: Postgres, made: StoreFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NUL, which PostgreSQL refuses, becomes U+FFFD; other characters arrive in any encoding of the client."""
    made.write(Read(1, [wire_row(1, session_outcome="a\0b"), wire_row(2)]), listed={1: (1,), 2: (2,)}, model="ü\0'\\")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    await publish_file(made.path, server.url)
    assert_published(server, made.path)
    assert server.execute("SELECT DISTINCT model FROM podero.vehicles") == [("ü\ufffd'\\",)]
    assert (await publish_file(made.path, server.url)).vehicles == 0


@pytest.mark.slow
async def test_columns_of_a_later_version_are_added_and_filled(server: Postgres, made: StoreFile) -> None:
    """A column that the store has and the target lacks is added, and filled for the rows of each store."""
    await publish_file(made.path, server.url)
    made.query("ALTER TABLE sessions ADD COLUMN tariff VARCHAR")
    made.query("UPDATE sessions SET tariff = 'night'")
    made.query("ALTER TABLE vehicles ADD COLUMN battery DOUBLE")
    published = await publish_file(made.path, server.url)
    assert (published.sessions, published.is_full) == (4, True)
    assert server.execute("SELECT DISTINCT tariff FROM podero.live_sessions") == [("night",)]
    assert_published(server, made.path)
    assert not (await publish_file(made.path, server.url)).is_full


@pytest.mark.slow
async def test_unknown_fields_arrive_as_json_texts(server: Postgres, made: StoreFile) -> None:
    """The unknown fields that a run kept are published as the text that the store has."""
    await publish_file(made.path, server.url)
    row = wire_row(1, tariff={"name": "night\0", "id": 2**70})
    made.write(Read(1, [row]), keep_unknown=True)
    await publish_file(made.path, server.url)
    found = server.execute("SELECT unknown_fields FROM podero.live_sessions WHERE unknown_fields IS NOT NULL")
    assert [json.loads(text) for (text,) in found] == [{"tariff": row["tariff"]}]
    assert_published(server, made.path)


async def test_the_target_has_the_comments_of_the_store(server: Postgres, made: StoreFile) -> None:
    """Tables and columns have the store's comments."""
    await publish_file(made.path, server.url)
    comment = server.execute(
        "SELECT col_description('podero.sessions'::regclass, attnum) FROM pg_attribute"
        " WHERE attrelid = 'podero.sessions'::regclass AND attname = 'changed_at'"
    )
    assert comment == [("The last visible change: of a field, the vehicle or the user, a withdrawal or a return",)]


@pytest.mark.slow
async def test_tables_of_another_origin_are_left_alone(server: Postgres, made: StoreFile) -> None:
    """A schema with a table that nothing of ours created, or a column of another type, is refused and unchanged."""
    server.execute("CREATE SCHEMA podero")
    server.execute("CREATE TABLE podero.users (name text)")
    with pytest.raises(TargetError, match="the schema podero has tables of another origin: users"):
        await publish_file(made.path, server.url)
    server.execute("DROP TABLE podero.users")
    await publish_file(made.path, server.url)
    server.execute("DROP VIEW podero.live_sessions")
    server.execute("ALTER TABLE podero.vehicles ALTER COLUMN year TYPE text")
    with pytest.raises(TargetError, match=r"have another type: vehicles\.year is text, not integer"):
        await publish_file(made.path, server.url)


@pytest.mark.slow
async def test_publishers_wait_for_each_other(server: Postgres, made: StoreFile) -> None:
    """While another transaction holds the lock nothing is created; a cancelled publisher ends, and its store is usable."""
    with dbapi.connect(server.url) as holder, holder.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_xact_lock({0x706F6465726F})")
        cursor.fetchall()
        async with SessionStore(made.path, read_only=True) as store:
            publishing = asyncio.create_task(publish(store, server.url))
            async with asyncio.timeout(60):
                while not server.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
                    await asyncio.sleep(0.005)
            assert server.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'podero'") == []
            publishing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await publishing
            assert (await store.status()).sessions == 4
            holder.rollback()
            assert (await publish(store, server.url)).sessions == 4
    assert_published(server, made.path)


@pytest.mark.slow
async def test_an_error_of_the_store_is_not_one_of_the_target(server: Postgres, made: StoreFile) -> None:
    """A stream of the store that fails while rows are copied raises a `StoreError`, and the target is unchanged."""
    made.query("DROP TABLE coverage CASCADE")
    last = "from_date = DATE '2026-01-01' + 39_999"
    broken = f"CASE WHEN getvariable('is_made') IS NULL AND {last} THEN error('unreadable') END"
    made.query(
        "CREATE TABLE coverage (user_id UUID, vehicle_id UUID, include_hidden BOOLEAN, from_date DATE,"
        f" broken VARCHAR AS ({broken}))"
    )
    made.query(
        "SET VARIABLE is_made = true; INSERT INTO coverage (from_date) SELECT DATE '2026-01-01' + r::INTEGER"
        " FROM range(40_000) t(r)"
    )
    with pytest.raises(StoreError, match="unreadable"):
        await publish_file(made.path, server.url)
    assert server.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'podero'") == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:c4n4ry@host/database",
        "postgres://user:c4n4ry/c4n4ry@host/database",
        "postgresql://user:c4n4ry?c4n4ry@host/database",
        "postgresql://host/database?user=x&password=c4n4ry",
        "postgresql://user:c4n4ry%40host/database",
        "postgresql://host/database?sslpassword=c4n4ry",
        "postgresql://host/database?p%61ssword=c4n4ry",
        "host=x password=c4n4ry",
    ],
)
async def test_a_url_with_a_password_is_refused(made: StoreFile, url: str) -> None:
    """The error names the ways to give a password, and does not have it."""
    with pytest.raises(ConfigurationError) as caught:
        await publish_file(made.path, url)
    message = str(caught.value)
    assert "c4n4ry" not in repr(caught.value)
    assert (
        "PGPASSWORD" in message and "~/.pgpass" in message if url.startswith("postgres") else "postgresql://" in message
    )


async def test_errors_and_logs_have_no_password(
    server: Postgres, made: StoreFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a refused login, a refused TLS mode, a failed statement nor the log shows the password or a row."""
    caplog.set_level("DEBUG")
    attempts = {
        "no password supplied": (None, ""),
        "password authentication failed": (f"{PASSWORD}-wrong", ""),
        "server does not support SSL": (PASSWORD, "?sslmode=require"),
        "permission denied": (PASSWORD, ""),
    }
    server.execute("CREATE SCHEMA podero")
    for message, (password, options) in attempts.items():
        monkeypatch.delenv("PGPASSWORD", raising=False)
        if password:
            monkeypatch.setenv("PGPASSWORD", password)
        with pytest.raises(TargetError, match=message) as caught:
            await publish_file(made.path, server.tcp_url + options)
        assert "\n" not in str(caught.value)
        assert "CREATE" not in str(caught.value)
        assert_no_canary(*exposed_by(caught.value), caplog.text)


@pytest.mark.slow
async def test_a_role_needs_no_right_to_create_once_the_tables_are_there(
    server: Postgres, made: StoreFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A role that may only write rows publishes, with its password from the file that `PGPASSFILE` names."""
    await publish_file(made.path, server.url)
    server.execute(f"GRANT USAGE ON SCHEMA podero TO {LOGIN}")
    server.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA podero TO {LOGIN}")
    secrets = tmp_path / "pgpass"
    secrets.touch(0o600)
    secrets.write_text(f"127.0.0.1:*:*:{LOGIN}:{PASSWORD}\n")
    monkeypatch.setenv("PGPASSFILE", str(secrets))
    made.write(Read(1, [wire_row(1), wire_row(2), wire_row(5)]))
    assert (await publish_file(made.path, server.tcp_url)).sessions == 1
    assert_published(server, made.path)


async def test_without_the_extra_an_error_names_it(made: StoreFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the driver is not installed, the error says what to install."""
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
    with pytest.raises(ConfigurationError, match=r"install podero_async\[postgres\]"):
        await publish_file(made.path, "postgresql:///x")
