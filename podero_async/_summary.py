"""Summaries: the sums of sessions by month, day, outcome, vehicle or customer."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import UTC, date, datetime, tzinfo
from typing import Any, Literal, TypeAlias, get_args

import attrs

from podero_async import _validation as arguments
from podero_async._json import JsonModel
from podero_async._outcomes import Item, OnFailure, sessions_of
from podero_async.models import ChargingSession, VehicleRef

__all__ = ["SessionTotals", "summarize"]

Grouping: TypeAlias = Literal[
    "month", "day", "session_outcome", "vehicle_id", "user_id", "external_user_id", "manufacturer", "model"
]
_Key: TypeAlias = Callable[[VehicleRef | None, ChargingSession], Hashable]

_SUMMED = ("energy_charged_kwh", "actual_cost_eur", "expected_savings_eur", "actual_savings_eur")


@attrs.frozen(kw_only=True)
class SessionTotals(JsonModel):
    """The sums of a group of sessions. A sum skips nulls, and is None if all values are null."""

    sessions: int = 0
    """Number of sessions."""
    energy_charged_kwh: float | None = None
    """Energy charged, in kWh."""
    actual_cost_eur: float | None = None
    """Cost of the energy, in euros."""
    expected_savings_eur: float | None = None
    """Savings that the server planned, compared with charging at once, in euros."""
    actual_savings_eur: float | None = None
    """Savings achieved, compared with charging at once, in euros."""
    sessions_without_energy: int = 0
    """Number of sessions whose energy is null."""
    sessions_without_cost: int = 0
    """Number of sessions whose cost is null."""
    sessions_without_expected_savings: int = 0
    """Number of sessions whose expected savings are null."""
    sessions_without_savings: int = 0
    """Number of sessions whose actual savings are null, as they are until the server has computed them."""


def summarize(
    items: Iterable[Item],
    by: Grouping | Sequence[Grouping] = (),
    *,
    time_zone: tzinfo | str = UTC,
    on_failure: OnFailure | None = None,
) -> dict[Any, SessionTotals]:
    """Sum sessions by group, in order of first appearance; memory grows with the groups, not with the sessions.

    ```python
    summarize(outcomes, "month", time_zone="Europe/Vienna")[date(2026, 10, 1)].actual_savings_eur
    ```

    Args:
        items: Sessions, or outcomes of a fleet fetch. Each session counts as often as it is given. Rejected rows and the
            verdicts of lists are left out: look at `rejected` and `completeness` where a sum must be complete.
        by: The names to group by: the `month` or `day` of the plug-in, the `session_outcome`, or a field of the vehicle.
            The key of a month is its first day. Several names make tuples of keys; without a name, all sessions are the
            group `()`. A field of the vehicle is None for a session that is given without an outcome.
        time_zone: The time zone of the months and days: a `tzinfo` or an IANA name (`Europe/Vienna`).
        on_failure: Called with each `VehicleFailure`. If none is given, its error is raised.

    Raises:
        PoderoError: The error of a failure, if `on_failure` was not given.
        ValueError: A name or the time zone is unknown, or an argument is of the wrong kind.
    """
    arguments.instance("by", by, Sequence, "a name or a sequence of names")
    arguments.instance("items", items, Iterable, "an iterable of sessions or outcomes")
    on_failure = arguments.callback("on_failure", on_failure)
    names = (by,) if isinstance(by, str) else tuple(by)
    zone = _zone(time_zone)
    keys = [_key(name, zone) for name in names]
    groups: dict[Hashable, _Group] = {} if keys else {(): _Group()}
    for item in items:
        vehicle, sessions = sessions_of(item, on_failure)
        for session in sessions:
            parts = tuple(key(vehicle, session) for key in keys)
            group = groups.get(parts)
            if group is None:
                group = groups[parts] = _Group()
            group.add(session)
    is_single = isinstance(by, str)
    return {parts[0] if is_single else parts: group.totals() for parts, group in groups.items()}  # type: ignore[index]


class _Sum:
    """A compensated sum (Neumaier), in which small values beside large ones are not lost, and the number of its nulls."""

    __slots__ = ("is_known", "nulls", "rest", "total")

    def __init__(self) -> None:
        self.total = self.rest = 0.0
        self.nulls = 0
        self.is_known = False

    def add(self, value: float | None) -> None:
        if value is None:
            self.nulls += 1
            return
        total = self.total + value
        larger, smaller = (self.total, value) if abs(self.total) >= abs(value) else (value, self.total)
        self.rest += (larger - total) + smaller
        self.total = total
        self.is_known = True

    def value(self) -> float | None:
        if not self.is_known:
            return None
        return self.total + self.rest if math.isfinite(self.total) else self.total


class _Group:
    __slots__ = ("_sessions", "_sums")

    def __init__(self) -> None:
        self._sessions = 0
        self._sums = {name: _Sum() for name in _SUMMED}

    def add(self, session: ChargingSession) -> None:
        self._sessions += 1
        for name, total in self._sums.items():
            total.add(getattr(session, name))

    def totals(self) -> SessionTotals:
        energy, cost, expected, savings = (total.nulls for total in self._sums.values())
        return SessionTotals(
            sessions=self._sessions,
            **{name: total.value() for name, total in self._sums.items()},
            sessions_without_energy=energy,
            sessions_without_cost=cost,
            sessions_without_expected_savings=expected,
            sessions_without_savings=savings,
        )


def _key(name: str, zone: tzinfo) -> _Key:
    if name == "month":
        return lambda _, session: _day(session.plug_in_time, zone).replace(day=1)
    if name == "day":
        return lambda _, session: _day(session.plug_in_time, zone)
    if name == "session_outcome":
        return lambda _, session: session.session_outcome
    if name in {"vehicle_id", "user_id", "external_user_id", "manufacturer", "model"}:
        return lambda vehicle, _: getattr(vehicle, name, None)
    raise ValueError(f"cannot summarize by {name!r}; use one of {', '.join(get_args(Grouping))}")


def _day(moment: datetime, zone: tzinfo) -> date:
    try:
        return moment.astimezone(zone).date()
    except OverflowError:  # in this zone, the year is 0 or 10,000
        return moment.date()


def _zone(time_zone: tzinfo | str) -> tzinfo:
    if isinstance(time_zone, tzinfo):
        return time_zone
    arguments.instance("time_zone", time_zone, str, "a tzinfo or an IANA name")
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 - only a named zone needs it

    try:
        return ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"unknown time zone {time_zone!r}; if all are unknown, install tzdata") from error
