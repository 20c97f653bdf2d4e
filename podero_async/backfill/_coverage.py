"""The rules of coverage: which days of a vehicle are known, which must be read, and which a read settles. No I/O.

A day is **missing** until a proven read of it. It is **settled** once it was read long enough after its end, and
**provisional** before that. What a run reads follows from these states and the clock alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple, Self

import attrs

__all__ = [
    "DayCounts",
    "Days",
    "KnownDays",
    "Need",
    "ProvenRead",
    "Span",
    "asks_current",
    "count_days",
    "final_day",
    "fold",
    "needs_of",
    "settle_to",
    "stale_limits",
    "unread_days",
]

Days = tuple[date, date]
"""The first and the last day, both inclusive."""

_DAY = timedelta(days=1)
_WEEK = 7
_OLD_FRESHNESS = 13
_MAX_GAP = 30
"""A gap of up to these days is read again, since that costs no request: most vehicles have less than a page of sessions."""


@attrs.frozen
class KnownDays:
    """The spans of a vehicle's days in a store by state; spans of different states may overlap."""

    settled: list[Days]
    fresh: list[Days]
    """Provisional days that were read a short time ago."""
    stale: list[Days]
    """Provisional days that were read longer ago; days that are overdue by over a week become stale after a week."""
    suspect: list[Days]
    """Days of stored sessions that a proven read did not return."""
    failed: list[Days] = attrs.field(factory=list)
    """Days of reads that failed or were not proven complete."""

    @property
    def first(self) -> date | None:
        """The first day that is not missing."""
        return min((start for start, _ in (*self.settled, *self.fresh, *self.stale)), default=None)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the spans of a text such as `s2026-01-01/2026-03-31 p2026-04-01/2026-04-30`; a letter is a state."""
        spans: dict[str, list[Days]] = {"s": [], "f": [], "p": [], "a": [], "m": []}
        for span in text.split():
            start, _, end = span[1:].partition("/")
            spans[span[0]].append((date.fromisoformat(start), date.fromisoformat(end)))
        return cls(spans["s"], spans["f"], spans["p"], spans["a"], spans["m"])


class Span(NamedTuple):  # a tuple, since a batch makes thousands of them
    """Days of a vehicle with one state."""

    from_date: date
    to_date: date
    is_settled: bool
    read_at: datetime
    """The time of the last read; of settled days, the earliest such time."""


class ProvenRead(NamedTuple):
    """A read of a vehicle's days that was proven complete. It has no days after the day of its time."""

    from_date: date
    to_date: date
    settle_to: date | None
    """The last day that is old enough for the read to settle it; None if the read settles none."""
    at: datetime
    is_empty: bool
    """Whether it returned no session."""


@attrs.frozen
class Need:
    """Days of a vehicle to read with one work item."""

    from_date: date
    to_date: date
    asks_current: bool
    """Whether to ask for the current session before the read, so that the read can settle days."""


@attrs.frozen
class DayCounts:
    """Numbers of days by state."""

    settled: int = 0
    provisional: int = 0
    missing: int = 0

    def times(self, vehicles: int) -> DayCounts:
        """Return the vehicle-days of several vehicles with the same days."""
        return DayCounts(self.settled * vehicles, self.provisional * vehicles, self.missing * vehicles)

    def __add__(self, other: DayCounts) -> DayCounts:
        pairs = zip(attrs.astuple(self), attrs.astuple(other), strict=True)
        return DayCounts(*(one + another for one, another in pairs))


def final_day(at: datetime, settle_days: int) -> date:
    """Return the last day that ended (UTC) at least `settle_days` before a time."""
    return (at.astimezone(UTC) - timedelta(days=settle_days + 1)).date()


def settle_to(final: date, plugged_in_at: datetime | None) -> date | None:
    """Return the last day that a read settles; None if it settles none.

    Args:
        final: The last day that is old enough.
        plugged_in_at: The plug-in of the current session before the read: the API lists the session once it is
            completed, under this day. None if there was no session.
    """
    if plugged_in_at is None:
        return final
    try:
        return min(final, plugged_in_at.astimezone(UTC).date() - timedelta(days=1))
    except OverflowError:  # a null time such as 0001-01-01T00:00:00+01:00
        return None


def asks_current(oldest_unsettled: date | None, final: date, today: date, group: int) -> bool:
    """Return whether a work item asks for the vehicle's current session.

    Days settle a week at a time, so that this costs a seventh of a request for each vehicle and night. A vehicle's
    group, from 0 to 6, is the day of the week on which it asks; it asks on any day if its days are overdue by a week.
    """
    if oldest_unsettled is None:
        return False
    overdue = (final - oldest_unsettled).days + 1
    return overdue >= _WEEK or (overdue >= 1 and (today.toordinal() + group) % _WEEK == 0)


def fold(known: Sequence[Span], reads: Sequence[ProvenRead], unsettled: Sequence[Days]) -> list[Span]:
    """Return the spans of a vehicle after proven reads, in order; adjoining days with the same state are one span.

    1. A read settles its days up to `settle_to`; its other days get the time of the read, and are provisional.
    2. A day that was settled stays settled when it is read again.
    3. Unsettled days are provisional in any case.
    """
    read_now = [span for read in reads for span in _spans_of(read, known)]
    if len(reads) == 1 and not (known or unsettled):  # most vehicles of a first backfill
        return read_now
    cuts = {day for span in (*known, *read_now) for day in (span.from_date, span.to_date + _DAY)}
    cuts |= {day for first, last in unsettled for day in (first, _shifted(last, 1))}
    folded: list[Span] = []
    for start, end in pairwise(sorted(cuts)):
        new = [span for span in read_now if span.from_date <= start <= span.to_date]
        old = [span for span in known if span.from_date <= start <= span.to_date]
        if not (new or old):
            continue
        is_settled = any(span.is_settled for span in (*new, *old))
        if is_settled and unsettled and any(first <= start <= last for first, last in unsettled):
            is_settled = False
        _append(folded, Span(start, end - _DAY, is_settled, max(span.read_at for span in new or old)))
    return folded


