"""The client: a facade over the other packages, without logic of its own."""

from __future__ import annotations

import copy
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from datetime import date
from typing import Self

import aiohttp

from podero_async import _settings as settings
from podero_async import _validation as arguments
from podero_async._auth.credentials import Credentials
from podero_async._auth.store import TokenStore
from podero_async._fleet.discovery import all_vehicles
from podero_async._fleet.fetch import FleetFetch
from podero_async._fleet.listing import all_users
from podero_async._fleet.user import UserCalls
from podero_async._fleet.vehicle import fetch_page, read_vehicle, stream_vehicle
from podero_async._flow.policies import RetryPolicy, ThrottlePolicy
from podero_async._flow.retry import RequestStats
from podero_async._http import Timeouts, Transport
from podero_async._http.endpoints import Endpoints
from podero_async._paging.window import Window
from podero_async._redaction import strip_traceback
from podero_async._validation import Id
from podero_async.models import (
    ChargingSession,
    ClientStatistics,
    RejectedItem,
    SessionsPage,
    User,
    VehicleRef,
    VehicleSessions,
)
from podero_async.observer import Observer

__all__ = ["PoderoClient"]


class PoderoClient(UserCalls):
    """A client of Podero's Partner API for one organization.

    Create one client, share it between any number of tasks of one event loop, and close it: use it as `async with`, or
    call `aclose`. All calls share one token, one connection pool and one concurrency limit. Nothing is sent before the
    first call. When a call is cancelled, its requests end at once and leave nothing behind.

    Ids are `UUID` values or their text. `from_date` and `to_date` are the first and the last UTC day, both inclusive.
    `include_hidden` includes the sessions that the server hides, such as very short plug-ins.

    An invalid argument is a `ValueError` before anything is sent; an invalid setting is its subclass
    `ConfigurationError`. Each call and stream below may raise an `AuthenticationError` (401), `PermissionDeniedError`
    (403), `NotFoundError` (404), `InvalidRequestError` (400, 422), `RateLimitError` (429), `ServerError` (5xx),
    `TransportError`, `RequestTimeoutError` or `DecodeError`. If another attempt may succeed, the call first makes as
    many as the `RetryPolicy` allows.
    """

    def __init__(
        self,
        org_id: Id,
        credentials: Credentials,
        *,
        base_url: str = settings.PRODUCTION_URL,
        session: aiohttp.ClientSession | None = None,
        retry: RetryPolicy = settings.DEFAULT_RETRY,
        throttle: ThrottlePolicy = settings.DEFAULT_THROTTLE,
        timeouts: Timeouts = settings.DEFAULT_TIMEOUTS,
        token_store: TokenStore | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Create a client without sending anything.

        Args:
            org_id: The organization that has the users and vehicles.
            credentials: `ClientCredentials`, `PasswordCredentials` or `StaticToken`.
            base_url: The API's origin: `PRODUCTION_URL`, `SANDBOX_URL` or another. Plain http only for loopback.
            session: Your own aiohttp session, which the client never closes. Its connection limit per host also limits
                the concurrency. If none is given, the client creates and closes a session.
            retry: How often and for how long a request is tried.
            throttle: How many requests may be in flight, and how many may start per second.
            timeouts: How long one attempt may take.
            token_store: Keeps the token across restarts, for several processes, such as `FileTokenStore`.
            observer: Is told of calls, attempts, pauses and tokens, such as `podero_async.otel.OpenTelemetryObserver`.
        """
        settings.check_kinds(credentials=credentials, retry=retry, throttle=throttle, timeouts=timeouts)
        if session is not None:
            arguments.instance("session", session, aiohttp.ClientSession, "an aiohttp.ClientSession")
        if observer is not None:
            arguments.instance("observer", observer, Observer, "an Observer")
        self._org_id = arguments.uuid("org_id", org_id)
        self._base_url = base_url
        with strip_traceback():  # the URL may contain a password
            transport = Transport(
                base_url,
                credentials,
                session=session,
                retry=retry,
                throttle=throttle,
                timeouts=timeouts,
                token_store=token_store,
                observer=observer,
            )
        self._set_transport(transport, is_derived=False)

    def _set_transport(self, transport: Transport, *, is_derived: bool) -> None:
        self._transport = transport
        self._endpoints = Endpoints(transport, self._org_id)
        self._bulk_endpoints = Endpoints(transport, self._org_id, is_bulk=True)
        self._is_derived = is_derived

    @classmethod
    def from_env(
        cls,
        *,
        session: aiohttp.ClientSession | None = None,
        retry: RetryPolicy = settings.DEFAULT_RETRY,
        throttle: ThrottlePolicy = settings.DEFAULT_THROTTLE,
        timeouts: Timeouts = settings.DEFAULT_TIMEOUTS,
        token_store: TokenStore | None = None,
        observer: Observer | None = None,
    ) -> Self:
        """Create a client from environment variables; the arguments are those of the constructor.

        Reads `PODERO_ORG_ID`, the credentials (`PODERO_CLIENT_ID` and `PODERO_CLIENT_SECRET`, or `PODERO_USERNAME` and
        `PODERO_PASSWORD`, or `PODERO_TOKEN`) and, if it is set, `PODERO_BASE_URL`.

        Raises:
            ConfigurationError: It names every variable that is missing, invalid or in conflict with another.
        """
        with strip_traceback():
            values = settings.read_settings(os.environ)
        return cls(
            values.org_id,
            values.credentials,
            base_url=values.base_url or settings.PRODUCTION_URL,
            session=session,
            retry=retry,
            throttle=throttle,
            timeouts=timeouts,
            token_store=token_store,
            observer=observer,
        )

    def __repr__(self) -> str:
        org_id, base_url = getattr(self, "_org_id", None), getattr(self, "_base_url", None)  # unset if __init__ failed
        return f"PoderoClient(org_id={str(org_id)!r}, base_url={base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End all calls at once with a `ConfigurationError`, and close the client's own session; may be called twice."""
        if not self._is_derived:
            await self._transport.aclose()

    def with_options(self, *, retry: RetryPolicy | None = None, timeouts: Timeouts | None = None) -> Self:
        """Return a client with other bounds that shares all else: token, connections, limits, pauses and statistics.

        Create it once and keep it, because its retries have budgets of their own. It works until this client is closed,
        and closing it closes nothing. An argument that is not given is as in this client.
        """
        settings.check_kinds(retry=retry, timeouts=timeouts, is_optional=True)
        derived = copy.copy(self)
        derived._set_transport(self._transport.with_options(retry, timeouts), is_derived=True)  # noqa: SLF001
        return derived

    def statistics(self) -> ClientStatistics:
        """Return the client's state (requests in flight, limit, pause) and its counts so far."""
        return self._transport.statistics()

    async def list_sessions(
        self,
        user_id: Id,
        vehicle_id: Id,
        from_date: date,
        to_date: date,
        *,
        limit: int = 50,
        offset: int = 0,
        include_hidden: bool = False,
        keep_rejected: bool = False,
    ) -> SessionsPage:
        """Fetch one page of a vehicle's completed charging sessions, in the server's order.

        The list may change between two calls; `vehicle_sessions` and `sessions` read the whole list and
        verify that nothing is missing.
        `GET .../users/{user_id}/electric-vehicles/{vehicle_id}/sessions`

        Args:
            limit: The page's maximum number of rows, 1 to 200.
            offset: The number of rows to skip.
            keep_rejected: Keep unreadable rows on the page's `rejected` instead of raising.

        Raises:
            DecodeError: The response is not a page, or a row cannot be read and `keep_rejected` is false.
        """
        vehicle = arguments.vehicle_ref(user_id, vehicle_id)
        window = Window.of(from_date, to_date, include_hidden=include_hidden)
        bounds = arguments.page_bounds(limit, offset)
        arguments.flag("keep_rejected", keep_rejected)
        return await fetch_page(self._endpoints, vehicle, window, *bounds, keep_rejected=keep_rejected)

    def sessions(
        self,
        user_id: Id,
        vehicle_id: Id,
        from_date: date,
        to_date: date,
        *,
        include_hidden: bool = False,
        on_rejected: Callable[[RejectedItem], None] | None = None,
    ) -> AsyncGenerator[ChargingSession, None]:
        """Stream a vehicle's completed charging sessions, each once, page by page as the pages are proven.

        Sessions come in the order in which pages are proven; they are not sorted. A few pages are in memory at a time.
        If the list cannot be verified as complete, a `CompletenessError` is raised after the last session. If you leave
        the stream early, close it with `contextlib.aclosing`, so that its requests end at once.
        `GET .../users/{user_id}/electric-vehicles/{vehicle_id}/sessions`, once per page.

        Args:
            on_rejected: Called with each row that cannot be read. If none is given, such a row raises `DecodeError`.
        """
        vehicle = arguments.vehicle_ref(user_id, vehicle_id)
        window = Window.of(from_date, to_date, include_hidden=include_hidden)
        return stream_vehicle(self._endpoints, vehicle, window, arguments.callback("on_rejected", on_rejected))

    async def vehicle_sessions(
        self, user_id: Id, vehicle_id: Id, from_date: date, to_date: date, *, include_hidden: bool = False
    ) -> VehicleSessions:
        """Fetch all of a vehicle's completed charging sessions, with a verdict on their completeness.

        Pages are read concurrently; the whole list is in memory. Rows that cannot be read are kept on `rejected`. A
        list that was read but could not be verified raises no error: its `completeness` is `UNPROVEN`.
        `GET .../users/{user_id}/electric-vehicles/{vehicle_id}/sessions`, once per page.

        Raises:
            CompletenessError: The list makes no progress, since the server ignores the offset.
        """
        vehicle = arguments.vehicle_ref(user_id, vehicle_id)
        window = Window.of(from_date, to_date, include_hidden=include_hidden)
        return await read_vehicle(self._endpoints, vehicle, window)

    async def current_session(self, user_id: Id, vehicle_id: Id) -> ChargingSession | None:
        """Fetch the vehicle's active charging session, or None if it has none.

        `GET .../users/{user_id}/electric-vehicles/{vehicle_id}/sessions/current`
        """
        return await self._endpoints.current_session(arguments.vehicle_ref(user_id, vehicle_id), RequestStats())

    def users(self, *, include_deleted: bool = False) -> AsyncGenerator[User, None]:
        """Stream the organization's users, each once, in the server's order.

        One response is in memory at a time, and the ids of all users so far, which take some 100 bytes each. A server
        that does not page the list sends all users in one response. If the server counts more users than it lists, does not
        show the end of a list without a total, or lists a user without a readable id, a `CompletenessError` is raised after
        the last user. `GET .../users`, once per page, and once more if the server does not count the users.
        """
        deleted = arguments.flag("include_deleted", include_deleted)
        users = all_users(self._endpoints, include_deleted=deleted, stats=(stats := RequestStats()))
        return self._endpoints.observation.stream("users", stats, users)

    def discover_vehicles(self) -> AsyncGenerator[VehicleRef, None]:
        """Stream the vehicles of all users, in no particular order; users without vehicles cost no request.

        Several users' lists are requested at a time. If one of them fails, its error ends the stream. If the list
        of users is incomplete (see `users`), a `CompletenessError` is raised after the last vehicle.
        `GET .../users`, then `GET .../users/{user_id}/electric-vehicles` for each user.
        """
        stats = RequestStats()
        found = all_vehicles(self._bulk_endpoints, stats, ahead=self._transport.limiter.ceiling)
        return self._bulk_endpoints.observation.stream("discover_vehicles", stats, found)

    def fetch_fleet(
        self,
        from_date: date,
        to_date: date,
        vehicles: Iterable[VehicleRef] | AsyncIterable[VehicleRef] | None = None,
        *,
        include_hidden: bool = False,
    ) -> FleetFetch:
        """Fetch all sessions of many vehicles, as a stream of outcomes in order of completion.

        Use it as `async with client.fetch_fleet(...) as fleet:` and `async for outcome in fleet:`. An outcome is a
        `VehicleSessions`, or a `VehicleFailure` with its error if one vehicle fails; the others go on. An error that every
        vehicle would share, such as refused credentials, is raised from the iteration and ends it. Vehicles are read only
        as fast as you take outcomes, and memory does not grow with the fleet. Leaving the context early cancels and awaits
        everything it started. `fleet.summary` has the counts so far. One request for each page of sessions:
        `GET .../users/{user_id}/electric-vehicles/{vehicle_id}/sessions`.

        Args:
            vehicles: Any iterable or async iterable; a generator is closed at the end. If none is given, they are discovered:
                one that two users list has two outcomes, and an incomplete list of users is a `CompletenessError` at the end.
        """
        window = Window.of(from_date, to_date, include_hidden=include_hidden)
        return FleetFetch(self._bulk_endpoints, self._transport.limiter, window, arguments.vehicle_refs(vehicles))
