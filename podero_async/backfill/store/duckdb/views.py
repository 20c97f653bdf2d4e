"""The views of a store, for analysts. They name their columns, so that columns added to a table later do not break them."""

# ruff: noqa: S608 - the SQL is composed of constants of this module

from __future__ import annotations

import attrs

from podero_async.models import ChargingSession

__all__ = ["LIVE_SESSIONS_WITH_UNKNOWN", "VIEWS"]

_FIELDS = ", ".join(f"s.{field.name}" for field in attrs.fields(ChargingSession))
_SUMS = ("energy_charged_kwh", "actual_cost_eur", "expected_savings_eur", "actual_savings_eur")

# The time zone is a parameter of a macro: with the connection's own time zone, each machine would get other figures.
_MONTHS = f"""
SELECT user_id, external_user_id, date_trunc('month', plug_in_time AT TIME ZONE {{zone}})::DATE AS "month",
    count(*) AS sessions, {", ".join(f"fsum({name}) AS {name}" for name in _SUMS)},
    count(*) FILTER (actual_savings_eur IS NULL) AS sessions_without_savings
FROM live_sessions GROUP BY user_id, external_user_id, "month"
"""

_LIVE_SESSIONS = f"""
CREATE {{or_replace}}VIEW live_sessions AS
SELECT s.user_id, u.external_user_id, s.vehicle_id, v.manufacturer, v.model, {_FIELDS},
    s.fetched_at, s.first_seen_at, s.changed_at{{more}}
FROM sessions s LEFT JOIN users u ON u.user_id = s.user_id
LEFT JOIN vehicles v ON v.user_id = s.user_id AND v.vehicle_id = s.vehicle_id
WHERE s.withdrawn_at IS NULL;
"""
LIVE_SESSIONS_WITH_UNKNOWN = _LIVE_SESSIONS.format(or_replace="OR REPLACE ", more=", s.unknown_fields")

VIEWS = f"""
{_LIVE_SESSIONS.format(or_replace="", more="")}
CREATE VIEW monthly_savings AS {_MONTHS.format(zone="'UTC'")};
CREATE MACRO monthly_savings_in(zone) AS TABLE {_MONTHS.format(zone="zone")};
CREATE VIEW vehicle_coverage AS
SELECT c.user_id, any_value(u.external_user_id) AS external_user_id, c.vehicle_id, c.include_hidden,
    min(c.from_date) AS from_date, max(c.to_date) AS to_date,
    coalesce(sum(c.to_date - c.from_date + 1) FILTER (c.is_settled), 0)::BIGINT AS settled_days,
    coalesce(sum(c.to_date - c.from_date + 1) FILTER (NOT c.is_settled), 0)::BIGINT AS provisional_days,
    (max(c.to_date) - min(c.from_date) + 1 - sum(c.to_date - c.from_date + 1))::BIGINT AS missing_days,
    max(c.read_at) AS read_at
FROM coverage c LEFT JOIN users u ON u.user_id = c.user_id
GROUP BY c.user_id, c.vehicle_id, c.include_hidden;
"""
"""Statements that create the views, and the macro `monthly_savings_in`."""
