"""Faults, and the script that decides which requests they affect; the server plays them."""

import uuid
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Literal, get_args

import attrs

from podero_async.models import VehicleRef
from podero_async.testing._arguments import AnyVehicle, seconds, vehicle_id_of, whole_number

Endpoint = Literal["sessions", "current", "users", "user", "vehicles", "token"]
FaultKind = Literal[
    "clamped_limit",
    "drip",
    "empty",
    "empty_list",
    "hang",
    "malformed_json",
    "malformed_row",
    "reset",
    "status",
    "token_expiring",
    "token_revoked",
    "truncated",
    "unstable_order",
    "wrong_total",
]

_ALL: frozenset[str] = frozenset(get_args(Endpoint))
_SESSIONS = frozenset({"sessions"})
_LISTS = frozenset({"sessions", "users", "vehicles"})


@attrs.frozen
class FaultKindRules:
    """The options that a kind of fault takes, and the endpoints that it can affect."""

    endpoints: frozenset[str] = _ALL
    options: frozenset[str] = frozenset()
    required: str | None = None
    shapes_response: bool = False
    """Whether it changes the content of a good response; the other kinds replace or break it, one per request."""


FAULT_KINDS: Mapping[str, FaultKindRules] = {
    "clamped_limit": FaultKindRules(_SESSIONS, frozenset({"limit"}), required="limit", shapes_response=True),
    "drip": FaultKindRules(options=frozenset({"seconds", "chunk_bytes"})),
    "empty": FaultKindRules(),
    "empty_list": FaultKindRules(_LISTS, shapes_response=True),
    "hang": FaultKindRules(options=frozenset({"seconds"})),
    "malformed_json": FaultKindRules(),
    "malformed_row": FaultKindRules(_SESSIONS, frozenset({"field", "damage"}), shapes_response=True),
    "reset": FaultKindRules(options=frozenset({"after_bytes"})),
    "status": FaultKindRules(options=frozenset({"status", "headers", "body", "content_type"})),
    "token_expiring": FaultKindRules(
        frozenset({"token"}), frozenset({"seconds"}), required="seconds", shapes_response=True
    ),
    "token_revoked": FaultKindRules(_ALL - {"token"}),
    "truncated": FaultKindRules(options=frozenset({"after_bytes"})),
    "unstable_order": FaultKindRules(_SESSIONS, shapes_response=True),
    "wrong_total": FaultKindRules(_SESSIONS, frozenset({"delta"}), shapes_response=True),
}
_OPTIONS = frozenset().union(*(rules.options for rules in FAULT_KINDS.values()))
_BOUNDS: Mapping[str, tuple[int, int | None]] = {
    "times": (1, None),
    "status": (200, 599),
    "after_bytes": (0, None),
    "chunk_bytes": (1, None),
    "limit": (1, None),
}
_CHOICES = {"page": ("first", "later"), "damage": ("missing", "wrong_type")}


def _numbers(value: int | Iterable[int] | None) -> frozenset[int] | None:
    if value is None:
        return None
    return frozenset({value} if isinstance(value, int) else value)


def _vehicle(value: AnyVehicle | None) -> VehicleRef | uuid.UUID | None:
    return value if value is None or isinstance(value, VehicleRef) else vehicle_id_of(value)


