"""What the API speaks of, as values: charging sessions, users, vehicles, and what a fetch of a fleet yields.

Plain attrs classes with the wire's own field names. They know nothing of JSON, HTTP or how they were fetched.
"""

import enum
import uuid
from datetime import date, datetime
from typing import Any, Self

import attrs

from podero_async.errors import PoderoError

__all__ = [
    "ChargingSession",
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


class _OpenEnum(enum.StrEnum):
    """An enum that the server may extend: an unknown text becomes an unnamed member that keeps it.

    An unnamed member has its text as `value`, no `name`, equals every member of the same text, and does not show
    when the class is iterated.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = None  # type: ignore[assignment]  # as enum.Flag's own unnamed members
        member._value_ = value
        return member

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{f'.{self._name_}' if self._name_ else ''}: {self._value_!r}>"


class SessionOutcome(_OpenEnum):
    """Why a charging session went as it did. The server's list grows: see `_OpenEnum` for texts not listed here."""

    NOT_AT_HOME = "not_at_home"
    NOT_AUTHENTICATED = "not_authenticated"
    SMART_OPTIMIZATION_DISABLED = "smart_optimization_disabled"
    NO_BATTERY_CAPACITY = "no_battery_capacity"
    ALREADY_AT_TARGET = "already_at_target"
    EV_NOT_FOUND = "ev_not_found"
    HEMS_ONLY_MODE = "hems_only_mode"
    IMMEDIATE_START = "immediate_start"
    OEM_NOT_CAPABLE = "oem_not_capable"
    INSUFFICIENT_PRICE_COVERAGE = "insufficient_price_coverage"
    USER_UNPLUGGED_EARLY = "user_unplugged_early"
    COMMANDS_FAILED = "commands_failed"
    OEM_REPORTED_FULL = "oem_reported_full"
    BOOSTED = "boosted"
    IN_PROGRESS = "in_progress"
    OPTIMIZED = "optimized"
    OTHER = "other"
    UNKNOWN = "unknown"


class HiddenReason(_OpenEnum):
    """Why the server's classifier hid a session."""

    SHORT_DURATION = "short_duration"
    """A plug-in of under five minutes: a blip, not a charge."""


class Completeness(enum.StrEnum):
    """What is known of a read: were these all the sessions that existed throughout it?"""

    VERIFIED = "verified"
    """Proven complete at the first reading."""
    REPAIRED = "repaired"
    """Proven complete, after the list had moved or had no order: parts were read again, or day by day."""
    UNPROVEN = "unproven"
    """Read to the end, but nothing proves that no session is missing."""


@attrs.frozen(kw_only=True)
class ChargingSession:
    """One charging session of one vehicle, from plug-in to unplug: the description's `SessionItem`.

    Times are aware datetimes. State of charge (SoC) is in percent of the battery, 0 to 100.
    """

    id: uuid.UUID
    plug_in_time: datetime
    """When the vehicle was plugged in."""
    unplug_time: datetime | None
    """When it was unplugged; None while it is plugged in, or where no unplugging was seen."""
    inferred_session_end: datetime | None
    """Where no unplugging was seen: when the session must have ended, as the server infers it."""
    desired_charging_start_time: datetime | None
    desired_charging_end_time: datetime | None
    charge_deadline: datetime | None
    """When the vehicle had to be ready."""
    target_soc_pct: float | None
    initial_soc_pct: float | None
    final_soc_pct: float | None
    energy_charged_kwh: float | None
    avg_charge_power_kw: float | None
    peak_charge_power_kw: float | None
    actual_cost_eur: float | None
    expected_savings_eur: float | None
    """Savings against charging at once, as they were planned; in euros."""
    actual_savings_eur: float | None
    """Savings against charging at once, as they came about; in euros, computed some time after the session."""
    is_at_home: bool
    session_outcome: SessionOutcome
    is_hidden: bool = False
    """True where the server's classifier holds the session for a blip; listed only with `include_hidden`."""
    hidden_reason: HiddenReason | None = None
    target_reachable: bool | None = None
    """Whether the target could be reached before the deadline."""
    reachable_soc_pct: int | None = None
    """The state of charge that could be reached before the deadline, in whole percent."""


@attrs.frozen(kw_only=True)
class RejectedItem:
    """A row of a page that could not be read; the rows around it were."""

    index: int
    """The row's place in the list as it was served: 0 is the first row at offset 0."""
    path: str
    """Where in the row, as a JSON path (`$.plug_in_time`)."""
    reason: str
    """What was expected there, without the value."""
    raw: Any = attrs.field(repr=False)
    """The row as the server sent it, as plain Python values."""


@attrs.frozen(kw_only=True)
class SessionsPage:
    """One page of a vehicle's completed charging sessions, as the server answered it."""

    total: int
    """The server's count of all sessions in the window, not only of this page."""
    items: list[ChargingSession]
    rejected: list[RejectedItem] = attrs.field(factory=list)
    """Rows that could not be read; only where the call was asked to keep them."""


@attrs.frozen(kw_only=True)
class User:
    """A user of the organization, as far as a fleet needs it. Personal fields do not show in the repr."""

    id: uuid.UUID
    organization_id: uuid.UUID | None = None
    role: str | None = None
    """`admin`, `staff`, `user` or `guest`."""
    num_electric_vehicles: int | None = None
    """None where the server does not say; 0 means that there is nothing to ask for."""
    external_user_id: str | None = attrs.field(default=None, repr=False)
    """The partner's own id of this user."""
    email: str | None = attrs.field(default=None, repr=False)
    first_name: str | None = attrs.field(default=None, repr=False)
    last_name: str | None = attrs.field(default=None, repr=False)
    is_onboarded: bool | None = None
    joined_at: datetime | None = None
    last_login: datetime | None = None


@attrs.frozen(kw_only=True)
class DeviceModel:
    """What a vehicle is."""

    manufacturer: str | None = None
    model: str | None = None
    year: int | None = None


@attrs.frozen(kw_only=True)
class VehicleOwner:
    """Whose a vehicle is."""

    id: uuid.UUID | None = None
    external_id: str | None = attrs.field(default=None, repr=False)
    """The partner's own id of the user."""


@attrs.frozen(kw_only=True)
class ElectricVehicle:
    """A user's vehicle, as far as a fleet needs it."""

    id: uuid.UUID
    device_model: DeviceModel | None = None
    owner: VehicleOwner | None = None
    lifecycle_state: str | None = None
    is_authenticated: bool | None = None
    """Whether the vehicle's manufacturer still lets the server in."""
    is_smart_optimization_active: bool | None = None
    price_zone: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    deleted_at: datetime | None = None


def _as_uuid(value: uuid.UUID | str) -> uuid.UUID:
    if isinstance(value, uuid.UUID):
        return value
    if not isinstance(value, str):
        raise ValueError(f"a uuid or its text is wanted, not {type(value).__name__}")  # noqa: TRY004
    return uuid.UUID(value)


@attrs.frozen(kw_only=True)
class VehicleRef:
    """Which vehicle of which user. Ids may be given as text; what is no uuid is a `ValueError`."""

    user_id: uuid.UUID = attrs.field(converter=_as_uuid)
    vehicle_id: uuid.UUID = attrs.field(converter=_as_uuid)


@attrs.frozen(kw_only=True)
class VehicleSessions:
    """All sessions of one vehicle in a window of days, each once, and the verdict on their completeness."""

    vehicle: VehicleRef
    from_date: date
    to_date: date
    """Both days are inclusive, in UTC."""
    sessions: list[ChargingSession] = attrs.field(repr=lambda rows: f"<{len(rows)} sessions>")
    """In the server's order where it has one (`VERIFIED`), else by window of days."""
    completeness: Completeness
    total: int
    """The server's own count of the window, as last seen."""
    rejected: list[RejectedItem] = attrs.field(factory=list)
    """Rows that arrived but could not be read. They count as delivered in `completeness`."""
    requests: int = 0
    """HTTP requests that this vehicle cost, retries included."""
    retries: int = 0


@attrs.frozen(kw_only=True)
class VehicleFailure:
    """A vehicle whose sessions could not be fetched, or a user whose vehicles could not be listed (`vehicle` is None)."""

    user_id: uuid.UUID
    vehicle: VehicleRef | None
    error: PoderoError
    requests: int = 0
    retries: int = 0


@attrs.frozen(kw_only=True)
class FleetSummary:
    """What a fetch of a fleet did so far. The counts are of outcomes that were handed over."""

    vehicles: int = 0
    """Vehicles whose sessions were fetched: `verified + repaired + unproven`."""
    failures: int = 0
    sessions: int = 0
    rejected: int = 0
    verified: int = 0
    repaired: int = 0
    unproven: int = 0
    requests: int = 0
    """HTTP requests for sessions and, where the fleet was discovered, for users and vehicles; retries included."""
    retries: int = 0
    pauses: int = 0
    """How often the server asked the whole client to wait."""
    seconds: float = 0.0
    """Wall time from the start of the fetch to now, or to its end."""
