"""The client: a facade over the rooms behind it, with no logic of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from datetime import date
from functools import partial
from types import TracebackType
from typing import Self
from uuid import UUID

import aiohttp

from podero_async import _validation as arguments
from podero_async._auth.credentials import ClientCredentials, Credentials, PasswordCredentials, StaticToken
from podero_async._auth.store import TokenStore
from podero_async._decode import decode_page
from podero_async._fleet.discovery import all_users, discover
from podero_async._fleet.fetch import FleetFetch
from podero_async._fleet.vehicle import read_vehicle, stream_vehicle
from podero_async._flow.policies import RetryPolicy, ThrottlePolicy
from podero_async._flow.retry import RequestStats
from podero_async._http import Timeouts, Transport
from podero_async._http.endpoints import Endpoints
from podero_async._paging.window import Window
from podero_async._redaction import strip_traceback
from podero_async._settings import read_settings
from podero_async.errors import ConfigurationError, DecodeError
from podero_async.models import (
    ChargingSession,
    ElectricVehicle,
    RejectedItem,
    SessionsPage,
    User,
    VehicleFailure,
    VehicleRef,
    VehicleSessions,
)

__all__ = ["PRODUCTION_URL", "SANDBOX_URL", "PoderoClient"]

PRODUCTION_URL = "https://app.podero.com"
SANDBOX_URL = "https://sandbox-app.podero.com"

_DEFAULT_RETRY = RetryPolicy()
_DEFAULT_THROTTLE = ThrottlePolicy()
_DEFAULT_TIMEOUTS = Timeouts()


class PoderoClient:
    """A client of Podero's Partner API for one organization: make one, share it, and close it.

    It is safe to use from any number of tasks of one event loop: they share one token, one connection pool, one
    throttle and one retry budget. Use it as `async with`, or call `aclose` at the end. Nothing is sent before the
    first call. A cancelled call stops at once and leaves nothing behind.

    Every coroutine and stream below may raise an `AuthenticationError`, a `PermissionDeniedError`, a `NotFoundError`,
    an `InvalidRequestError`, a `RateLimitError`, a `ServerError`, a `TransportError`, a `RequestTimeoutError` or a
    `DecodeError`, after as many attempts as the `RetryPolicy` allows; and a `ValueError`, which names the argument at
    fault, before anything is sent.
    """

    def __init__(
        self,
        org_id: UUID | str,
        credentials: Credentials,
        *,
        base_url: str = PRODUCTION_URL,
        session: aiohttp.ClientSession | None = None,
        retry: RetryPolicy = _DEFAULT_RETRY,
        throttle: ThrottlePolicy = _DEFAULT_THROTTLE,
        timeouts: Timeouts = _DEFAULT_TIMEOUTS,
        token_store: TokenStore | None = None,
    ) -> None:
        """Set up a client; nothing is sent yet.

        Args:
            org_id: The organization whose users and vehicles are read.
            credentials: `ClientCredentials`, `PasswordCredentials` or `StaticToken`.
            base_url: The API's origin: `PRODUCTION_URL`, `SANDBOX_URL`, or another; http only to loopback.
            session: An aiohttp session to use, which is never closed; without one the client makes and closes its own.
                Of a lent session's pool no more connections are used than it has for one host.
            retry: How often and how long a request is tried.
            throttle: How many requests may be under way.
            timeouts: How long one attempt may take.
            token_store: Where the token survives a restart, such as a `FileTokenStore`.

        Raises:
            ConfigurationError: An argument is wrong.
        """
        if not isinstance(credentials, ClientCredentials | PasswordCredentials | StaticToken):
            raise ConfigurationError("credentials must be ClientCredentials, PasswordCredentials or StaticToken")
        for name, value, kind in (
            ("retry", retry, RetryPolicy),
            ("throttle", throttle, ThrottlePolicy),
            ("timeouts", timeouts, Timeouts),
        ):
            if not isinstance(value, kind):
                raise ConfigurationError(f"{name} must be a {kind.__name__}")
        self._org_id = arguments.uuid("org_id", org_id)
        self._base_url = base_url
        with strip_traceback():  # the origin may come with a password
            self._transport = Transport(
                base_url,
                credentials,
                session=session,
                retry=retry,
                throttle=throttle,
                timeouts=timeouts,
                token_store=token_store,
            )
        self._endpoints = Endpoints(self._transport, self._org_id)

    @classmethod
    def from_env(
        cls,
        *,
        session: aiohttp.ClientSession | None = None,
        retry: RetryPolicy = _DEFAULT_RETRY,
        throttle: ThrottlePolicy = _DEFAULT_THROTTLE,
        timeouts: Timeouts = _DEFAULT_TIMEOUTS,
        token_store: TokenStore | None = None,
    ) -> Self:
        """Set up a client from the environment.

        Reads `PODERO_ORG_ID`, the credentials (`PODERO_CLIENT_ID` and `PODERO_CLIENT_SECRET`, or `PODERO_USERNAME` and
        `PODERO_PASSWORD`, or `PODERO_TOKEN`) and, where it is set, `PODERO_BASE_URL`.

        Raises:
            ConfigurationError: It names every variable that is missing, wrong or too much.
        """
        with strip_traceback():
            settings = read_settings(os.environ)
        return cls(
            settings.org_id,
            settings.credentials,
            base_url=settings.base_url or PRODUCTION_URL,
            session=session,
            retry=retry,
            throttle=throttle,
            timeouts=timeouts,
            token_store=token_store,
        )

    def __repr__(self) -> str:
        return f"PoderoClient(org_id={str(self._org_id)!r}, base_url={self._base_url!r})"

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.aclose()

    async def aclose(self) -> None:
        """End the token's renewal and close the connections, except those of a lent session. May be called twice."""
        await self._transport.aclose()

    # --- charging sessions --------------------------------------------------------------------------------------------

    async def list_sessions(
        self,
        user_id: UUID | str,
        vehicle_id: UUID | str,
        from_date: date,
        to_date: date,
        *,
        limit: int = 50,
        offset: int = 0,
        include_hidden: bool = False,
        keep_rejected: bool = False,
    ) -> SessionsPage:
        """Fetch one page of a vehicle's completed charging sessions, as the server has it at this moment.

        `GET .../users/{user_id}/electric-vehicles/{vehicle_id}/sessions`

        Args:
            user_id: The vehicle's user.
            vehicle_id: The vehicle.
            from_date: First UTC day, inclusive.
            to_date: Last UTC day, inclusive.
            limit: Most rows of the page, 1 to 200.
            offset: Rows to skip.
            include_hidden: Whether sessions that the server's classifier hid are listed, too.
            keep_rejected: Whether a row that cannot be read is kept on the page's `rejected`, instead of raising.

        Raises:
            DecodeError: A row cannot be read, or the answer is no page.
        """
        vehicle = arguments.vehicle_ref(user_id, vehicle_id)
        window = Window.of(from_date, to_date, include_hidden=include_hidden)
        limit, offset = arguments.page_bounds(limit, offset)
        page = await self._endpoints.sessions(
            vehicle,
            window.from_date,
            window.to_date,
            include_hidden=include_hidden,
            limit=limit,
            offset=offset,
            decode=partial(decode_page, first_index=offset) if offset else decode_page,
            stats=RequestStats(),
        )
        if not keep_rejected:
            _refuse_rejected(page.rejected)
        return page

    def sessions(
        self,
        user_id: UUID | str,
        vehicle_id: UUID | str,
        from_date: date,
        to_date: date,
        *,
        include_hidden: bool = False,
        on_rejected: Callable[[RejectedItem], None] | None = None,
    ) -> AsyncGenerator[ChargingSession, None]:
        """Stream a vehicle's completed charging sessions, each once, page by page as they are proven.

        The stream holds a few pages at a time. Its order is the server's, as far as the list has one. Close it
        (`contextlib.aclosing`) where you leave it early and want its requests cancelled at that moment.

        Args:
            user_id: The vehicle's user.
            vehicle_id: The vehicle.
            from_date: First UTC day, inclusive.
            to_date: Last UTC day, inclusive.
            include_hidden: Whether sessions that the server's classifier hid are listed, too.
            on_rejected: Called with each row that cannot be read; without it such a row raises.

        Raises:
            CompletenessError: After the last row, where the read could not be proven complete.
            DecodeError: A row cannot be read.
        """
        vehicle = arguments.vehicle_ref(user_id, vehicle_id)
        window = Window.of(from_date, to_date, include_hidden=include_hidden)
        return stream_vehicle(self._endpoints, vehicle, window, on_rejected or _refuse)

    async def vehicle_sessions(
        self,
        user_id: UUID | str,
        vehicle_id: UUID | str,
        from_date: date,
        to_date: date,
        *,
        include_hidden: bool = False,
    ) -> VehicleSessions:
        """Fetch all of a vehicle's completed charging sessions, with the verdict on their completeness.

        Pages are read concurrently. Rows that cannot be read are kept on `rejected`.

        Args:
            user_id: The vehicle's user.
            vehicle_id: The vehicle.
            from_date: First UTC day, inclusive.
            to_date: Last UTC day, inclusive.
            include_hidden: Whether sessions that the server's classifier hid are listed, too.

        Raises:
            CompletenessError: The list makes no progress, whatever the offset. A list that ends, but could not be
                proven, is no error: its `completeness` is `UNPROVEN`.
        """
        vehicle = arguments.vehicle_ref(user_id, vehicle_id)
        window = Window.of(from_date, to_date, include_hidden=include_hidden)
        return await read_vehicle(self._endpoints, vehicle, window, RequestStats())

    async def current_session(self, user_id: UUID | str, vehicle_id: UUID | str) -> ChargingSession | None:
        """Fetch the vehicle's active charging session; None when it has none.

        `GET .../users/{user_id}/electric-vehicles/{vehicle_id}/sessions/current`
        """
        return await self._endpoints.current_session(arguments.vehicle_ref(user_id, vehicle_id), RequestStats())

    # --- users and vehicles -------------------------------------------------------------------------------------------

    def users(self, *, include_deleted: bool = False) -> AsyncGenerator[User, None]:
        """Stream the organization's users, each once, in the server's order.

        `GET .../users`
        """
        return all_users(self._endpoints, include_deleted=include_deleted, stats=RequestStats())

    async def user_by_external_id(self, external_id: str, *, include_deleted: bool = False) -> User:
        """Fetch the user that the partner knows by its own id.

        `GET .../users/by-ext-id/{external_id}`
        """
        with strip_traceback():  # the partner's own id may name a person
            own_id = arguments.external_id(external_id)
            return await self._endpoints.user_by_external_id(
                own_id, include_deleted=include_deleted, stats=RequestStats()
            )

    async def electric_vehicles(self, user_id: UUID | str) -> list[ElectricVehicle]:
        """Fetch a user's vehicles.

        `GET .../users/{user_id}/electric-vehicles`
        """
        return await self._endpoints.electric_vehicles(arguments.uuid("user_id", user_id), RequestStats())

    async def discover_vehicles(self) -> AsyncGenerator[VehicleRef, None]:
        """Stream the vehicles of all users of the organization, in no particular order.

        Users who have none cost no request; the others are asked about concurrently. A user whose vehicles cannot be
        listed ends the stream with that error.

        `GET .../users`, then `GET .../users/{user_id}/electric-vehicles` for each user.
        """
        async with aclosing(discover(self._endpoints, RequestStats(), ahead=self._transport.limiter.ceiling)) as found:
            async for vehicle in found:
                if isinstance(vehicle, VehicleFailure):
                    raise vehicle.error
                yield vehicle

    # --- the fleet ----------------------------------------------------------------------------------------------------

    def fetch_fleet(
        self,
        from_date: date,
        to_date: date,
        vehicles: Iterable[VehicleRef] | AsyncIterable[VehicleRef] | None = None,
        *,
        include_hidden: bool = False,
    ) -> FleetFetch:
        """Fetch all sessions of many vehicles, as a stream of outcomes in order of completion.

        Used as `async with client.fetch_fleet(...) as fleet:` and `async for outcome in fleet:`. An outcome is a
        `VehicleSessions`, or a `VehicleFailure` with its error; the others go on. What would fail every vehicle, such
        as refused credentials, is raised from the iteration and ends it.

        Work is pulled: memory does not grow with the fleet, and a slow consumer slows the fetch. Leaving the context
        early cancels and awaits all that it started. `fleet.summary` counts what was done so far.

        Args:
            from_date: First UTC day, inclusive.
            to_date: Last UTC day, inclusive.
            vehicles: Which vehicles, from any iterable or async iterable; None discovers the organization's whole
                fleet while fetching.
            include_hidden: Whether sessions that the server's classifier hid are listed, too.
        """
        window = Window.of(from_date, to_date, include_hidden=include_hidden)
        return FleetFetch(self._endpoints, self._transport.limiter, window, vehicles)


def _refuse(item: RejectedItem) -> None:
    raise DecodeError(item.reason, f"$.items[{item.index}]{item.path[1:]}", item.index)


def _refuse_rejected(rejected: list[RejectedItem]) -> None:
    for item in rejected:
        _refuse(item)