@attrs.frozen(kw_only=True)
class Fault:
    """One kind of fault, and the requests that it affects: all that match, unless `rate` or `nth` is given.

    The documentation of `podero_async.testing` lists the kinds and their options.

    Raises:
        ValueError: If the kind, the endpoint or an option does not exist, or if they do not fit together.
    """

    kind: FaultKind
    rate: float | None = None
    """The share of the matching requests, 0 to 1; the simulator's seed determines which."""
    nth: frozenset[int] | None = attrs.field(default=None, converter=_numbers)
    """The numbers of the matching requests, counted from 1: one number, or several."""
    endpoint: Endpoint | None = None
    """Only requests to this endpoint; if None, to every endpoint that the kind can affect."""
    page: Literal["first", "later"] | None = None
    """Only pages at offset 0, or only the others."""
    vehicle: VehicleRef | uuid.UUID | None = attrs.field(default=None, converter=_vehicle)
    """Only requests about this vehicle: a `VehicleRef`, an `ElectricVehicle` or an id."""
    times: int | None = None
    """How often it happens at most."""

    status: int | None = None
    headers: Mapping[str, str] | None = None
    body: str | bytes | None = None
    content_type: str | None = None
    after_bytes: int | None = None
    seconds: float | None = None
    chunk_bytes: int | None = None
    field: str | None = None
    damage: Literal["missing", "wrong_type"] | None = None
    limit: int | None = None
    delta: int | Callable[[int], int] | None = None

    def __attrs_post_init__(self) -> None:
        rules = FAULT_KINDS.get(self.kind)
        if rules is None:
            raise ValueError(f"unknown kind of fault {self.kind!r}; the kinds are {', '.join(FAULT_KINDS)}")
        if self.endpoint is not None and self.endpoint not in rules.endpoints:
            raise ValueError(f"{self.kind} can affect {', '.join(sorted(rules.endpoints))}, not {self.endpoint!r}")
        for name, values in _CHOICES.items():
            if getattr(self, name) not in {None, *values}:
                raise ValueError(f"{name} is {' or '.join(values)}, not {getattr(self, name)!r}")
        foreign = sorted(name for name in _OPTIONS - rules.options if getattr(self, name) is not None)
        if foreign:
            raise ValueError(f"{self.kind} does not take {', '.join(foreign)}")
        if rules.required and getattr(self, rules.required) is None:
            raise ValueError(f"{self.kind} needs {rules.required}")
        self._check_numbers()

    def _check_numbers(self) -> None:
        if self.rate is not None and self.nth is not None:
            raise ValueError("rate and nth exclude each other")
        if self.rate is not None and not 0 <= self.rate <= 1:
            raise ValueError(f"rate is between 0 and 1, not {self.rate}")
        if self.nth is not None and min(self.nth, default=0) < 1:
            raise ValueError("nth is counted from 1")
        if self.seconds is not None:
            seconds("seconds", self.seconds)
        for name, (low, high) in _BOUNDS.items():
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), low, high)


@attrs.frozen(kw_only=True)
class RequestSummary:
    """The properties of a request that faults match."""

    endpoint: str
    is_first_page: bool
    vehicle: VehicleRef | None


@attrs.define
class ArmedFault:
    """A fault with its own counts and its own random numbers, so that other faults do not change its draws."""

    fault: Fault
    rng: Random
    _seen: int = 0
    _fired: int = 0

    def _matches(self, request: RequestSummary) -> bool:
        fault = self.fault
        return (
            request.endpoint in FAULT_KINDS[fault.kind].endpoints
            and fault.endpoint in {None, request.endpoint}
            and fault.vehicle in {None, request.vehicle, request.vehicle and request.vehicle.vehicle_id}
            and (fault.page is None or (fault.page == "first") == request.is_first_page)
        )

    def fires(self, request: RequestSummary) -> bool:
        fault = self.fault
        if not self._matches(request):
            return False
        self._seen += 1
        drawn = fault.rate is None or self.rng.random() < fault.rate
        if not drawn or (fault.nth is not None and self._seen not in fault.nth):
            return False
        if fault.times is not None and self._fired >= fault.times:
            return False
        self._fired += 1
        return True


@attrs.define
class FaultPlan:
    """The faults of one request: at most one that replaces or breaks the response, and any that shape its content."""

    breaking: Fault | None = None
    shaping: dict[str, ArmedFault] = attrs.field(factory=dict)


@attrs.define
class FaultScript:
    """All faults, in the order in which they were added; the first that breaks the response wins."""

    _seed: int
    _armed: list[ArmedFault] = attrs.field(factory=list)

    def add(self, fault: Fault) -> None:
        self._armed.append(ArmedFault(fault, Random(f"{self._seed}/fault/{len(self._armed)}")))

    def clear(self) -> None:
        self._armed.clear()

    def plan(self, request: RequestSummary) -> FaultPlan:
        plan = FaultPlan()
        for armed in self._armed:
            if not armed.fires(request):
                continue
            if FAULT_KINDS[armed.fault.kind].shapes_response:
                plan.shaping[armed.fault.kind] = armed
            elif plan.breaking is None:
                plan.breaking = armed.fault
        return plan
