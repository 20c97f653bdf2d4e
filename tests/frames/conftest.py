from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from podero_async import ChargingSession, SessionOutcome


@pytest.fixture
def session() -> ChargingSession:
    """A session of October 2026."""
    return ChargingSession(
        id=UUID(int=1),
        plug_in_time=datetime(2026, 10, 1, 18, tzinfo=UTC),
        unplug_time=datetime(2026, 10, 2, 6, tzinfo=UTC),
        inferred_session_end=None,
        desired_charging_start_time=None,
        desired_charging_end_time=None,
        charge_deadline=None,
        target_soc_pct=80.0,
        initial_soc_pct=20.0,
        final_soc_pct=80.0,
        energy_charged_kwh=40.0,
        avg_charge_power_kw=7.0,
        peak_charge_power_kw=11.0,
        actual_cost_eur=8.0,
        expected_savings_eur=2.0,
        actual_savings_eur=1.5,
        is_at_home=True,
        session_outcome=SessionOutcome.OPTIMIZED,
    )
