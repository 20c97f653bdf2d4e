"""Reports with odd figures: nothing at all, one day, ten years, huge and negative sums, and names of every kind."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import attrs

from podero_async import SessionTotals
from podero_async.report import (
    CoveredDays,
    GroupSavings,
    GroupTrouble,
    HoursPluggedIn,
    MonthTotals,
    Report,
    WeekCount,
)

__all__ = ["NAMES", "empty_report", "one_day", "ten_years"]

NAMES = (
    "<script>alert(1)</script>",
    "\"' onload=alert(1) x='",
    "{{ 7 * 7 }} {% raw %}",
    "عميل من مدينة بعيدة جدا 123",
    "לקוח \u202e 456",
    "W" * 120,
    "Donaudampfschifffahrtsgesellschaft und Söhne Elektromobilitätsverwaltung",
    "客户一百二十三号电动汽车车队管理有限公司",
    "🚗🔌" * 20,
    " ",
)


def empty_report() -> Report:
    """Return the report of a store without sessions."""
    return Report(
        from_date=None,
        to_date=None,
        time_zone="UTC",
        by="customer",
        read_at=None,
        totals=SessionTotals(),
        expected_savings_of_known_eur=None,
        vehicles=0,
        customers=0,
        at_home=0,
        hidden=0,
        months=(),
        weeks=(),
        arrivals=((0,) * 24,) * 7,
        plugged_in=tuple(HoursPluggedIn(hours=hours, overnight=0, same_day=0) for hours in range(25)),
        without_end=0,
        outcomes={},
        savings=(),
        troubles=(),
        troubled=0,
        coverage=(),
    )


def one_day() -> Report:
    """Return the report of one session, of which only the time is known."""
    day = date(2026, 3, 29)
    totals = SessionTotals(
        sessions=1,
        sessions_without_energy=1,
        sessions_without_cost=1,
        sessions_without_expected_savings=1,
        sessions_without_savings=1,
    )
    return attrs.evolve(
        empty_report(),
        from_date=day,
        to_date=day,
        totals=totals,
        vehicles=1,
        customers=1,
        months=(MonthTotals(month=date(2026, 3, 1), totals=totals),),
        weeks=(WeekCount(week=date(2026, 3, 23), sessions=1),),
        arrivals=((0,) * 24,) * 6 + ((0, 1, *(0,) * 22),),
        without_end=1,
        outcomes={"a_reason_of_next_year": 1},
        coverage=(CoveredDays(from_date=day, to_date=day, settled=0, provisional=1, missing=0),),
    )


def ten_years() -> Report:
    """Return a report of 120 months with huge, negative and unknown sums, and names of every kind."""
    first, last = date(2016, 7, 1), date(2026, 6, 30)
    months = [date(2016 + number // 12, 1 + number % 12, 1) for number in range(6, 126)]
    weeks = [first + timedelta(days=3 + 7 * number) for number in range(521)]
    sums = [
        SessionTotals(
            sessions=10**6 * number,
            energy_charged_kwh=None if number % 17 == 0 else 1e10 * number,
            actual_cost_eur=1e9 * number,
            expected_savings_eur=2e8 * number,
            actual_savings_eur=1e8 * (number - 40),
        )
        for number in range(len(months))
    ]
    totals = SessionTotals(
        sessions=7_140_000_000,
        energy_charged_kwh=6.7e13,
        actual_cost_eur=7.14e12,
        expected_savings_eur=1.4e12,
        actual_savings_eur=-2.34e11,
        sessions_without_energy=28_000_000,
    )
    savings = [
        GroupSavings(key=str(number), name=name, totals=attrs.evolve(totals, actual_savings_eur=10.0 ** (9 - number)))
        for number, name in enumerate(NAMES)
    ]
    troubles = [
        GroupTrouble(key=str(number), name=name, failed=10**number, unproven=number, rejected=0)
        for number, name in enumerate(NAMES)
    ]
    spans = [
        CoveredDays(
            from_date=first + timedelta(days=number),
            to_date=min(last, first + timedelta(days=number + 6)),
            settled=1_000_000 - number,
            provisional=number // 2,
            missing=number - number // 2,
        )
        for number in range(0, (last - first).days + 1, 7)
    ]
    return attrs.evolve(
        empty_report(),
        from_date=first,
        to_date=last,
        time_zone="America/Argentina/ComodRivadavia",
        read_at=datetime(2026, 7, 1, tzinfo=UTC),
        totals=totals,
        expected_savings_of_known_eur=1.4e12,
        vehicles=1_000_000,
        customers=990_000,
        at_home=7_139_999_999,
        hidden=12,
        months=tuple(MonthTotals(month=month, totals=of) for month, of in zip(months, sums, strict=True)),
        weeks=tuple(WeekCount(week=week, sessions=number * 50_000) for number, week in enumerate(weeks)),
        arrivals=tuple(tuple(hour**5 * (weekday + 1) for hour in range(24)) for weekday in range(7)),
        plugged_in=tuple(
            HoursPluggedIn(hours=hours, overnight=10**7 * hours, same_day=10**7 * (24 - hours)) for hours in range(25)
        ),
        outcomes={name: 10 ** (9 - number) for number, name in enumerate(NAMES)},
        savings=tuple(savings),
        troubles=tuple(troubles),
        troubled=12_345,
        coverage=tuple(spans),
    )
