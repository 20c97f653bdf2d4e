"""The values that this library returns: charging sessions, users, vehicles, and the outcomes of a fleet fetch.

All classes are frozen attrs classes with keyword-only arguments, and fields have the names of the API's JSON. Times are
aware datetimes; a time without an offset is read as UTC. A field has the value None if the server sent null or left
it out. The API's contract names most fields without describing them, so their descriptions here follow from the names.
"""

import uuid
from contextlib import suppress
from datetime import date, datetime
from typing import Any, cast

import attrs

from podero_async._enums import Completeness, HiddenReason, SessionOutcome
from podero_async._json import JsonModel
from podero_async.errors import PoderoError

__all__ = [
    "ChargingSession",
    "ClientStatistics",
    "Completeness",
    "DeviceModel",
    "ElectricVehicle",
    "FleetSummary",
    "HiddenReason",
    "RejectedItem",
    "SessionOutcome",
    "SessionsPage",
    "User",
    "VehicleFailure",
    "VehicleOwner",
    "VehicleRef",
    "VehicleSessions",
]


@attrs.frozen(kw_only=True)
class ChargingSession(JsonModel):
    """One charging session of one vehicle, from plug-in to unplug (`SessionItem` in the API's contract).

    A state of charge (SoC) is in percent of the battery's capacity, 0 to 100. The server may change a session later.
    """

    id: uuid.UUID
    """The session's id. It is unique among all sessions."""
    plug_in_time: datetime
    """Time when the vehicle was plugged in."""
    unplug_time: datetime | None
    """Time when the vehicle was unplugged; None if it is still plugged in, or if the server did not see it unplugged."""
    inferred_session_end: datetime | None
    """End of the session as the server infers it, if it did not see the vehicle unplugged."""
    desired_charging_start_time: datetime | None
    desired_charging_end_time: datetime | None
    charge_deadline: datetime | None
    """Time by which the vehicle had to be charged."""
    target_soc_pct: float | None
    initial_soc_pct: float | None
    """State of charge at plug-in, in percent."""
    final_soc_pct: float | None
    """State of charge at the end of the session, in percent."""
    energy_charged_kwh: float | None
    avg_charge_power_kw: float | None
    peak_charge_power_kw: float | None
    """Highest charging power, in kW."""
    actual_cost_eur: float | None
    """Cost of the energy, in euros."""
    expected_savings_eur: float | None
    """Savings that the server planned, compared with charging at once, in euros."""
    actual_savings_eur: float | None
    """Savings achieved, compared with charging at once, in euros. The server computes them after the session."""
    is_at_home: bool
    """True if the vehicle was at its user's home."""
    session_outcome: SessionOutcome
    is_hidden: bool = False
    """True if the server hid the session, as it does with very short ones. Listed only with `include_hidden`."""
    hidden_reason: HiddenReason | None = None
    """Reason why the session is hidden; None if it is not."""
    target_reachable: bool | None = None
    """True if the target could be reached before the deadline."""
    reachable_soc_pct: int | None = None
    """State of charge that could be reached before the deadline, in whole percent."""


@attrs.frozen(kw_only=True)
class RejectedItem(JsonModel):
    """A row of a page that could not be read. The other rows of the page are not affected."""

    index: int
    """The row's position in the list, counted from 0 at offset 0."""
    path: str
    """JSON path of the unreadable value in the row (`$.plug_in_time`)."""
    reason: str
    """The problem (`expected a number, got a string`). The value itself is only in `raw`."""
    raw: Any = attrs.field(repr=False)
    """The row as the server sent it, parsed from JSON."""


@attrs.frozen(kw_only=True)
class SessionsPage(JsonModel):
    """One page of a vehicle's completed charging sessions, as the server returned it."""

    total: int
    """The server's count of all sessions in the window, not only of this page."""
    items: list[ChargingSession]
    """The sessions of the page, in the server's order."""
    rejected: list[RejectedItem] = attrs.field(factory=list)
    """Rows that could not be read; empty unless `list_sessions` was called with `keep_rejected`."""


