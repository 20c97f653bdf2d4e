"""`PoderoSimulator`: its options, its lifetime, and the changes that it offers to tests and the command line."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import date
from typing import Any, Self

from aiohttp import web

from podero_async.models import VehicleRef
from podero_async.testing._changes import FleetChanges
from podero_async.testing._endpoints import Endpoints
from podero_async.testing._fake_data import new_uuid, seeded
from podero_async.testing._faults import Fault, FaultScript
from podero_async.testing._oauth import GRANTS, TOKEN_STYLES, Grant, TokenIssuer, TokenStyle, UnsupportedStatus
from podero_async.testing._parameters import PageRequest
from podero_async.testing._server import Server
from podero_async.testing._state import Fleet, Rows
from podero_async.testing._stats import Counts, RequestRecord

_HOST = "127.0.0.1"
_SHUTDOWN_S = 1.0  # enough for any response, since no request sleeps any longer


class PoderoSimulator(FleetChanges):
    """A server of the Podero Partner API on loopback, which runs until its `async with` ends.

    `seed` determines everything that it serves, apart from tokens and request ids. It belongs to one event loop. Each
    change is atomic, and the next response shows it. Leaving the `async with` ends all requests and connections.

    Args:
        users: Number of users of the organization.
        vehicles: Number of vehicles, assigned to the users in turn.
        sessions_per_vehicle: Number of completed sessions of each vehicle, hidden ones included, or its range.
        seed: Seed of the generated data and of the faults' random numbers.
        rows: JSON rows by vehicle. If given, they replace the generated data, and `users` and `vehicles` are ignored.
        faults: See `Fault`.
        port: TCP port; 0 selects a free one.
        ssl_context: If given, the server accepts TLS only.
        latency_s: Seconds before each response, which shows the state at the end of that time.
        token_lifetime_s: Lifetime of an access token, in seconds of `clock`.
        users_as_pages: Whether users are listed as `{"total", "items"}` with `limit` and `offset`, or as an array.
        token_styles: Supported token endpoint styles: "json" (`/api/partners/v2.0/auth/token`), "form" (the same path,
            form-encoded), "basic" (`/oauth2/token/`: HTTP Basic and JSON).
        json_grants: Grant types of the style "json".
        unsupported_status: Status of the response if a style or a grant type is not supported.
        before_page: Called right before each page of the sessions list is made, for example to change the list.
        clock: Returns the server's time, as a Unix time in seconds.
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
        token_styles: Collection[TokenStyle] = TOKEN_STYLES,
        json_grants: Collection[Grant] = GRANTS,
        unsupported_status: UnsupportedStatus = 422,
        before_page: Callable[[PageRequest], None] | None = None,
        clock: Callable[[], float] = time.time,
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
        self._tokens = TokenIssuer(
            client_id=self.client_id,
            client_secret=self.client_secret,
            username=self.username,
            password=self.password,
            styles=frozenset(token_styles),
            json_grants=frozenset(json_grants),
            unsupported_status=unsupported_status,
            lifetime_s=token_lifetime_s,
            clock=clock,
            counts=self.counts,
        )
        self._endpoints = Endpoints(
            fleet=self._fleet,
            tokens=self._tokens,
            counts=self.counts,
            users_as_pages=users_as_pages,
            before_page=before_page,
        )
        self._faults = FaultScript(seed)
        for fault in faults:
            self._faults.add(fault)
        self._server = Server(
            endpoints=self._endpoints, faults=self._faults, counts=self.counts, clock=clock, latency_s=latency_s
        )
        _instances.add(self)

    def __repr__(self) -> str:
        address = "not started" if self._listening is None else self.base_url
        return (
            f"<PoderoSimulator {address}: {len(self.vehicles):,} vehicles, {self.total_sessions():,} sessions,"
            f" {self.counts.total_requests:,} requests served>"
        )

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("a simulator can be started only once: create another one")
        # A request is cancelled when its client disconnects, even if it hangs.
        self._runner = runner = web.AppRunner(
            self._server.app(), handler_cancellation=True, access_log=None, shutdown_timeout=_SHUTDOWN_S
        )
        await runner.setup()
        try:
            self._listening = socket.create_server((_HOST, self._port))
            await web.SockSite(runner, self._listening, ssl_context=self._ssl_context).start()
        except OSError:
            await runner.cleanup()
            raise
        self._port = self._listening.getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is None or self._listening is None:
            return
        # aiohttp would leave a connection open that is accepted while the server closes: accept no more, and let the
        # event loop process those that were accepted. (uvloop and Windows have no reader to remove.)
        with suppress(NotImplementedError):
            asyncio.get_running_loop().remove_reader(self._listening)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._server.close()
        await self._runner.cleanup()

    @property
    def base_url(self) -> str:
        """The origin of the API, known once the simulator has started."""
        return f"{'https' if self._ssl_context else 'http'}://{_HOST}:{self._port}"

    @property
    def vehicles(self) -> list[VehicleRef]:
        """All vehicles, in the order in which they were added."""
        return self._fleet.vehicles

    @property
    def first_day(self) -> date:
        """The first UTC day that can have a session."""
        return self._fleet.span()[0]

    @property
    def last_day(self) -> date:
        """The last UTC day that can have a session."""
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
        """Return copies of a vehicle's current rows, newest first; if a day is omitted, the window is open at this end."""
        return self._fleet.truth(vehicle, from_date, to_date, include_hidden=include_hidden)

    @property
    def requests(self) -> deque[RequestRecord]:
        """The last 1,000 requests, oldest first."""
        return self._server.requests

    @property
    def authorization_headers(self) -> set[str]:
        """All distinct `Authorization` headers that arrived."""
        return self._server.authorization_headers

    @property
    def secrets(self) -> set[str]:
        """All credentials except `client_id`, and all tokens issued so far: no log or repr may contain any of them."""
        return {self.client_secret, self.username, self.password, *self._tokens.issued}

    @staticmethod
    def instances() -> list[PoderoSimulator]:
        """Return all simulators of this process, so that a fixture can search the log of any test for their secrets."""
        return list(_instances)

    def add_fault(self, fault: Fault) -> None:
        """Add a fault, which counts matching requests from now on."""
        self._faults.add(fault)

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def revoke_tokens(self) -> None:
        """Revoke all access tokens: requests with them get 401."""
        self._tokens.revoke_all()

    def revoke_refresh_tokens(self) -> None:
        """Revoke all refresh tokens: requests with them get 400 `invalid_grant`."""
        self._tokens.revoke_refresh_tokens()

    @property
    def token_lifetime_s(self) -> float:
        """The lifetime of the tokens issued from now on."""
        return self._tokens.lifetime_s

    @token_lifetime_s.setter
    def token_lifetime_s(self, seconds: float) -> None:
        self._tokens.lifetime_s = seconds

    @property
    def latency_s(self) -> float:
        """Seconds before each response."""
        return self._server.latency_s

    @latency_s.setter
    def latency_s(self, seconds: float) -> None:
        self._server.latency_s = seconds

    @property
    def before_page(self) -> Callable[[PageRequest], None] | None:
        """Called right before each page of the sessions list is made."""
        return self._endpoints.before_page

    @before_page.setter
    def before_page(self, hook: Callable[[PageRequest], None] | None) -> None:
        self._endpoints.before_page = hook


_instances: weakref.WeakSet[PoderoSimulator] = weakref.WeakSet()
