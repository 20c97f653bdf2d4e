"""The simulator as tests and the command line hold it: what to serve, its life, and every change to what it serves."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import date, datetime
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from podero_async.models import VehicleRef
from podero_async.testing._endpoints import Endpoints
from podero_async.testing._fake_data import new_uuid, seeded
from podero_async.testing._faults import Fault, FaultScript
from podero_async.testing._oauth import GRANTS, WAYS, Grant, Refusal, TokenDesk, TokenWay
from podero_async.testing._parameters import PageRequest
from podero_async.testing._server import Server
from podero_async.testing._state import Fleet, Rows
from podero_async.testing._stats import Counts, RequestRecord

_HOST = "127.0.0.1"
_SHUTDOWN_S = 1.0  # more than any answer still needs once every wait has ended


class PoderoSimulator:
    """A server of the Podero Partner API on loopback, for as long as its `async with` lasts.

    Everything that it serves follows from `seed`, tokens and request ids excepted. It belongs to one event loop;
    each change is atomic, and the next answer shows it. Leaving the `async with` ends every request and connection.

    Args:
        users: How many users the organization has.
        vehicles: How many vehicles, dealt out to the users in turn.
        sessions_per_vehicle: How many completed sessions each has, hidden ones included; or the least and the most.
        seed: Of all generated data and of the faults' draws.
        rows: Wire rows by vehicle, to serve instead of generated ones; `users` and `vehicles` are ignored then.
        faults: What goes wrong; see `Fault`.
        port: 0 takes a free one.
        ssl_context: With it, the server speaks TLS only.
        latency_s: The wait before each answer, in seconds. The answer is made after it.
        token_lifetime_s: How long an access token is good, in seconds of `clock`.
        users_as_pages: Whether users come as `{"total", "items"}` with `limit` and `offset`, or as a bare array.
        token_endpoints: What the token endpoint speaks: "json" (`/api/partners/v2.0/auth/token`), "form" (the same path,
            form-encoded), "basic" (`/oauth2/token/`: HTTP Basic and JSON).
        json_grants: The grant types of the way "json".
        refuse_with: The status of the answer to a way or grant that is not spoken.
        before_answer: Called right before each page of the sessions list is cut, to change the list under its reader.
        clock: The server's time, in seconds. Only differences count.
    """

    def __init__(
        self,
        *,
        users: int = 10,
        vehicles: int = 10,
        sessions_per_vehicle: int | tuple[int, int] = 120,
        seed: int = 0,
        rows: Rows | None = None,
        faults: Iterable[Fault] = (),
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        latency_s: float = 0.0,
        token_lifetime_s: float = 36000,
        users_as_pages: bool = False,
        token_endpoints: Collection[TokenWay] = WAYS,
        json_grants: Collection[Grant] = GRANTS,
        refuse_with: Refusal = 422,
        before_answer: Callable[[PageRequest], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        rng = seeded(seed, "organization")
        self.org_id = new_uuid(rng)
        self.client_id = f"client-{rng.getrandbits(64):016x}"
        self.client_secret = f"secret-{rng.getrandbits(128):032x}"
        self.username = "partner@example.com"
        self.password = f"password-{rng.getrandbits(64):016x}"
        self.counts = Counts()
        self._port = port
        self._ssl_context = ssl_context
        self._runner: web.AppRunner | None = None
        self._listening: socket.socket | None = None
        if rows is None:
            self._fleet = Fleet.generated(seed, self.org_id, users, vehicles, sessions_per_vehicle)
        else:
            self._fleet = Fleet.of_rows(seed, self.org_id, rows)
        self._tokens = TokenDesk(
            client_id=self.client_id,
            client_secret=self.client_secret,
            username=self.username,
            password=self.password,
            ways=frozenset(token_endpoints),
            json_grants=frozenset(json_grants),
            refuse_with=refuse_with,
            lifetime_s=token_lifetime_s,
            clock=clock,
            counts=self.counts,
        )
        self._endpoints = Endpoints(
            fleet=self._fleet,
            tokens=self._tokens,
            counts=self.counts,
            users_as_pages=users_as_pages,
            before_answer=before_answer,
        )
        self._faults = FaultScript(seed)
        for fault in faults:
            self._faults.add(fault)
        self._server = Server(
            endpoints=self._endpoints, faults=self._faults, counts=self.counts, clock=clock, latency_s=latency_s
        )

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("a simulator runs once")
        # A client that has gone takes its request with it, even one that hangs.
        runner = web.AppRunner(
            self._server.app(), handler_cancellation=True, access_log=None, shutdown_timeout=_SHUTDOWN_S
        )
        await runner.setup()
        self._runner = runner
        try:
            self._listening = socket.create_server((_HOST, self._port))
            await web.SockSite(runner, self._listening, ssl_context=self._ssl_context).start()
        except OSError:
            await runner.cleanup()
            raise
        self._port = self._listening.getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is None or self._listening is None:
            return
        # A connection that is just being accepted when the server closes would be left open: accept none from now on,
        # and give those under way their turns of the loop. (uvloop and Windows have no reader to remove.)
        with suppress(NotImplementedError):
            asyncio.get_running_loop().remove_reader(self._listening)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._server.close()
        await self._runner.cleanup()

    @property
    def base_url(self) -> str:
        """The origin to give to a client, known once the simulator runs."""
        return f"{'https' if self._ssl_context else 'http'}://{_HOST}:{self._port}"

    # What it serves

    @property
    def vehicles(self) -> list[VehicleRef]:
        return self._fleet.vehicles

    @property
    def first_day(self) -> date:
        """The first day (UTC) on which a session may stand: no session is older."""
        return self._fleet.span()[0]

    @property
    def last_day(self) -> date:
        """The last day (UTC) on which a session may stand: no session is newer."""
        return self._fleet.span()[1]

    def total_sessions(self) -> int:
        """Count the completed sessions of all vehicles, hidden ones included."""
        return self._fleet.total_sessions()

    def truth(
        self,
        vehicle: VehicleRef,
        from_date: date | None = None,
        to_date: date | None = None,
        *,
        include_hidden: bool = False,
    ) -> list[dict[str, Any]]:
        """Return a vehicle's rows as they stand now, newest first, as copies; None as a day is no bound."""
        return self._fleet.truth(vehicle, from_date, to_date, include_hidden=include_hidden)

    # What it saw

    @property
    def requests(self) -> deque[RequestRecord]:
        """The last 1,000 requests, oldest first."""
        return self._server.requests

    @property
    def tokens_seen(self) -> set[str]:
        """Every different `Authorization` header that ever arrived."""
        return self._server.tokens_seen

    # Changes while it runs. Each raises `KeyError` where there is no such vehicle or session.

    def insert(
        self, vehicle: VehicleRef, row: Mapping[str, Any] | None = None, *, plug_in_time: datetime | None = None
    ) -> dict[str, Any]:
        """Put a completed session into a vehicle's list, and return its row.

        Without a row one is generated, visible, and plugged in a minute after the newest unless `plug_in_time` says
        when; with a row, `plug_in_time` overrides the row's own.
        """
        return self._fleet.insert(vehicle, row, plug_in_time)

    def remove(self, vehicle: VehicleRef, session_id: str) -> None:
        self._fleet.sessions(vehicle).remove(session_id)

    def hide(self, vehicle: VehicleRef, session_id: str) -> None:
        """Flag a session as a blip: it is listed only with `include_hidden` from now on."""
        self.update(vehicle, session_id, is_hidden=True, hidden_reason="short_duration")

    def update(self, vehicle: VehicleRef, session_id: str, **fields: Any) -> dict[str, Any]:
        """Change fields of a session, and return its row; a new `plug_in_time` moves it in the list."""
        return self._fleet.update(vehicle, session_id, fields)

    def add_vehicle(
        self,
        user_id: uuid.UUID | None = None,
        *,
        sessions: int = 0,
        rows: Iterable[Mapping[str, Any]] | None = None,
    ) -> VehicleRef:
        """Add a vehicle, with its own rows or so many generated ones, to a user; None adds a user as well."""
        return self._fleet.add_vehicle(user_id, sessions=sessions, rows=rows)

    def delete_user(self, user_id: uuid.UUID) -> None:
        """Mark a user as deleted: listed only with `include_deleted` from now on. The vehicles stay."""
        self._fleet.delete_user(user_id)

    def set_current(self, vehicle: VehicleRef, row: Mapping[str, Any] | None) -> None:
        """Say which session is going on; None: no one."""
        self._fleet.set_current(vehicle, row)

    def add_fault(self, fault: Fault) -> None:
        """Add a fault to the script's end; it counts matching requests from now on."""
        self._faults.add(fault)

    def clear_faults(self) -> None:
        self._faults.clear()

    def revoke_tokens(self) -> None:
        """Answer every access token issued so far with 401."""
        self._tokens.revoke_all()

    def revoke_refresh_tokens(self) -> None:
        self._tokens.revoke_refresh_tokens()

    @property
    def token_lifetime_s(self) -> float:
        """How long the tokens issued from now on are good."""
        return self._tokens.lifetime_s

    @token_lifetime_s.setter
    def token_lifetime_s(self, seconds: float) -> None:
        self._tokens.lifetime_s = seconds

    @property
    def latency_s(self) -> float:
        return self._server.latency_s

    @latency_s.setter
    def latency_s(self, seconds: float) -> None:
        self._server.latency_s = seconds

    @property
    def before_answer(self) -> Callable[[PageRequest], None] | None:
        """Called right before each page of the sessions list is cut."""
        return self._endpoints.before_answer

    @before_answer.setter
    def before_answer(self, hook: Callable[[PageRequest], None] | None) -> None:
        self._endpoints.before_answer = hook