@attrs.frozen(kw_only=True)
class User(JsonModel):
    """A user of the organization, with the fields that a fleet needs. Personal fields are left out of the repr."""

    id: uuid.UUID
    organization_id: uuid.UUID | None = None
    role: str | None = None
    """`admin`, `staff`, `user` or `guest`."""
    num_electric_vehicles: int | None = None
    """Number of vehicles; None if unknown. `fetch_fleet` sends no request for a user with 0 vehicles."""
    external_user_id: str | None = attrs.field(default=None, repr=False)
    """The partner's own id for the user."""
    email: str | None = attrs.field(default=None, repr=False)
    first_name: str | None = attrs.field(default=None, repr=False)
    last_name: str | None = attrs.field(default=None, repr=False)
    is_onboarded: bool | None = None
    """True if the user has completed the onboarding."""
    joined_at: datetime | None = None
    """Time when the user joined."""
    last_login: datetime | None = None
    """Time of the last login."""


@attrs.frozen(kw_only=True)
class DeviceModel(JsonModel):
    """The model of a vehicle."""

    manufacturer: str | None = None
    model: str | None = None
    year: int | None = None
    """Model year."""


@attrs.frozen(kw_only=True)
class VehicleOwner(JsonModel):
    """The owner of a vehicle."""

    id: uuid.UUID | None = None
    external_id: str | None = attrs.field(default=None, repr=False)
    """The partner's own id for the user."""


@attrs.frozen(kw_only=True)
class ElectricVehicle(JsonModel):
    """A user's vehicle, with the fields that a fleet needs."""

    id: uuid.UUID
    device_model: DeviceModel | None = None
    """Manufacturer, model and year."""
    owner: VehicleOwner | None = None
    """The user who owns the vehicle."""
    lifecycle_state: str | None = None
    """The server's state of the vehicle (`active`)."""
    is_authenticated: bool | None = None
    """True if the server still has access to the vehicle at its manufacturer."""
    is_smart_optimization_active: bool | None = None
    """True if the server optimizes when the vehicle charges."""
    price_zone: str | None = None
    """Electricity price zone (`AT`)."""
    created_at: datetime | None = None
    """Time when the vehicle was added."""
    updated_at: datetime | None = None
    """Time of the last change."""
    deleted_at: datetime | None = None
    """Time when the vehicle was deleted; None if it was not."""


def _as_uuid(value: uuid.UUID | str) -> uuid.UUID:
    """Parse an id; leave any other value for the validator to reject, when the object is whole and so has a repr."""
    with suppress(ValueError, TypeError, AttributeError):
        return value if isinstance(value, uuid.UUID) else uuid.UUID(value)
    return cast("uuid.UUID", value)


def _check_uuid(_: object, attribute: "attrs.Attribute[uuid.UUID]", value: object) -> None:
    if not isinstance(value, uuid.UUID):
        raise ValueError(f"{attribute.name} must be a uuid")  # noqa: TRY004 - as all wrong arguments


@attrs.frozen(kw_only=True)
class VehicleRef(JsonModel):
    """The ids of a vehicle and its user, and details that a discovery found. References with the same ids are equal.

    Ids may be passed as text; a text that is not a uuid is a `ValueError`.
    """

    user_id: uuid.UUID = attrs.field(converter=_as_uuid, validator=_check_uuid)
    vehicle_id: uuid.UUID = attrs.field(converter=_as_uuid, validator=_check_uuid)
    external_user_id: str | None = attrs.field(default=None, eq=False, repr=False)
    """The partner's own id for the user. Like all fields below, it is None unless a discovery has found it."""
    manufacturer: str | None = attrs.field(default=None, eq=False, repr=False)
    model: str | None = attrs.field(default=None, eq=False, repr=False)
    year: int | None = attrs.field(default=None, eq=False, repr=False)
    price_zone: str | None = attrs.field(default=None, eq=False, repr=False)
    lifecycle_state: str | None = attrs.field(default=None, eq=False, repr=False)
    is_authenticated: bool | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen(kw_only=True)
