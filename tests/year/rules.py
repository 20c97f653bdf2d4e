"""The most that a run may request by the rules of coverage: a plain second implementation, day by day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from math import ceil

import attrs

from podero_async import VehicleRef
from tests.year.invariants import Days, Snapshot
from tests.year.recorder import Recorder
from tests.year.world import DAY

State = Callable[[date], str]

_FULL_PAGE = 200
_NEW_ROWS = 150  # the least number of new rows on a page; the others overlap with the previous page


@attrs.frozen
class Call:
    """The settings of one call of `backfill`."""

    from_date: date
    to_date: date
    include_hidden: bool
    settle_days: int
    fresh_for: timedelta
    started: datetime
    """By the local clock."""

    @property
    def today(self) -> date:
        return self.started.astimezone(UTC).date()

    @property
    def last(self) -> date:
        return min(self.to_date, self.today)


def most_requests(
    call: Call,
    before: Snapshot,
    now: Snapshot,
    recorder: Recorder,
    pairs: Iterable[VehicleRef],
    users: int,
    *,
    is_torn: bool,
) -> Counter[str]:
    """Return how many requests of each kind a run takes at most, apart from repeated ones.

    Args:
        call: The run.
        before: The store before the run.
        now: The store after it.
        recorder: The reads that the run has committed.
        pairs: The vehicles of the run.
        users: Users with vehicles, if the run discovers its fleet.
        is_torn: Whether the responses list vehicles of different moments. Then the fleet may be listed twice.
    """
    pairs = set(pairs)
    # An array of ten users may be a page of a server that pages by ten, so its reader asks beyond its end, at most twice.
    listings = 1 + is_torn
    most = Counter({"users": 3 * listings, "vehicles": users * listings} if users else {})
    # If a user has a vehicle no longer, all its days that were read under any user are read again under the other one.
    left = {pair.vehicle_id for pair, is_gone in now.gone.items() if is_gone and not before.gone.get(pair)}
    for pair in pairs:
        has_moved = pair.vehicle_id in left
        owned = [other for other, _ in before.days if other.vehicle_id == pair.vehicle_id] if has_moved else [pair]
        known = [days for each in owned for days in before.days_of(each, include_hidden=call.include_hidden)]
        state = partial(_state, call, known, may_settle=not has_moved)
        for first, last in _needs(call, before, pair, known, state):
            most["windows"] += 1
            most["current sessions"] += _asks_current(call, pair, first, last, state)
    vehicles = recorder.doubted | {row.vehicle_id for row in before.rows.values() if row.absent_at is not None}
    doubted = {pair for pair in pairs if pair.vehicle_id in vehicles}
    owners = {(row.user_id, row.vehicle_id) for row in before.rows.values() if row.vehicle_id in vehicles}
    most["confirming reads"] = len(doubted) + len(owners)
    for read in recorder.reads:
        if len(read.sessions) >= _FULL_PAGE:
            most["later pages"] += ceil(len(read.sessions) / _NEW_ROWS) + 1
    return most


def _state(call: Call, known: list[Days], day: date, *, may_settle: bool) -> str:
    spans = [days[day] for days in known if day in days]
    if may_settle and any(span.is_settled for span in spans):
        return "settled"
    if may_settle and any(timedelta() <= call.started - span.read_at <= call.fresh_for for span in spans):
        return "fresh"
    return "stale" if spans else "missing"


def _needs(call: Call, before: Snapshot, pair: VehicleRef, known: list[Days], state: State) -> list[tuple[date, date]]:
    """Return the spans of days to read."""
    days = {call.from_date + number * DAY for number in range((call.last - call.from_date).days + 1)}
    for each in known:
        days |= {day for day in each if day <= call.last}
    needed = {day for day in days if state(day) in {"stale", "missing"}}
    for first, last in before.failed.get(pair, ()):
        needed |= {first + number * DAY for number in range((min(last, call.last) - first).days + 1)}
    for row in before.rows.values():
        if row.absent_at is not None and row.pair == pair:
            needed |= {day for day in (row.day - DAY, row.day, row.day + DAY) if day <= call.today}
    spans: list[tuple[date, date]] = []
    for day in sorted(needed):
        if spans and spans[-1][1] + DAY == day:
            spans[-1] = (spans[-1][0], day)
        else:
            spans.append((day, day))
    return spans


def _asks_current(call: Call, pair: VehicleRef, first: date, last: date, state: State) -> bool:
    """Return whether a read of a span may ask for the current session: a week of days, or once a week."""
    days = [first + number * DAY for number in range((last - first).days + 1)]
    unsettled = [day for day in days if state(day) != "settled"]
    if not unsettled:
        return False
    final = (call.started.astimezone(UTC) - timedelta(days=call.settle_days + 1)).date()
    overdue = (final - unsettled[0]).days + 1
    is_turn = (call.today.toordinal() + int(str(pair.vehicle_id)[-4:], 16)) % 7 == 0
    return overdue >= 7 or (overdue >= 1 and is_turn)
