"""The fixtures `server` and `running`: a PostgreSQL server, which is started when the first test needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests._support.postgres import Postgres


def _started(*, syncs: bool) -> Iterator[Postgres]:
    from tests._support.postgres import Postgres, binaries  # noqa: PLC0415 - not every test needs the driver

    found = binaries()
    if found is None:
        pytest.skip("PostgreSQL's binaries are not installed")
    server = Postgres(found, syncs=syncs)
    try:
        server.create()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def running() -> Iterator[Postgres]:
    """Start a server that writes nothing to the disk by itself."""
    yield from _started(syncs=False)


@pytest.fixture(scope="module")
def durable() -> Iterator[Postgres]:
    """Start a server that writes to the disk, so that it loses no commit if it is killed."""
    yield from _started(syncs=True)


@pytest.fixture
def server(running: Postgres, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """Return the server, with an empty database, and without settings of this machine."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")
    running.execute("DROP SCHEMA IF EXISTS podero CASCADE")
    return running
