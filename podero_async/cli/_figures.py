"""What many sessions come to: counts and sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from math import fsum

import attrs

from podero_async.models import ChargingSession

__all__ = ["Figures"]


@attrs.define
class Figures:
    """Counts and sums that take one vehicle's sessions at a time. What a session does not say is not counted."""

    sessions: int = 0
    hidden: int = 0
    outcomes: Counter[str] = attrs.field(factory=Counter)
    _parts: dict[str, list[float]] = attrs.field(factory=dict, init=False)

    def add(self, sessions: Collection[ChargingSession]) -> None:
        """Count some sessions in."""
        self.sessions += len(sessions)
        self.hidden += sum(session.is_hidden for session in sessions)
        self.outcomes.update(session.session_outcome.value for session in sessions)
        for name in ("energy_charged_kwh", "actual_cost_eur", "actual_savings_eur"):
            known = [value for session in sessions if (value := getattr(session, name)) is not None]
            self._parts.setdefault(name, []).append(fsum(known))

    @property
    def energy_kwh(self) -> float:
        """Energy charged."""
        return self._sum("energy_charged_kwh")

    @property
    def cost_eur(self) -> float:
        """What it cost."""
        return self._sum("actual_cost_eur")

    @property
    def savings_eur(self) -> float:
        """What was saved against charging at once, as far as it has been computed."""
        return self._sum("actual_savings_eur")

    def _sum(self, name: str) -> float:
        return fsum(self._parts.get(name, ()))
