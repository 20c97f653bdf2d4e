"""`PoderoSimulator`: its options, its lifetime, and the changes that it offers to tests and the command line."""

from __future__ import annotations

import ssl
import time
import uuid
import warnings
import weakref
from collections.abc import Callable, Collection, Iterable
from datetime import date
from threading import RLock
from typing import Any, Self, get_args

from podero_async.models import VehicleRef
from podero_async.testing._arguments import AnyVehicle, choices, day, seconds, whole_number
from podero_async.testing._changes import FleetChanges, locked
from podero_async.testing._endpoints import Endpoints
from podero_async.testing._fake_data import new_uuid, seeded
from podero_async.testing._fault_parser import parse_fault
from podero_async.testing._faults import Fault, FaultScript
from podero_async.testing._oauth import GRANTS, TOKEN_STYLES, Grant, TokenIssuer, TokenStyle, UnsupportedStatus
from podero_async.testing._parameters import PageRequest
from podero_async.testing._server import Server
from podero_async.testing._server_thread import Listener
from podero_async.testing._state import Fleet, Rows
from podero_async.testing._stats import Counts, RequestRecord


class PoderoSimulator(FleetChanges):
    """A server of the Podero Partner API on loopback, which runs until its block ends.

    `async with` serves in the running event loop. `with` serves in a thread of its own, for synchronous tests and for
    tests with several event loops. `seed` determines everything that it serves, apart from tokens and request ids. All
    methods and attributes may be used in any thread. Each change is atomic, and the next response shows it. The end of
    the block ends all requests and connections. A simulator can be started once.

    Args:
        users: Number of users of the organization.
        vehicles: Number of vehicles, assigned to the users in turn.
        sessions_per_vehicle: Number of completed sessions of each vehicle, hidden ones included, or its range.
        seed: Seed of the generated data and of the faults' random numbers.
        rows: Sessions by vehicle: models, or JSON rows. If given, they replace the generated data, and `users` and
            `vehicles` are ignored.
        faults: See `Fault`; a text is read by `parse_fault`.
        port: TCP port; 0 selects a free one.
        ssl_context: If given, the server accepts TLS only.
        latency_s: Seconds before each response, which shows the state at the end of that time.
        token_lifetime_s: Lifetime of an access token, in seconds of `clock`.
        users_as_pages: Whether users are listed as `{"total", "items"}` with `limit` and `offset`, or as an array.
        token_styles: Supported token endpoint styles: "json" (`/api/partners/v2.0/auth/token`), "form" (the same path,
            form-encoded), "basic" (`/oauth2/token/`: HTTP Basic and JSON).
        json_grants: Grant types of the style "json".
        unsupported_status: Status of the response if a style or a grant type is not supported.
        before_page: Called right before each page of the sessions list is made, for example to change the list, in the
            thread that serves.
        clock: Returns the server's time, as a Unix time in seconds.

    Raises:
        ValueError: An argument is wrong; the message names it.
    """

    def __init__(
        self,
        *,
        users: int = 10,
        vehicles: int = 10,
        sessions_per_vehicle: int | tuple[int, int] = 120,
        seed: int = 0,
        rows: Rows | None = None,
        faults: Iterable[Fault | str] = (),
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
        if not isinstance(seed, int):
            raise ValueError(f"seed must be a whole number, not {seed!r}")  # noqa: TRY004 - as all wrong options
        rng = seeded(seed, "organization")
        self.org_id = new_uuid(rng)
        self.client_id = f"client-{rng.getrandbits(64):016x}"
        self.client_secret = f"secret-{rng.getrandbits(128):032x}"
        self.username = "partner@example.com"
        self.password = f"password-{rng.getrandbits(64):016x}"
        self._lock = RLock()
        self._counts = Counts()
        if rows is None:
            self._fleet = Fleet.generated(seed, self.org_id, users, vehicles, sessions_per_vehicle)
        else:
            self._fleet = Fleet.of_rows(seed, self.org_id, rows)
        if unsupported_status not in get_args(UnsupportedStatus):
            raise ValueError(
                f"unsupported_status must be one of {get_args(UnsupportedStatus)}, not {unsupported_status}"
            )
        self._tokens = TokenIssuer(
            client_id=self.client_id,
            client_secret=self.client_secret,
            username=self.username,
            password=self.password,
            styles=choices("token_styles", token_styles, TOKEN_STYLES),
            json_grants=choices("json_grants", json_grants, GRANTS),
            unsupported_status=unsupported_status,
            lifetime_s=seconds("token_lifetime_s", token_lifetime_s),
            clock=clock,
            counts=self._counts,
        )
        self._endpoints = Endpoints(
            fleet=self._fleet,
            tokens=self._tokens,
            counts=self._counts,
            lock=self._lock,
            users_as_pages=users_as_pages,
            before_page=before_page,
        )
        self._faults = FaultScript(seed)
        for fault in faults:
            self.add_fault(fault)
        self._server = Server(
            endpoints=self._endpoints,
            faults=self._faults,
            counts=self._counts,
            lock=self._lock,
            clock=clock,
            latency_s=seconds("latency_s", latency_s),
        )
        self._listener = Listener(self._server, whole_number("port", port, 0, 65535), ssl_context)
        _instances.add(self)

    def __repr__(self) -> str:
        try:
            address = self.base_url
        except RuntimeError:
            address = "not started"
        except AttributeError:  # __init__ failed
            return "<PoderoSimulator>"
        return (
            f"<PoderoSimulator {address}: {len(self.vehicles):,} vehicles, {self.total_sessions():,} sessions,"
            f" {self.counts.total_requests:,} requests served>"
        )

    async def __aenter__(self) -> Self:
        await self._listener.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listener.stop()

    def __enter__(self) -> Self:
        self._listener.start_thread()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.stop_thread()

    def __del__(self) -> None:
        listener = getattr(self, "_listener", None)  # missing if the constructor has refused an argument
        if listener is not None and listener.is_serving:
            warnings.warn("a simulator was not stopped: use `async with` or `with`", ResourceWarning, stacklevel=2)

    @property
    def base_url(self) -> str:
        """The origin of the API. It raises `RuntimeError` before the simulator has started."""
        return self._listener.origin

    @property
    def environment(self) -> dict[str, str]:
        """The `PODERO_*` environment variables of a client of this simulator, by name."""
        return {
            "PODERO_BASE_URL": self.base_url,
            "PODERO_ORG_ID": str(self.org_id),
            "PODERO_CLIENT_ID": self.client_id,
            "PODERO_CLIENT_SECRET": self.client_secret,
        }

    @property
    @locked
    def external_ids(self) -> dict[uuid.UUID, str]:
        """The partner's own id of each user (`customer_1`, ...) by the user's id, in the order in which they were added."""
        return self._fleet.external_ids()

    @property
    @locked
    def vehicles(self) -> list[VehicleRef]:
        """All vehicles, in the order in which they were added."""
        return self._fleet.vehicles

    @property
    @locked
    def first_day(self) -> date:
        """The first UTC day that can have a session."""
        return self._fleet.span()[0]

    @property
    @locked
    def last_day(self) -> date:
        """The last UTC day that can have a session."""
        return self._fleet.span()[1]

    @locked
    def total_sessions(self) -> int:
        """Count the completed sessions of all vehicles, hidden ones included."""
        return self._fleet.total_sessions()

    @locked
    def truth(
        self,
        vehicle: AnyVehicle,
        from_date: date | None = None,
        to_date: date | None = None,
        *,
        include_hidden: bool = False,
    ) -> list[dict[str, Any]]:
        """Return copies of a vehicle's current rows, newest first; if a day is omitted, the window is open at this end."""
        window = day("from_date", from_date), day("to_date", to_date)
        return self._fleet.truth(self._fleet.ref(vehicle), *window, include_hidden=include_hidden)

    @property
    @locked
    def counts(self) -> Counts:
        """A copy of the counts so far."""
        return self._counts.copy()

    @property
    @locked
    def requests(self) -> list[RequestRecord]:
        """A copy of the last 1,000 requests, oldest first."""
        return list(self._server.requests)

    @property
    @locked
    def authorization_headers(self) -> set[str]:
        """All distinct `Authorization` headers that arrived."""
        return set(self._server.authorization_headers)

    @property
    @locked
    def secrets(self) -> set[str]:
        """All credentials except `client_id`, and all tokens issued so far: no log or repr may contain any of them."""
        return {self.client_secret, self.username, self.password, *self._tokens.issued}

    @staticmethod
    def instances() -> list[PoderoSimulator]:
        """Return all simulators of this process, so that a fixture can search the log of any test for their secrets."""
        return list(_instances)

    @locked
    def add_fault(self, fault: Fault | str) -> None:
        """Add a fault, or the text of one; it counts matching requests from now on."""
        self._faults.add(parse_fault(fault) if isinstance(fault, str) else fault)

    @locked
    def clear_faults(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    @locked
    def revoke_tokens(self) -> None:
        """Revoke all access tokens: requests with them get 401."""
        self._tokens.revoke_all()

    @locked
    def revoke_refresh_tokens(self) -> None:
        """Revoke all refresh tokens: requests with them get 400 `invalid_grant`."""
        self._tokens.revoke_refresh_tokens()

    @property
    def token_lifetime_s(self) -> float:
        """The lifetime of the tokens issued from now on."""
        return self._tokens.lifetime_s

    @token_lifetime_s.setter
    def token_lifetime_s(self, value: float) -> None:
        self._tokens.lifetime_s = seconds("token_lifetime_s", value)

    @property
    def latency_s(self) -> float:
        """Seconds before each response."""
        return self._server.latency_s

    @latency_s.setter
    def latency_s(self, value: float) -> None:
        self._server.latency_s = seconds("latency_s", value)

    @property
    def before_page(self) -> Callable[[PageRequest], None] | None:
        """Called right before each page of the sessions list is made."""
        return self._endpoints.before_page

    @before_page.setter
    def before_page(self, hook: Callable[[PageRequest], None] | None) -> None:
        self._endpoints.before_page = hook


_instances: weakref.WeakSet[PoderoSimulator] = weakref.WeakSet()