def _spans_of(read: ProvenRead, known: Sequence[Span]) -> Iterator[Span]:
    """Yield what a read alone says of its days.

    An empty list may be a fault of the server, and rows that were never stored cannot be found absent. So an empty read
    settles only days that an older read covers, made on an earlier date and late enough to settle them, too: at least as
    long after the day as this read is after `settle_to`.
    """
    if read.settle_to is None or read.settle_to < read.from_date:
        yield Span(read.from_date, read.to_date, False, read.at)
    elif read.is_empty:
        yield Span(read.from_date, read.to_date, False, read.at)
        age = read.at.date() - read.settle_to
        for span in known:
            read_on = span.read_at.date()
            start = max(span.from_date, read.from_date)
            end = min(span.to_date, read.to_date, read.settle_to, read_on - age)
            if not span.is_settled and read_on < read.at.date() and start <= end:
                yield Span(start, end, True, read.at)
    else:
        yield Span(read.from_date, min(read.to_date, read.settle_to), True, read.at)
        if read.settle_to < read.to_date:
            yield Span(read.settle_to + _DAY, read.to_date, False, read.at)


def _append(spans: list[Span], span: Span) -> None:
    """Append a span, or join it with the last one if this adjoins and says the same."""
    last = spans[-1] if spans else None
    if (
        last is not None
        and last.to_date + _DAY == span.from_date
        and last.is_settled == span.is_settled
        and (span.is_settled or last.read_at == span.read_at)
    ):
        spans[-1] = Span(last.from_date, span.to_date, span.is_settled, min(last.read_at, span.read_at))
    else:
        spans.append(span)


def stale_limits(started: datetime, fresh_for: timedelta, final: date) -> tuple[datetime, datetime, date]:
    """Return the time up to which a read is stale, for days in general and for old days; and the last old day.

    Old days are overdue by over a week. A session may never show an end, so that its day stays provisional: with a
    `fresh_for` of 12 hours, such a day is read once a week.
    """
    return started - fresh_for, started - _OLD_FRESHNESS * fresh_for, final - timedelta(days=_WEEK)


def needs_of(known: KnownDays, window: Days, *, today: date, final: date, group: int) -> list[Need]:
    """Return the days of a vehicle that a run over a window reads; the oldest come first.

    1. The days of the window that are missing, none after today.
    2. The provisional days up to the end of the window that were not read a short time ago, also before the window.
    3. The days of reads that failed, up to the end of the window: all of them, so that one read ends the failure.
    4. The days of sessions that a proven read did not return, and their neighbors.
    Days with a small gap between them are one need.
    """
    last = min(window[1], today)
    asked = [(window[0], last), *((start, min(end, last)) for start, end in known.stale)]
    wanted = _minus(_joined(asked), _joined([*known.settled, *known.fresh]))
    wanted += [(start, min(end, last)) for start, end in known.failed]
    wanted += [(_shifted(start, -1), min(_shifted(end, 1), today)) for start, end in known.suspect]
    settled = _joined(known.settled)
    needs = []
    for start, end in _joined(wanted, gap=_MAX_GAP):
        unsettled = _minus([(start, end)], settled)
        oldest = unsettled[0][0] if unsettled else None
        needs.append(Need(start, end, asks_current(oldest, final, today, group)))
    return needs


def count_days(known: KnownDays, window: Days) -> DayCounts:
    """Count the days of a window by state; a day that is settled in one span and provisional in another is settled."""
    if window[0] > window[1]:
        return DayCounts()
    covered = _joined([*known.settled, *known.fresh, *known.stale])
    unsettled = _length(_minus([window], _joined(known.settled)))
    missing = _length(_minus([window], covered))
    whole = _length([window])
    return DayCounts(whole - unsettled, unsettled - missing, missing)


def unread_days(known: KnownDays, window: Days) -> int:
    """Count the days of a window that are missing, and that no failure explains."""
    explained = _joined([*known.settled, *known.fresh, *known.stale, *known.failed])
    return _length(_minus([window], explained)) if window[0] <= window[1] else 0


def _joined(spans: Iterable[Days], gap: int = 0) -> list[Days]:
    """Join spans that overlap, or have at most `gap` days between them; drop empty ones."""
    joined: list[Days] = []
    for start, end in sorted(spans):
        if start > end:
            continue
        if joined and start.toordinal() <= joined[-1][1].toordinal() + 1 + gap:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _minus(spans: list[Days], others: list[Days]) -> list[Days]:
    """Return the days of spans that are in no other span; both lists are joined."""
    left: list[Days] = []
    for start, end in spans:
        begin: date | None = start
        for other_start, other_end in others:
            if other_end < start or other_start > end:
                continue
            if begin is not None and begin < other_start:
                left.append((begin, other_start - _DAY))
            begin = other_end + _DAY if other_end < end else None
        if begin is not None:
            left.append((begin, end))
    return left


def _shifted(day: date, days: int) -> date:
    return date.fromordinal(min(max(day.toordinal() + days, 1), date.max.toordinal()))


def _length(spans: list[Days]) -> int:
    return sum((end - start).days + 1 for start, end in spans)
