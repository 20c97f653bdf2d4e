"""The committed reads of all runs, as a model in plain dicts; the invariants compare it with the store."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import attrs

from podero_async import Completeness, VehicleRef
from podero_async._fleet.vehicle import FetchedSessions
from podero_async._fleet.worker_pool import Fetched
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store import SessionStore
from podero_async.models import ChargingSession, VehicleFailure
from podero_async.testing import PageRequest
from podero_async.testing._session_list import parse_time
from tests.year.weather import CLEAR, Weather
from tests.year.world import World

Pair = VehicleRef
CONTENT = ("plug_in_time", "unplug_time", "energy_charged_kwh", "actual_savings_eur", "session_outcome", "is_hidden")
Content = tuple[Any, ...]


def content_of(session: ChargingSession) -> Content:
    return tuple(
        str(getattr(session, name)) if name == "session_outcome" else getattr(session, name) for name in CONTENT
    )


@attrs.frozen
class Shown:
    """The true sessions of a vehicle when the API made a page of its list."""

    at: datetime
    ids: frozenset[str]
    open_day: date | None
    """The plug-in day of the current session; None if there was none."""
    is_blank: bool = False
    """Whether the list was empty by a fault."""


@attrs.frozen
class Read:
    """A read of a window, as the client returned it."""

    number: int
    run: int
    pair: Pair
    first: date
    last: date
    include_hidden: bool
    is_proven: bool
    is_confirming: bool
    sessions: dict[str, Content]
    rejected: frozenset[str | None]
    """Ids of rows that could not be read; None if the id could not be read either."""
    rejected_days: frozenset[date | None]
    shown: Shown
    """When the read began."""
    at: datetime
    """The time that the store was given: the earlier of the local and the server's time."""

    def covers(self, day: date) -> bool:
        return self.first <= day <= self.last

    def shows_open(self, day: date) -> bool:
        """Return whether the read has a session of the day in progress, or a rejected row that may be of the day."""
        if not self.rejected_days.isdisjoint({day, None}):
            return True
        return any(content[0].date() == day and content[4] == "in_progress" for content in self.sessions.values())


@attrs.define
class Known:
    """A session that committed reads have shown."""

    candidates: list[tuple[Pair, Content]]
    """As the newest read showed it; several if reads of one transaction differ."""
    batch: int
    run: int
    """The transaction and the run that showed it last."""
    users: set[Any]
    """The users under which it was ever shown."""
    absences: list[Read] = attrs.field(factory=list)
    """The proven reads since then that covered its day and did not return it."""
    excused: int = 0
    """The number of absences before a read with an unreadable row, which may have been this session."""

    @property
    def vehicle_ids(self) -> set[Any]:
        return {pair.vehicle_id for pair, _ in self.candidates}

    def is_on(self, read: Read) -> bool:
        return any(
            pair.vehicle_id == read.pair.vehicle_id
            and read.covers(content[0].date())
            and (read.include_hidden or not content[5])
            for pair, content in self.candidates
        )


