"""The truth: a fleet whose sessions are plugged in, complete, are listed and change on a virtual calendar.

Everything follows from the random numbers of a seed. The simulator shows the truth to clients; a `Session` remembers what a
store could not have seen in time.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import lru_cache, partial
from itertools import count
from random import Random
from typing import Any
from uuid import UUID

import attrs

from podero_async import SessionOutcome, VehicleRef
from podero_async.testing import PoderoSimulator
from podero_async.testing._fake_data import session_row
from podero_async.testing._session_list import parse_time, wire_time

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
_MAX_CARS = 12

Event = Callable[[datetime], None]
_moment = lru_cache(100_000)(parse_time)


@attrs.define(eq=False)
class Car:
    """A vehicle, and the pairs of a user and this vehicle that the API serves."""

    vehicle_id: UUID
    pairs: list[VehicleRef]
    is_listed: bool = True
    """Whether a user of the organization lists it; the API may know it all the same."""
    current: Session | None = None


@attrs.define(eq=False)
class Session:
    """A session from its plug-in on, as the API shows it now."""

    car: Car
    row: dict[str, Any]
    is_listed: bool = False
    is_complete: bool = False
    is_long: bool = False
    """Whether it was completed after its day could have been settled."""
    surprised_at: list[tuple[datetime, str]] = attrs.field(factory=list)
    """When the API showed it on a day on which it had not shown it before, though it had been completed long ago.

    A store does not read settled days again, so it may miss such a change. This is the limit of its promise.
    """

    @property
    def id(self) -> str:
        return str(self.row["id"])

    @property
    def plug_in(self) -> datetime:
        return _moment(self.row["plug_in_time"])

    @property
    def day(self) -> date:
        return self.plug_in.date()


@attrs.define(eq=False)
class World:
    """The fleet and its calendar. Create it in the event loop whose clock the simulator's time follows.

    Args:
        rng: The source of randomness.
        start: The time of the first event; nothing is plugged in before.
        cars_at_start: The number of vehicles at the start.
        settle_after: The age from which on a store may call a day settled. A session that completes later is rarely
            listed with a delay, since neither `/current` nor the list shows it before it is listed.
        users_as_pages: Whether the simulator lists users by pages.
    """

    rng: Random
    start: datetime
    cars_at_start: int
    settle_after: timedelta
    users_as_pages: bool = False
    struck: Counter[str] = attrs.field(factory=Counter)
    cars: list[Car] = attrs.field(factory=list)
    sessions: dict[str, Session] = attrs.field(factory=dict)
    is_frozen: bool = False
    """Whether no event happens any more."""
    on_tick: Callable[[], None] | None = None
    """Called whenever the server looks at its clock, which it does several times for each request."""
    sim: PoderoSimulator = attrs.field(init=False)
    _events: list[tuple[datetime, int, Event]] = attrs.field(factory=list)
    _numbers: count[int] = attrs.field(factory=count)
    _epoch: datetime = attrs.field(init=False)
    _timer: asyncio.TimerHandle | None = None

    def __attrs_post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._epoch = self.start - timedelta(seconds=loop.time())
        self.sim = PoderoSimulator(
            rows={},
            seed=self.rng.getrandbits(32),
            clock=self._clock,
            users_as_pages=self.users_as_pages,
            latency_s=0.05,
        )
        for _ in range(self.cars_at_start):
            self._join(self.start)
        for kind, every in ((self._join, 45), (self._leave, 60), (self._change_user, 45), (self._share, 60)):
            self._repeat(self.start, kind, every * DAY)

    # --- time ---

    @property
    def now(self) -> datetime:
        """The true time, which is also the server's."""
        return self._epoch + timedelta(seconds=asyncio.get_running_loop().time())

    def _clock(self) -> float:
        if self.on_tick is not None:
            self.on_tick()
        return self.now.timestamp()

    def pass_until(self, moment: datetime) -> None:
        """Let everything happen that is due until a moment, and move the clock to it."""
        while self._events and self._events[0][0] <= moment:
            at, _, event = heapq.heappop(self._events)
            if not self.is_frozen:
                event(at)
        self._epoch += moment - self.now

    def keep_pace(self) -> None:
        """From now on, let events happen when the event loop's clock reaches them."""
        if self._timer is not None:
            self._timer.cancel()
        if self._events:
            delay = max(timedelta(), self._events[0][0] - self.now)
            self._timer = asyncio.get_running_loop().call_later(delay.total_seconds() + 1e-6, self._tick)

    def stand_still(self) -> None:
        """Undo `keep_pace`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self.struck["change during a run"] += 1
        self.pass_until(self.now)
        self.keep_pace()

    def hurry(self, moment: datetime) -> None:
        """Let some of the next events happen close to a time, such as the start of a run."""
        hurried = [self._events.index(each) for each in self.rng.sample(self._events, min(3, len(self._events)))]
        for index in hurried:
            at, number, event = self._events[index]
            if at > moment:
                self._events[index] = (moment + timedelta(seconds=self.rng.uniform(0, 1.5)), number, event)
        heapq.heapify(self._events)

    def _at(self, moment: datetime, event: Event) -> None:
        heapq.heappush(self._events, (moment, next(self._numbers), event))

    def _repeat(self, at: datetime, event: Event, every: timedelta) -> None:
        def happen(at: datetime) -> None:
            event(at)
            self._repeat(at, event, every)

        self._at(at + every * self.rng.expovariate(1), happen)

    def _chance(self, share: float) -> bool:
        return self.rng.random() < share

    # --- what the API shows ---

    @property
    def listed_pairs(self) -> list[VehicleRef]:
        """The pairs that the users of the organization list now."""
        return [pair for car in self.cars if car.is_listed for pair in car.pairs]

    def car_of(self, pair: VehicleRef) -> Car | None:
        return next((car for car in self.cars if pair in car.pairs), None)

    def first_open_day(self, pair: VehicleRef) -> date | None:
        """Return the plug-in day of a vehicle's current session; None if it has none."""
        car = self.car_of(pair)
        return car.current.day if car and car.current else None

    # --- sessions ---

    def _plug_in(self, car: Car, at: datetime) -> None:
        if not car.pairs or car.current is not None:
            return
        at = at.replace(microsecond=0)
        row = session_row(self.rng, at, SessionOutcome.IN_PROGRESS)
        ends = ("unplug_time", "inferred_session_end", "final_soc_pct", "actual_cost_eur", "actual_savings_eur")
        row |= dict.fromkeys(ends) | {"is_hidden": False, "hidden_reason": None}
        session = car.current = self.sessions[row["id"]] = Session(car, row)
        self.sim.set_current(car.pairs[0], row)
        if self._chance(0.04):
            self.struck["listed without an end"] += 1
            self._list(session)
        self._at(at + self._duration(), partial(self._complete, session))
        if self._chance(0.02):
            self._at(at + self.rng.uniform(0.5, 6) * HOUR, partial(self._correct_current, session))

    def _duration(self) -> timedelta:
        kind = self.rng.random()
        if kind < 0.05:
            return self.rng.uniform(1, 5) * HOUR / 60
        if kind < 0.9:
            return self.rng.choice([self.rng.uniform(8, 14), self.rng.uniform(8, 14), self.rng.uniform(1, 5)]) * HOUR
        if kind < 0.975:
            return self.rng.uniform(1, 6) * DAY
        if kind < 0.99:
            self.struck["plugged in for weeks"] += 1
            return self.rng.uniform(7, 30) * DAY
        self.struck["plugged in for two months"] += 1
        return self.rng.uniform(31, 65) * DAY

    def _correct_current(self, session: Session, at: datetime) -> None:
        if session.is_complete or session.is_listed or session.car.current is not session:
            return
        self.struck["current session's plug-in corrected"] += 1
        session.row["plug_in_time"] = wire_time(session.plug_in - self.rng.uniform(0.1, 20) * HOUR)
        session.surprised_at.append((at, "plug-in corrected"))
        self.sim.set_current(session.car.pairs[0], session.row)

    def _complete(self, session: Session, at: datetime) -> None:
        car = session.car
        if car.current is not session:
            return
        car.current, session.is_complete = None, True
        session.is_long = at >= self._settles_at(session)
        is_inferred = self._chance(0.06)
        is_short = at - session.plug_in < timedelta(minutes=5)
        session.row |= {
            "unplug_time": None if is_inferred else wire_time(at),
            "inferred_session_end": wire_time(at) if is_inferred else None,
            "session_outcome": self.rng.choice([SessionOutcome.OPTIMIZED, SessionOutcome.IMMEDIATE_START]).value,
            "is_hidden": is_short,
            "hidden_reason": "short_duration" if is_short else None,
        }
        self._at(at + self.rng.expovariate(1 / 30) * HOUR + HOUR / 10, partial(self._plug_in, car))
        if not car.pairs:
            return
        self.sim.set_current(car.pairs[0], None)
        if session.is_listed:
            self._update(session)
        elif self._chance(0.15):
            self._list_later(session, at)
        else:
            self._list(session)
        self._plan_changes(session, at)

    def _list_later(self, session: Session, at: datetime) -> None:
        listed_at = at + self.rng.choice([self.rng.uniform(0, 12), self.rng.uniform(0, 72)]) * HOUR
        if listed_at >= self._settles_at(session):
            if self._chance(0.7):
                self._list(session)
                return
            self.struck["neither current nor listed when its day settles"] += 1
            session.surprised_at.append((listed_at, "listed late"))
        self.struck["listed hours after its end"] += 1
        self._at(listed_at, lambda _: self._list(session))

    def _settles_at(self, session: Session) -> datetime:
        midnight = session.plug_in.replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight + DAY + self.settle_after

    def _list(self, session: Session) -> None:
        if session.car.pairs and not session.is_listed:
            self.sim.insert(session.car.pairs[0], session.row)
            session.is_listed = True
            self.struck["listed"] += 1

    def _update(self, session: Session) -> None:
        if session.car.pairs and session.is_listed:
            self.sim.update(session.car.pairs[0], session.id, **session.row)

    # --- late changes of a session ---

    def _plan_changes(self, session: Session, at: datetime) -> None:
        rng = self.rng
        changes: list[tuple[float, Callable[[Session, datetime], None], float]] = [
            (0.6, self._add_savings, rng.uniform(0.2, 10)),
            (0.02, self._add_savings, rng.uniform(35, 60)),
            (0.05, self._correct_energy, self._age()),
            (0.03, self._correct_time, self._age()),
            (0.015, self._correct_days, self._age()),
            (0.03, self._hide, self._age()),
            (0.03, self._withdraw, self._age()),
            (0.015, self._move, self._age()),
        ]
        for share, change, days in changes:
            if self._chance(share):
                self._at(at + days * DAY, partial(self._change, session, change))

    def _age(self) -> float:
        return self.rng.choice([self.rng.uniform(0, 3), self.rng.uniform(0, 25), self.rng.uniform(0, 60)])

    def _change(self, session: Session, change: Callable[[Session, datetime], None], at: datetime) -> None:
        if session.is_listed and session.is_complete and session.car.pairs:
            change(session, at)

    def _add_savings(self, session: Session, at: datetime) -> None:
        self.struck["savings"] += 1
        session.row["actual_savings_eur"] = round(self.rng.uniform(0.1, 5), 2)
        self._update(session)

    def _correct_energy(self, session: Session, at: datetime) -> None:
        self.struck["energy corrected"] += 1
        session.row["energy_charged_kwh"] = round(self.rng.uniform(1, 60), 3)
        self._update(session)

    def _correct_time(self, session: Session, at: datetime) -> None:
        old = session.plug_in
        new = old + self.rng.choice([-1, 1]) * self.rng.uniform(0.01, 12) * HOUR
        if self._chance(0.5):  # just across midnight
            midnight = old.replace(hour=0, minute=0, second=0, microsecond=0)
            new = midnight - timedelta(seconds=30) if self._chance(0.5) else midnight + DAY + timedelta(seconds=30)
        self.struck["plug-in corrected across midnight" if new.date() != old.date() else "plug-in corrected"] += 1
        self._set_plug_in(session, new, at)

    def _correct_days(self, session: Session, at: datetime) -> None:
        self.struck["plug-in corrected by days"] += 1
        self._set_plug_in(session, session.plug_in + self.rng.choice([-5, -3, -2, 2, 3, 5]) * DAY, at)

    def _set_plug_in(self, session: Session, moment: datetime, at: datetime) -> None:
        moment = min(moment, at - HOUR)
        session.row["plug_in_time"] = wire_time(moment.replace(microsecond=0))
        session.surprised_at.append((at, "plug-in corrected"))
        self._update(session)

    def _hide(self, session: Session, at: datetime) -> None:
        self.struck["hidden"] += 1
        session.row |= {"is_hidden": True, "hidden_reason": "short_duration"}
        self._update(session)
        if self._chance(0.5):
            self._at(at + self._age() * DAY, partial(self._change, session, self._show))

    def _show(self, session: Session, at: datetime) -> None:
        self.struck["shown again"] += 1
        session.row |= {"is_hidden": False, "hidden_reason": None}
        session.surprised_at.append((at, "shown again"))
        self._update(session)

    def _withdraw(self, session: Session, at: datetime) -> None:
        self.struck["withdrawn"] += 1
        self.sim.remove(session.car.pairs[0], session.id)
        session.is_listed = False
        if self._chance(0.4):
            self._at(at + self._age() * DAY, partial(self._return, session))

    def _return(self, session: Session, at: datetime) -> None:
        if session.car.pairs and not session.is_listed:
            self.struck["returned"] += 1
            session.surprised_at.append((at, "returned"))
            self._list(session)

    def _move(self, session: Session, at: datetime) -> None:
        others = [car for car in self.cars if car.pairs and car is not session.car]
        if not others:
            return
        self.struck["moved to another vehicle"] += 1
        to = self.rng.choice(others)
        self.sim.move_session(session.car.pairs[0], session.id, to.pairs[0])
        session.car = to
        session.surprised_at.append((at, "moved to another vehicle"))

    # --- vehicles ---

    def _join(self, at: datetime) -> None:
        present = [car for car in self.cars if car.pairs]
        if len(present) >= _MAX_CARS:
            return
        users = sorted({pair.user_id for car in present if car.is_listed for pair in car.pairs})
        user = self.rng.choice(users) if users and self._chance(0.3) else None
        pair = self.sim.add_vehicle(user, rows=[])
        car = Car(pair.vehicle_id, [pair])
        self.cars.append(car)
        if at > self.start:
            self.struck["vehicle came"] += 1
            self._give_history(car, at)
        self._at(at + self.rng.uniform(0, 40) * HOUR, partial(self._plug_in, car))

    def _give_history(self, car: Car, at: datetime) -> None:
        """List sessions from before the vehicle came."""
        for days in range(self.rng.choice([0, 20, 60]), 0, -1):
            row = session_row(self.rng, (at - days * DAY).replace(microsecond=0), SessionOutcome.OPTIMIZED)
            session = self.sessions[row["id"]] = Session(car, row, is_complete=True)
            session.surprised_at.append((at, "vehicle came"))
            self._list(session)

    def _some_car(self) -> Car | None:
        present = [car for car in self.cars if car.pairs and car.is_listed]
        return self.rng.choice(present) if len(present) > self.cars_at_start // 2 else None

    def _leave(self, at: datetime) -> None:
        car = self._some_car()
        if car is None:
            return
        users = {pair.user_id for pair in car.pairs}
        has_other_cars = any(pair.user_id in users for other in self.cars if other is not car for pair in other.pairs)
        car.is_listed = False
        if not has_other_cars and self._chance(0.4):
            self.struck["user was deleted"] += 1
            for user in users:
                self.sim.delete_user(user)
            return
        self.struck["vehicle left"] += 1
        for pair in car.pairs:
            self.sim.remove_vehicle(pair)
        car.pairs, car.current = [], None

    def _change_user(self, at: datetime) -> None:
        if car := self._some_car():
            self.struck["vehicle changed its user"] += 1
            car.pairs[0] = self.sim.move_vehicle(car.pairs[0], self._other_user(car))

    def _share(self, at: datetime) -> None:
        car = self._some_car()
        if car is not None and len(car.pairs) == 1:
            self.struck["two users list a vehicle"] += 1
            car.pairs.append(self.sim.share_vehicle(car.pairs[0], self._other_user(car)))
            self._at(at + self.rng.uniform(1, 40) * DAY, partial(self._unshare, car))

    def _unshare(self, car: Car, at: datetime) -> None:
        if len(car.pairs) == 2 and car.is_listed:
            self.struck["one of two users remains"] += 1
            self.sim.remove_vehicle(car.pairs.pop(self.rng.randrange(2)))

    def _other_user(self, car: Car) -> UUID | None:
        own = {pair.user_id for pair in car.pairs}
        users = sorted(
            {pair.user_id for other in self.cars if other.is_listed for pair in other.pairs if pair.user_id not in own}
        )
        return self.rng.choice(users) if users and self._chance(0.5) else None
