"""The queue of the limiter: interactive calls go before bulk calls, and no endpoint's calls hold up another's."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator

import attrs

from podero_async._flow.breaker import CircuitBreaker

__all__ = ["NoSlotError", "Slot", "SlotQueue", "Waiter"]


class NoSlotError(Exception):
    """No slot was free in the time that the caller was ready to wait."""

    def __init__(self, reason: str, *, is_outage: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_outage = is_outage
        """Whether the endpoint's circuit breaker stayed open."""
        self.retry_after = retry_after
        """Seconds until the pause ends, or until the rate allows another request."""


@attrs.define(eq=False)
class Slot:
    """The permission to have one request in flight."""

    number: int
    """The number of the start: later starts have higher numbers."""
    breaker: CircuitBreaker
    """The circuit breaker of the request's endpoint."""
    is_probe: bool
    """Whether the breaker was not closed when the slot was granted."""
    is_bulk: bool = False


@attrs.define(eq=False)
class Waiter:
    """A caller that waits for a slot."""

    slot: asyncio.Future[Slot]
    breaker: CircuitBreaker
    is_bulk: bool
    since: float
    left_s: float
    """How long it may wait: in all if it is interactive, and while its breaker is open if it is bulk."""
    is_new: bool = True
    """Whether no attempt of its call has failed."""
    number: int = 0
    """Its place in the order of arrival."""

    def gives_up_before(self, time: float) -> bool:
        """Return whether this is an interactive caller whose wait must end before the given time."""
        return not self.is_bulk and self.since + self.left_s < time

    def has_outlasted(self, breaker: CircuitBreaker, now: float) -> bool:
        """Return whether this is a bulk caller that waits for this breaker, and has done so for too long."""
        return self.is_bulk and self.breaker is breaker and now - max(self.since, breaker.opened_at) >= self.left_s


class SlotQueue:
    """Callers in two classes. Within a class, the first that may start goes first: others wait for their circuit breaker.
    A probe is the first call that is new, if there is one: the resources of the others may be the only ones that fail.

    Interactive callers go first. After `max_in_a_row` of them, one bulk caller goes first if any waits, so bulk work
    has a share however many interactive calls there are.
    """

    def __init__(self, max_in_a_row: int = 7) -> None:
        self._max_in_a_row = max_in_a_row
        self._in_a_row = self._arrivals = 0
        # For each class the callers by endpoint: False for interactive, True for bulk calls. Many may be cancelled at once,
        # in any order, so removing one must not search for it.
        self._callers: dict[bool, defaultdict[CircuitBreaker, OrderedDict[Waiter, None]]]
        self._callers = {False: defaultdict(OrderedDict), True: defaultdict(OrderedDict)}
        self.size = 0
        """How many callers wait."""
        self.interactive = 0
        """How many of them are interactive."""

    def __iter__(self) -> Iterator[Waiter]:
        for by_endpoint in self._callers.values():
            for waiters in by_endpoint.values():
                yield from waiters

    def append(self, waiter: Waiter) -> None:
        """Add a caller behind the others of its class."""
        self._arrivals += 1
        waiter.number = self._arrivals
        self._callers[waiter.is_bulk][waiter.breaker][waiter] = None
        self.size += 1
        self.interactive += not waiter.is_bulk

    def remove(self, waiter: Waiter) -> bool:
        """Remove a caller. Return whether it was still queued."""
        try:
            del self._callers[waiter.is_bulk][waiter.breaker][waiter]
        except KeyError:
            return False
        self.size -= 1
        self.interactive -= not waiter.is_bulk
        return True

    def reject(self, is_rejected: Callable[[Waiter], bool], error: Callable[[], Exception]) -> None:
        """Remove callers, and raise an error in each."""
        for waiter in [waiter for waiter in self if is_rejected(waiter)]:
            self.remove(waiter)
            if not waiter.slot.done():
                waiter.slot.set_exception(error())

    def pop(self, now: float, start_at: Callable[[Waiter], float]) -> Waiter | float:
        """Remove and return the caller that goes next, or return the time when one may; infinite if that is unknown.

        Args:
            now: The current time.
            start_at: Returns the time when a caller may start; equal for all callers of a class and an endpoint.
        """
        earliest = math.inf
        bulk_goes_first = self._in_a_row >= self._max_in_a_row
        for is_bulk in (bulk_goes_first, not bulk_goes_first):
            if self.interactive == (self.size if is_bulk else 0):
                continue  # no caller of this class waits
            callers, at = self._first(now, start_at, is_bulk=is_bulk)
            if callers is not None:
                passes_bulk = (
                    not is_bulk and self.size > self.interactive and self._first(now, start_at, is_bulk=True)[0]
                )
                self._in_a_row = self._in_a_row + 1 if passes_bulk else 0
                self.size -= 1
                self.interactive -= not is_bulk
                waiter = _next_of(callers)
                del callers[waiter]
                return waiter
            earliest = min(earliest, at)
        return earliest

    def _first(
        self, now: float, start_at: Callable[[Waiter], float], *, is_bulk: bool
    ) -> tuple[OrderedDict[Waiter, None] | None, float]:
        """Return the endpoint's callers of whom the first goes next, and the earliest time when another may start."""
        first: OrderedDict[Waiter, None] | None = None
        number, earliest = math.inf, math.inf
        for waiters in self._callers[is_bulk].values():
            waiter = next(iter(waiters), None)
            while waiter and waiter.slot.done():  # cancelled, but its task has not run yet
                self.remove(waiter)
                waiter = next(iter(waiters), None)
            if waiter and waiter.number < number:
                if (at := start_at(waiter)) <= now:
                    first, number = waiters, waiter.number
                else:
                    earliest = min(earliest, at)
        return first, earliest


def _next_of(callers: OrderedDict[Waiter, None]) -> Waiter:
    first = next(iter(callers))
    if first.breaker.is_closed:
        return first
    return next((waiter for waiter in callers if waiter.is_new and not waiter.slot.done()), first)