@attrs.define(eq=False)
class Recorder:
    """Watches the reads of one store. It is frozen when the process that writes the store is killed."""

    world: World
    weather: Weather = CLEAR
    run: int = 0
    is_frozen: bool = False
    known: dict[str, Known] = attrs.field(factory=dict)
    last_proven: dict[tuple[Pair, bool], dict[date, Read]] = attrs.field(factory=lambda: defaultdict(dict))
    proven_reads: dict[Pair, Counter[date]] = attrs.field(factory=lambda: defaultdict(Counter))
    """The number of proven reads of each day."""
    reads: list[Read] = attrs.field(factory=list)
    """The committed reads of the current run."""
    doubted: set[UUID] = attrs.field(factory=set)
    """The vehicles of which a proven read of the current run did not return a known session."""
    verdicts: Counter[str] = attrs.field(factory=Counter)
    on_commit: Callable[[], Awaitable[None]] | None = None
    _ids: dict[UUID, set[str]] = attrs.field(factory=lambda: defaultdict(set))
    """The sessions that were ever shown for a vehicle."""
    _pages: dict[Pair, list[tuple[PageRequest, Shown]]] = attrs.field(factory=lambda: defaultdict(list))
    _count: int = 0
    _batches: int = 0

    def begin_run(self, weather: Weather) -> None:
        self.run += 1
        self.weather, self.is_frozen, self.reads, self.doubted = weather, False, [], set()
        self._pages.clear()

    def note_page(self, asked: PageRequest) -> None:
        """Note the truth behind a page; the simulator calls this right before it makes the page."""
        rows = self.world.sim.truth(asked.vehicle, asked.from_date, asked.to_date, include_hidden=asked.include_hidden)
        is_blank = self.weather.shows_nothing_of(asked.vehicle)
        ids = frozenset() if is_blank else frozenset(row["id"] for row in rows)
        shown = Shown(self.world.now, ids, self.world.first_open_day(asked.vehicle), is_blank)
        self._pages[asked.vehicle].append((asked, shown))

    def watch(self, store: SessionStore) -> None:
        """Record what the store's batches get from now on."""
        backend: Any = store.backend
        make = backend.new_batch
        backend.new_batch = lambda *args, **options: _Watched(make(*args, **options), self)

    def read_of(self, item: WorkItem, outcome: FetchedSessions, at: datetime) -> Read:
        window = item.window
        pages: list[tuple[PageRequest, Shown]] = []
        others: list[tuple[PageRequest, Shown]] = []
        for asked, shown in self._pages[item.vehicle]:
            is_own = window.from_date <= asked.from_date and asked.to_date <= window.to_date
            (pages if is_own else others).append((asked, shown))
        self._pages[item.vehicle] = others
        whole = [
            shown for asked, shown in pages if (asked.from_date, asked.to_date) == (window.from_date, window.to_date)
        ]
        self._count += 1
        read = Read(
            number=self._count,
            run=self.run,
            pair=item.vehicle,
            first=window.from_date,
            last=window.to_date,
            include_hidden=window.include_hidden,
            is_proven=outcome.completeness is not Completeness.UNPROVEN,
            is_confirming=item.is_confirming,
            sessions={str(each.id): content_of(each) for page in outcome.pages for each in page.sessions()},
            rejected=frozenset(_id_of(each.raw) for each in outcome.rejected),
            rejected_days=frozenset(_day_of(each.raw) for each in outcome.rejected),
            # A pair that the API no longer knows (404) has no page, and shows nothing.
            shown=pages[0][1] if pages else Shown(self.world.now, frozenset(), None),
            at=at,
        )
        self.verdicts[outcome.completeness.value] += 1
        if whole and read.is_proven and None not in read.rejected:
            # Sessions that the API had throughout the read: the client proves that it has them all.
            throughout = frozenset.intersection(*(shown.ids for shown in whole))
            lost = throughout - read.sessions.keys() - read.rejected
            assert not lost, f"a {outcome.completeness.value} read of {item.vehicle} lacks {sorted(map(str, lost))}"
        return read

    def commit(self, reads: list[Read]) -> None:
        if self.is_frozen:
            return
        self._batches += 1
        self.reads += reads
        for read in reads:
            for session_id, content in read.sessions.items():
                self._show(session_id, read, content)
        for read in reads:
            if read.is_proven:
                self._prove(read)
        for read in reads:
            self._excuse(read)

    def _show(self, session_id: str, read: Read, content: Content) -> None:
        self._ids[read.pair.vehicle_id].add(session_id)
        known = self.known.get(session_id)
        if known is None:
            self.known[session_id] = Known([(read.pair, content)], self._batches, self.run, {read.pair.user_id})
            return
        if known.batch != self._batches:
            known.candidates = []
        known.candidates.append((read.pair, content))
        known.users.add(read.pair.user_id)
        known.batch, known.run, known.absences, known.excused = self._batches, self.run, [], 0

    def _prove(self, read: Read) -> None:
        days = self.last_proven[read.pair, read.include_hidden]
        for number in range((read.last - read.first).days + 1):
            day = read.first + timedelta(days=number)
            if day <= read.at.date():  # nothing can be listed for later days
                days[day] = read
                self.proven_reads[read.pair][day] += 1
        if None in read.rejected:
            return
        for session_id in self._ids[read.pair.vehicle_id]:
            known = self.known[session_id]
            # If another read of the same transaction returned it, the two have no order.
            if (
                known.batch != self._batches
                and session_id not in read.sessions
                and session_id not in read.rejected
                and known.is_on(read)
            ):
                known.absences.append(read)
                self.doubted.add(read.pair.vehicle_id)

    def _excuse(self, read: Read) -> None:
        for session_id in self._ids[read.pair.vehicle_id] | {each for each in read.rejected if each in self.known}:
            known = self.known[session_id]
            if session_id in read.rejected or (None in read.rejected and known.is_on(read)):
                known.excused = len(known.absences)

    def last_proof(self, pair: Pair, day: date, *, include_hidden: bool) -> Read | None:
        """Return the newest proven read of a day; reads with hidden sessions prove the others, too."""
        reads = [self.last_proven[pair, flag].get(day) for flag in ({True} if include_hidden else {True, False})]
        return max((read for read in reads if read is not None), key=lambda read: read.number, default=None)

    def has_other_proof(self, pair: Pair, day: date) -> bool:
        """Return whether a day of a vehicle was proven under another user."""
        return any(
            other.vehicle_id == pair.vehicle_id and other != pair and day in reads
            for (other, _), reads in self.last_proven.items()
        )


def _id_of(raw: Any) -> str | None:
    found = raw.get("id") if isinstance(raw, dict) else None
    return found if isinstance(found, str) else None


def _day_of(raw: Any) -> date | None:
    try:
        return parse_time(raw.get("plug_in_time")).date() if isinstance(raw, dict) else None
    except ValueError:
        return None


class _Watched:
    """A builder of batches that tells a recorder of each committed read."""

    def __init__(self, inner: Any, recorder: Recorder) -> None:
        self._inner = inner
        self._recorder = recorder
        self._reads: list[Read] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def add(self, item: WorkItem, outcome: Fetched, at: datetime, settle_to: date | None = None, *rest: Any) -> None:
        assert not isinstance(outcome, VehicleFailure)
        self._inner.add(item, outcome, at, settle_to, *rest)
        self._reads.append(self._recorder.read_of(item, outcome, at))

    def seal(self) -> Callable[..., Awaitable[Any]]:
        commit, reads, self._reads = self._inner.seal(), self._reads, []

        async def commit_and_tell(*args: Any) -> Any:
            written = await commit(*args)
            self._recorder.commit(reads)
            if self._recorder.on_commit is not None:
                await self._recorder.on_commit()
            return written

        return commit_and_tell
