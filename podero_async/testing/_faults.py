"""The script of what goes wrong: which fault, at which requests. Decides only; playing it is the server's business."""

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any, Literal, get_args

import attrs

from podero_async.models import VehicleRef

Endpoint = Literal["sessions", "current", "users", "user", "vehicles", "token"]
FaultKind = Literal[
    "clamped_limit",
    "drip",
    "empty",
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


@attrs.frozen
class _Rules:
    """What a kind of fault can be told, and where it can happen."""

    endpoints: frozenset[str] = _ALL
    details: frozenset[str] = frozenset()
    required: str | None = None
    shapes_answer: bool = False
    """It changes what a good answer says; the others break the exchange, so that one request can have only one."""


RULES: Mapping[str, _Rules] = {
    "clamped_limit": _Rules(_SESSIONS, frozenset({"limit"}), required="limit", shapes_answer=True),
    "drip": _Rules(details=frozenset({"seconds", "chunk_bytes"})),
    "empty": _Rules(),
    "hang": _Rules(details=frozenset({"seconds"})),
    "malformed_json": _Rules(),
    "malformed_row": _Rules(_SESSIONS, frozenset({"field", "damage"}), shapes_answer=True),
    "reset": _Rules(details=frozenset({"after_bytes"})),
    "status": _Rules(details=frozenset({"status", "headers", "body", "content_type"})),
    "token_expiring": _Rules(frozenset({"token"}), frozenset({"seconds"}), required="seconds", shapes_answer=True),
    "token_revoked": _Rules(_ALL - {"token"}),
    "truncated": _Rules(details=frozenset({"after_bytes"})),
    "unstable_order": _Rules(_SESSIONS, shapes_answer=True),
    "wrong_total": _Rules(_SESSIONS, frozenset({"delta"}), shapes_answer=True),
}
_DETAILS = frozenset().union(*(rules.details for rules in RULES.values()))


def _numbers(value: int | Iterable[int] | None) -> frozenset[int] | None:
    if value is None:
        return None
    return frozenset({value} if isinstance(value, int) else value)


def _one_of(*values: str) -> "Callable[[object, attrs.Attribute[Any], object], None]":
    def check(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        if value is not None and value not in values:
            raise ValueError(f"{attribute.name} is {' or '.join(values)}, not {value!r}")

    return check


@attrs.frozen(kw_only=True)
class Fault:
    """One thing that goes wrong, and when. Without `rate` and `nth` it goes wrong every time.

    The kinds, and the details that each may be given:

    - `status` (`status`=503, `headers`, `body`, `content_type`): this answer instead of the good one.
    - `reset` (`after_bytes`): a TCP RST before any answer, or after so many bytes of the body.
    - `truncated` (`after_bytes`, default: half): a body shorter than its Content-Length, then the end of the connection.
    - `hang` (`seconds`, default: for good): no answer for so long, and then the good one.
    - `drip` (`seconds`=0.01, `chunk_bytes`=1024): the body in chunks, with a wait before each.
    - `malformed_row` (`field`, `damage`="missing" or "wrong_type"; default: drawn): one row of the page is damaged.
    - `malformed_json`: the body ends in the middle of its JSON, as if it were whole.
    - `empty`: status 200 and an empty body.
    - `token_revoked`: status 401, and the request's token is dead from now on.
    - `token_expiring` (`seconds`): the token that is issued lives only so long.
    - `clamped_limit` (`limit`): no page has more rows than that, whatever was asked for.
    - `unstable_order`: the list has another order at each request.
    - `wrong_total` (`delta`=1, or a function of the true total): the page's `total` lies.

    Raises:
        ValueError: The kind, the endpoint or a detail does not exist or does not fit the others.
    """

    kind: FaultKind
    rate: float | None = None
    """The share of the matching requests, 0 to 1, drawn by the simulator's seed."""
    nth: frozenset[int] | None = attrs.field(default=None, converter=_numbers)
    """Which of the matching requests, counted from 1; one number, or several."""
    endpoint: Endpoint | None = None
    """Only requests to this endpoint; None: to all where the kind can happen."""
    page: Literal["first", "later"] | None = attrs.field(default=None, validator=_one_of("first", "later"))
    """Only pages at offset 0, or only those after it."""
    vehicle: VehicleRef | None = None
    """Only requests about this vehicle."""
    times: int | None = None
    """At most so often."""

    status: int | None = None
    headers: Mapping[str, str] | None = None
    body: str | bytes | None = None
    content_type: str | None = None
    after_bytes: int | None = None
    seconds: float | None = None
    chunk_bytes: int | None = None
    field: str | None = None
    damage: Literal["missing", "wrong_type"] | None = attrs.field(
        default=None, validator=_one_of("missing", "wrong_type")
    )
    limit: int | None = None
    delta: int | Callable[[int], int] | None = None

    def __attrs_post_init__(self) -> None:
        rules = RULES.get(self.kind)
        if rules is None:
            raise ValueError(f"unknown kind of fault {self.kind!r}; there are {', '.join(RULES)}")
        if self.endpoint is not None and self.endpoint not in rules.endpoints:
            raise ValueError(
                f"{self.kind} can happen at {', '.join(sorted(rules.endpoints))}, not at {self.endpoint!r}"
            )
        foreign = sorted(name for name in _DETAILS - rules.details if getattr(self, name) is not None)
        if foreign:
            raise ValueError(f"{self.kind} does not take {', '.join(foreign)}")
        if rules.required and getattr(self, rules.required) is None:
            raise ValueError(f"{self.kind} needs {rules.required}")
        if self.rate is not None and self.nth is not None:
            raise ValueError("a fault happens at a rate or at the nth requests, not both")
        if self.rate is not None and not 0 <= self.rate <= 1:
            raise ValueError(f"a rate is between 0 and 1, not {self.rate}")
        if self.nth is not None and min(self.nth, default=0) < 1:
            raise ValueError("requests are counted from 1")


@attrs.frozen(kw_only=True)
class Call:
    """What the script needs to know of a request."""

    endpoint: str
    is_first_page: bool
    vehicle: VehicleRef | None


@attrs.define
class ArmedFault:
    """A fault of the script with its own counts and its own random numbers: no other fault changes its draw."""

    fault: Fault
    rng: Random
    _seen: int = 0
    _fired: int = 0

    def _matches(self, call: Call) -> bool:
        fault = self.fault
        return (
            call.endpoint in RULES[fault.kind].endpoints
            and fault.endpoint in {None, call.endpoint}
            and fault.vehicle in {None, call.vehicle}
            and (fault.page is None or (fault.page == "first") == call.is_first_page)
        )

    def fires(self, call: Call) -> bool:
        fault = self.fault
        if not self._matches(call):
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
class Plan:
    """What goes wrong with one request: at most one break of the exchange, and any shapes of its answer."""

    breaking: Fault | None = None
    shaping: dict[str, ArmedFault] = attrs.field(factory=dict)


@attrs.define
class FaultScript:
    """All faults in their order; the first that breaks the exchange wins."""

    _seed: int
    _armed: list[ArmedFault] = attrs.field(factory=list)

    def add(self, fault: Fault) -> None:
        self._armed.append(ArmedFault(fault, Random(f"{self._seed}/fault/{len(self._armed)}")))

    def clear(self) -> None:
        self._armed.clear()

    def plan(self, call: Call) -> Plan:
        plan = Plan()
        for armed in self._armed:
            shapes = RULES[armed.fault.kind].shapes_answer
            if armed.fires(call):
                if shapes:
                    plan.shaping[armed.fault.kind] = armed
                elif plan.breaking is None:
                    plan.breaking = armed.fault
        return plan
