"""The weather of a run: the API's faults while it lasts, drawn by a seed."""

from __future__ import annotations

from random import Random

import attrs

from podero_async import VehicleRef
from podero_async.testing import Fault
from tests.year.world import World

_THROTTLE = {"Retry-After": "2"}

# Kinds that change what a list shows or how it is paged, so that the number of requests has no simple bound.
_SHAPING = frozenset({"counts wrong", "small pages", "no order", "damaged rows"})


@attrs.frozen
class Weather:
    """The faults of a run, by a name."""

    name: str
    faults: tuple[Fault, ...] = ()
    blank: frozenset[VehicleRef] | None = frozenset()
    """The pairs whose list of sessions is empty though they have some; None for all."""

    @property
    def kind(self) -> str:
        return self.name.partition(",")[0]

    @property
    def changes_pages(self) -> bool:
        """Whether a list may take more requests than its length needs."""
        return self.kind in _SHAPING

    def shows_nothing_of(self, pair: VehicleRef) -> bool:
        return self.blank is None or pair in self.blank


CLEAR = Weather("clear")


def draw(rng: Random, world: World, dead: VehicleRef | None) -> Weather:
    """Draw the weather of a run.

    Args:
        rng: The source of randomness.
        world: The fleet.
        dead: The vehicle whose requests fail in any weather, or None.
    """
    weather = CLEAR if rng.random() < 0.5 else _bad(rng, world)
    if dead is None:
        return weather
    failing = Fault(kind="status", status=500, vehicle=dead)
    return Weather(f"{weather.name}, and a dead vehicle", (*weather.faults, failing), weather.blank)


def _bad(rng: Random, world: World) -> Weather:
    pairs = world.listed_pairs
    pair = rng.choice(pairs) if pairs else None
    rate = rng.choice([0.05, 0.3])
    kinds = [
        Weather("throttled", (Fault(kind="status", status=429, headers=_THROTTLE, rate=rate),)),
        Weather("overloaded", (Fault(kind="status", status=503, rate=rate),)),
        Weather("connections lost", (Fault(kind="reset", rate=rate), Fault(kind="truncated", rate=rate / 2))),
        Weather("slow", (Fault(kind="hang", seconds=rng.choice([5.0, 45.0]), rate=rate),)),
        Weather("spoilt bodies", (Fault(kind="malformed_json", rate=rate), Fault(kind="empty", rate=rate / 2))),
        Weather("tokens revoked", (Fault(kind="token_revoked", rate=0.03, times=3),)),
        Weather("damaged rows", (Fault(kind="malformed_row", rate=rate),)),
        Weather("counts wrong", (Fault(kind="wrong_total", delta=rng.choice([-1, 1, 3]), rate=rate),)),
        Weather("small pages", (Fault(kind="clamped_limit", limit=rng.choice([10, 50])),)),
        Weather("no order", (Fault(kind="unstable_order"),)),
        Weather("current fails", (Fault(kind="status", status=500, endpoint="current", rate=rng.choice([0.5, 1.0])),)),
        Weather("down", (Fault(kind="status", status=500),)),
        Weather("sessions fail", (Fault(kind="status", status=502, endpoint="sessions"),)),
        Weather("users fail", (Fault(kind="status", status=500, endpoint="users"),)),
        Weather("no users", (Fault(kind="empty_list", endpoint="users"),)),
        Weather("a user's vehicles fail", (Fault(kind="status", status=403, endpoint="vehicles", nth=1),)),
        Weather("a user's vehicles are missing", (Fault(kind="empty_list", endpoint="vehicles", nth=1),)),
        Weather("lists nothing for all", (Fault(kind="empty_list", endpoint="sessions"),), None),
    ]
    if pair is not None:
        nothing = Fault(kind="empty_list", endpoint="sessions", vehicle=pair)
        kinds.append(Weather("lists nothing for one", (nothing,), frozenset({pair})))
        kinds.append(Weather("a vehicle fails", (Fault(kind="status", status=500, vehicle=pair),)))
    return rng.choice(kinds)
