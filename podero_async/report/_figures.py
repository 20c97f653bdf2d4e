"""The figures of a report: the values that a store's queries fill."""

from collections.abc import Callable
from datetime import date, datetime
from typing import Literal, TypeAlias

import attrs

from podero_async._json import JsonModel
from podero_async._summary import SessionTotals
from podero_async.backfill import DayCounts
from podero_async.errors import ConfigurationError

__all__ = [
    "By",
    "CoveredDays",
    "GroupSavings",
    "GroupTrouble",
    "HoursPluggedIn",
    "MonthTotals",
    "Report",
    "WeekCount",
    "page_maker",
]

By: TypeAlias = Literal["customer", "vehicle", "price-zone"]


@attrs.frozen(kw_only=True)
class MonthTotals(JsonModel):
    """The sums of a month's sessions."""

    month: date
    """Its first day."""
    totals: SessionTotals


@attrs.frozen(kw_only=True)
class WeekCount(JsonModel):
    """The sessions of a week."""

    week: date
    """Its Monday."""
    sessions: int


@attrs.frozen(kw_only=True)
class HoursPluggedIn(JsonModel):
    """The sessions that lasted for a number of hours, from plug-in to unplug."""

    hours: int
    """Whole hours; 24 stands for 24 hours or more."""
    overnight: int
    """Sessions that were still plugged in at the midnight after the plug-in."""
    same_day: int
    """The other sessions."""


@attrs.frozen(kw_only=True)
class GroupSavings(JsonModel):
    """The sums of a customer, a vehicle or a price zone."""

    key: str | None
    """The id of the user or of the vehicle, or the price zone; None for vehicles without a price zone."""
    name: str | None
    """The external id of the user, or the vehicle's manufacturer and model; None if unknown."""
    totals: SessionTotals


@attrs.frozen(kw_only=True)
class GroupTrouble(JsonModel):
    """The troubles of a customer, a vehicle or a price zone with the reads of its sessions."""

    key: str | None
    """As in `GroupSavings`; the id of the user for a vehicle list that failed."""
    name: str | None
    failed: int
    """Reads that failed; a vehicle list that failed counts as one."""
    unproven: int
    """Reads that were not proven complete."""
    rejected: int
    """Sessions that could not be read."""


@attrs.frozen(kw_only=True)
class CoveredDays(JsonModel):
    """A span of UTC days, and the number of vehicles by the state of each of them."""

    from_date: date
    to_date: date
    settled: int
    provisional: int
    missing: int

    @property
    def days(self) -> DayCounts:
        """The vehicle-days of the span by state."""
        return DayCounts(self.settled, self.provisional, self.missing).times((self.to_date - self.from_date).days + 1)


@attrs.frozen(kw_only=True)
class Report(JsonModel):
    """The figures of a fleet. Sessions that the server has withdrawn are left out; hidden ones in the store count."""

    from_date: date | None
    """First day of plug-ins, in the time zone; None if the report has no days."""
    to_date: date | None
    """Last day of plug-ins."""
    time_zone: str
    by: By
    read_at: datetime | None
    """The time of the newest read in the store; None if nothing was read."""
    totals: SessionTotals
    expected_savings_of_known_eur: float | None
    """Savings that the server planned for the sessions whose actual savings are known, in euros."""
    vehicles: int
    """Vehicles with sessions."""
    customers: int
    """Users with sessions."""
    at_home: int
    """Sessions at home."""
    hidden: int
    """Sessions that the server hides, as it does with very short ones."""
    months: tuple[MonthTotals, ...]
    """The months with sessions, in order."""
    weeks: tuple[WeekCount, ...]
    """The weeks with sessions, in order."""
    arrivals: tuple[tuple[int, ...], ...]
    """Sessions by weekday, from Monday on, and hour of the plug-in."""
    plugged_in: tuple[HoursPluggedIn, ...]
    """All whole hours from 0 to 24."""
    without_end: int
    """Sessions without a time of unplugging."""
    outcomes: dict[str, int]
    """Sessions by outcome, the most frequent first."""
    savings: tuple[GroupSavings, ...]
    """At most ten groups with savings, the largest first."""
    troubles: tuple[GroupTrouble, ...]
    """At most ten groups with troubles, the most first."""
    troubled: int
    """Groups with troubles."""
    coverage: tuple[CoveredDays, ...]
    """The days of the listed vehicles, in order."""

    @property
    def days(self) -> DayCounts:
        """The vehicle-days by state, as `SessionStore.days` counts them."""
        return sum((each.days for each in self.coverage), DayCounts())

    def to_html(self) -> str:
        """Return a page in one file, without scripts, which loads nothing. It takes about 0.1 s, so call it in a thread.

        Raises:
            ConfigurationError: The extra `report` is not installed.
        """
        return page_maker()(self)


def page_maker() -> Callable[[Report], str]:
    """Return the function that makes a page.

    Raises:
        ConfigurationError: The extra `report` is not installed.
    """
    try:
        from podero_async.report._page import page_of  # noqa: PLC0415 - jinja2 is an extra
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"a page needs {error.name}: install podero_async[report]") from error
    return page_of