class VehicleSessions(JsonModel):
    """All sessions of one vehicle in a window of days, each once, with the verdict on their completeness."""

    vehicle: VehicleRef
    from_date: date
    """First day of the window, in UTC, inclusive."""
    to_date: date
    """Last day of the window, in UTC, inclusive."""
    sessions: list[ChargingSession] = attrs.field(repr=lambda rows: f"<{len(rows)} sessions>")
    """The sessions, in the order in which their pages were proven, which may differ from the server's."""
    completeness: Completeness
    total: int
    """The server's last count of the sessions in the window."""
    rejected: list[RejectedItem] = attrs.field(factory=list)
    """Rows that arrived but could not be read. For `completeness` they count as delivered."""
    requests: int = 0
    """Number of HTTP requests for this vehicle, retries included."""
    retries: int = 0
    """As in `FleetSummary`."""
    reason: str = ""
    """Why the list is UNPROVEN; empty for the other verdicts."""


@attrs.frozen(kw_only=True)
class VehicleFailure:
    """The failure of one vehicle in a fleet fetch, or of one user, whose vehicles could not all be listed."""

    user_id: uuid.UUID
    vehicle: VehicleRef | None
    """The vehicle; None if the user's vehicles could not be listed, or one of them has no readable id."""
    error: PoderoError
    """The error that a call for this vehicle or user alone would raise."""
    external_user_id: str | None = attrs.field(default=None, repr=False)
    """The partner's own id of the user, if a discovery has found it."""
    requests: int = 0
    """Number of HTTP requests for this vehicle or user, retries included."""
    retries: int = 0
    """Retries: attempts after a call's first one, and probes in an outage. A replay after a 401 is not a retry."""


@attrs.frozen(kw_only=True)
class FleetSummary(JsonModel):
    """The counts of a fleet fetch so far. Vehicles, failures and sessions count once the caller has received them."""

    vehicles: int = 0
    """Vehicles with sessions fetched: the sum of `verified`, `repaired` and `unproven`."""
    failures: int = 0
    """Vehicles, and users, that failed."""
    sessions: int = 0
    rejected: int = 0
    """Rows that could not be read."""
    verified: int = 0
    repaired: int = 0
    unproven: int = 0
    requests: int = 0
    """HTTP requests for sessions, and for users and vehicles if the fleet was discovered; retries included."""
    retries: int = 0
    """Retries: attempts after a call's first one, and probes in an outage. A replay after a 401 is not a retry."""
    pauses: int = 0
    """Number of times that the server asked the client to pause."""
    seconds: float = 0.0
    """Seconds from the start of the fetch until now, or until its end."""


@attrs.frozen(kw_only=True)
class ClientStatistics(JsonModel):
    """The state and the counts of a client, and of all clients derived from it by `with_options`."""

    in_flight: int
    """Requests in flight now, token requests excluded."""
    queued: int
    """Requests that wait until they may be sent."""
    limit: int
    """Number of requests that may be in flight now."""
    paused_for_s: float
    """Seconds until the next request may be sent, if the server asked for a pause; otherwise 0."""
    is_breaker_open: bool
    """Whether all recent requests to an endpoint have failed, until one of your next calls to it succeeds."""
    waiting_for_token: int
    """Calls that wait for a token. They are not queued yet."""
    is_token_failing: bool
    """Whether the last token request failed, or the last attempt of the one under way; false before the first one."""
    requests: int
    """HTTP requests so far, retries included and token requests excluded."""
    retries: int
    """Requests that repeated a failed one, and probes in an outage."""
    pauses: int
    token_requests: int
    """Requests to the token endpoint, retries included."""
    unknown_fields: int
    """Fields of sessions that this process has met and this release does not know; the log names each."""
