"""A PostgreSQL server for tests, started from installed binaries as an ordinary user; and the comparison with a store."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path
from typing import Any

import attrs
import duckdb
from adbc_driver_manager import Error
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

from podero_async.backfill.store.duckdb.snapshot import quoted_name

USER = "podero"
LOGIN, PASSWORD = "publisher", "c4n4ry-publisher"
"""A role that needs a password over TCP."""
_TABLES = ("sessions", "users", "vehicles", "coverage")
_LEFT_OUT = {"fetched_at", "absent_at"}


def binaries() -> Path | None:
    """Return the directory of PostgreSQL's binaries: Debian's newest version, or that of `initdb` on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parents[1].name))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@attrs.define
class Postgres:
    """A server on a Unix socket and on loopback. Its superuser needs no password on the socket."""

    binaries: Path
    syncs: bool
    """Whether it writes to the disk as in production. Without that, a killed server may lose commits."""
    directory: Path = attrs.field(factory=lambda: Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp")), init=False)
    port: int = attrs.field(factory=_free_port, init=False)
    process: subprocess.Popen[bytes] | None = attrs.field(default=None, init=False)
    _control: Any = attrs.field(default=None, init=False, repr=False)

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@/postgres?host={self.directory}&port={self.port}"

    @property
    def tcp_url(self) -> str:
        return f"postgresql://{LOGIN}@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        """Create the database and its roles, and start the server."""
        if os.geteuid() == 0:
            owner = next(each for each in pwd.getpwall() if each.pw_name in {"postgres", "nobody"})
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
        options = ["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        subprocess.run(self._command("initdb", "-D", self.data, *options), check=True, stdout=subprocess.DEVNULL)
        (self.data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        self.start()
        self.execute(f"CREATE ROLE {LOGIN} LOGIN PASSWORD '{PASSWORD}'")
        self.execute(f"GRANT CREATE ON DATABASE postgres TO {LOGIN}")

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def start(self) -> None:
        """Start the server, and wait until it accepts connections, after a crash recovery if need be."""
        settings = {
            "unix_socket_directories": self.directory,
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "fsync": "on" if self.syncs else "off",
            "shared_buffers": "32MB",
            "max_connections": 20,
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command("postgres", "-D", self.data, *arguments), stdout=log, stderr=log, cwd="/"
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(Error):
                self.execute("SELECT 1")
                return
            assert self.process.poll() is None, (self.directory / "log").read_text()
            time.sleep(0.02)
        raise TimeoutError((self.directory / "log").read_text())

    def _command(self, program: str, *arguments: object) -> list[str]:
        command = [str(self.binaries / program), *map(str, arguments)]
        if os.geteuid() != 0:
            return command
        owner = self.directory.stat()
        ids = [f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups", "--pdeathsig=INT"]
        return ["setpriv", *ids, *command]

    def kill(self) -> None:
        """Kill all processes of the server with SIGKILL."""
        assert self.process is not None
        self._disconnect()
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        while any(Path(f"/proc/{pid}").exists() for pid in children):
            time.sleep(0.005)

    def remove(self) -> None:
        """Stop the server, and remove its files."""
        self._disconnect()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()
        shutil.rmtree(self.directory)

    def _disconnect(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            control.close()

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement as the superuser, and return its rows."""
        if self._control is None:
            self._control = dbapi.connect(f"{self.url}&client_encoding=UTF8", autocommit=True)
        with self._control.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def digests(self, store_id: str) -> dict[str, str]:
        """Return the MD5 of all rows of a store in each table."""
        found = {}
        for table in _TABLES:
            columns = self.execute(
                "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attname) FROM pg_attribute"
                f" WHERE attrelid = 'podero.{table}'::regclass AND attnum > 0 AND attname <> 'store_id' AND NOT attisdropped"
            )[0][0]
            found[table] = _digest(self.execute(f"SELECT {columns} FROM podero.{table} WHERE store_id = '{store_id}'"))
        return found


def assert_published(server: Postgres, *stores: Path) -> None:
    """Check that the target has the rows of the stores, and no others."""
    counts = dict.fromkeys(_TABLES, 0)
    for store in stores:
        with duckdb.connect(str(store), read_only=True) as con:
            con.execute("SET TimeZone = 'UTC'")
            ((store_id,),) = con.execute("SELECT value FROM meta WHERE key = 'store_id'").fetchall()
            expected = {}
            for table in _TABLES:
                names = sorted({name for name, *_ in con.execute(f"DESCRIBE {table}").fetchall()} - _LEFT_OUT)
                rows = con.execute(f"SELECT {', '.join(map(quoted_name, names))} FROM {table}").fetchall()
                expected[table] = _digest(rows)
                counts[table] += len(rows)
        assert server.digests(store_id) == expected, store
    assert {table: server.execute(f"SELECT count(*) FROM podero.{table}")[0][0] for table in _TABLES} == counts


def _digest(rows: Iterable[tuple[Any, ...]]) -> str:
    lines = sorted("|".join(map(_text, row)) for row in rows)
    return md5("\n".join(lines).encode()).hexdigest()


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value.replace("\0", "\ufffd") if isinstance(value, str) else str(value)
