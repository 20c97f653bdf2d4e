"""The SQL of a report, and the values made of its rows."""

# ruff: noqa: S608 - the SQL is composed of constants of this module; values are bound

from __future__ import annotations

__all__ = ["COVERAGE", "GROUPS", "HOURS", "OUTCOMES", "PERIOD", "TIMES", "TROUBLES", "ZONE", "keys_of"]

_SUMMED = ("energy_charged_kwh", "actual_cost_eur", "expected_savings_eur", "actual_savings_eur")
_WITHOUT = (
    "sessions_without_energy",
    "sessions_without_cost",
    "sessions_without_expected_savings",
    "sessions_without_savings",
)
_SUMS = "count(*) AS sessions, " + ", ".join(
    f"fsum({name}) AS {name}, count(*) - count({name}) AS {lack}" for name, lack in zip(_SUMMED, _WITHOUT, strict=True)
)
_SUMS_OF_SUMS = "coalesce(sum(sessions), 0)::BIGINT AS sessions, " + ", ".join(
    f"fsum({name}) AS {name}, coalesce(sum({lack}), 0)::BIGINT AS {lack}"
    for name, lack in zip(_SUMMED, _WITHOUT, strict=True)
)

ZONE = "SELECT now() AT TIME ZONE $zone AS local"

# Since 2012, all time zones change their offset at whole quarters of an hour, and by whole quarters. So the local time of
# few quarters is computed instead of that of each session, which would take most of the report's time.
_QUARTER_US = 900_000_000
_LIVE = f"""
live AS (
    SELECT *, epoch_us(plug_in_time) // {_QUARTER_US} AS quarter FROM sessions
    WHERE withdrawn_at IS NULL
        AND ($from IS NULL OR plug_in_time >= $from::DATE::TIMESTAMP AT TIME ZONE $zone)
        AND ($to IS NULL OR plug_in_time < ($to::DATE + 1)::TIMESTAMP AT TIME ZONE $zone)
)
"""
_LOCAL = f"make_timestamptz(quarter * {_QUARTER_US}) AT TIME ZONE $zone"
TIMES = f"""
WITH {_LIVE}, quarters AS MATERIALIZED (
    SELECT quarter, count(*) FILTER (is_at_home) AS at_home, count(*) FILTER (is_hidden) AS hidden,
        fsum(expected_savings_eur) FILTER (actual_savings_eur IS NOT NULL) AS expected_of_known, {_SUMS}
    FROM live GROUP BY quarter
), local AS (
    SELECT * EXCLUDE (quarter), {_LOCAL} AS local FROM quarters
), parts AS (
    SELECT *, local::DATE AS "day", date_trunc('month', local)::DATE AS "month", date_trunc('week', local)::DATE AS week,
        isodow(local)::INTEGER AS weekday, hour(local)::INTEGER AS "hour"
    FROM local
)
SELECT grouping_id("month", week, weekday) AS "set", "month", week, weekday, "hour", min("day") AS first_day,
    max("day") AS last_day, coalesce(sum(at_home), 0)::BIGINT AS at_home, coalesce(sum(hidden), 0)::BIGINT AS hidden,
    fsum(expected_of_known) AS expected_of_known,
    {_SUMS_OF_SUMS}
FROM parts GROUP BY GROUPING SETS ((), ("month"), (week), (weekday, "hour")) ORDER BY "month", week, weekday, "hour"
"""
"""All sessions, then those of each month, of each week, and of each hour of a weekday."""

HOURS = f"""
WITH {_LIVE}, midnights AS (
    SELECT quarter, epoch_us((date_trunc('day', {_LOCAL}) + INTERVAL 1 DAY) AT TIME ZONE $zone) AS midnight
    FROM (SELECT DISTINCT quarter FROM live)
), spans AS (
    SELECT epoch_us(plug_in_time) AS start, epoch_us(coalesce(unplug_time, inferred_session_end)) AS "end", midnight
    FROM live JOIN midnights USING (quarter)
)
SELECT CASE WHEN "end" IS NOT NULL THEN greatest(0, least(24, ("end" - start) // 3600000000))::INTEGER END AS hours,
    count(*) FILTER ("end" >= midnight) AS overnight, count(*) AS sessions
FROM spans GROUP BY hours ORDER BY hours NULLS LAST
"""
"""Sessions by the whole hours that they lasted; NULL for those without an end."""

OUTCOMES = f"""
WITH {_LIVE} SELECT session_outcome AS outcome, count(*) AS sessions FROM live
GROUP BY outcome ORDER BY sessions DESC, outcome
"""

_KEYS = {
    "customer": ("user_id", "external_user_id"),
    "vehicle": (
        "coalesce(vehicle_id, user_id)",
        "if(vehicle_id IS NULL, concat_ws(' ', 'Vehicles of', external_user_id), concat_ws(' ', manufacturer, model))",
    ),
    "price-zone": ("price_zone", "NULL"),
}
_NAMED = """
SELECT p.*, u.external_user_id, v.manufacturer, v.model, v.price_zone FROM {pairs} p
LEFT JOIN users u ON u.user_id = p.user_id LEFT JOIN vehicles v ON v.user_id = p.user_id AND v.vehicle_id = p.vehicle_id
"""


def keys_of(by: str) -> tuple[str, str]:
    """Return the SQL of the key of a group, and of its name."""
    return _KEYS[by]


GROUPS = f"""
WITH {_LIVE}, pairs AS MATERIALIZED (
    SELECT user_id, vehicle_id, {_SUMS} FROM live GROUP BY user_id, vehicle_id
), named AS ({_NAMED.format(pairs="pairs")}), groups AS (
    SELECT {{key}} AS key, any_value({{name}}) AS name, {_SUMS_OF_SUMS} FROM named GROUP BY key
), counts AS (SELECT count(DISTINCT vehicle_id) AS vehicles, count(DISTINCT user_id) AS customers FROM pairs)
SELECT * FROM counts LEFT JOIN groups ON true ORDER BY actual_savings_eur DESC NULLS LAST, key LIMIT 10
"""

TROUBLES = f"""
WITH pairs AS (
    SELECT user_id, vehicle_id, count(*) FILTER (kind <> 'CompletenessError') AS failed,
        count(*) FILTER (kind = 'CompletenessError') AS unproven, 0 AS rejected
    FROM failures WHERE coalesce(to_date >= $from::DATE, true) AND coalesce(from_date <= $to::DATE, true)
    GROUP BY user_id, vehicle_id
    UNION ALL
    SELECT user_id, vehicle_id, 0, 0, count(*) FROM rejected_items
    WHERE coalesce(to_date >= $from::DATE, true) AND coalesce(from_date <= $to::DATE, true) GROUP BY user_id, vehicle_id
), named AS ({_NAMED.format(pairs="pairs")}), groups AS (
    SELECT {{key}} AS key, any_value({{name}}) AS name, sum(failed)::BIGINT AS failed, sum(unproven)::BIGINT AS unproven,
        sum(rejected)::BIGINT AS rejected
    FROM named GROUP BY key
)
SELECT *, count(*) OVER () AS troubled FROM groups ORDER BY failed + unproven DESC, rejected DESC, key LIMIT 10
"""

PERIOD = "SELECT min(from_date) AS from_date, max(to_date) AS to_date, max(read_at) AS read_at FROM coverage"

# Spans with hidden sessions may overlap those without them, so the spans of each vehicle are joined first. The counts of a
# day are the sums of what begins and ends up to it.
COVERAGE = """
WITH present AS MATERIALIZED (
    (SELECT user_id, vehicle_id FROM coverage UNION SELECT user_id, vehicle_id FROM vehicles)
    EXCEPT SELECT user_id, vehicle_id FROM vehicles WHERE gone_since IS NOT NULL
), spans AS (
    SELECT user_id, vehicle_id, is_settled, greatest(from_date, $from::DATE) AS first, least(to_date, $to::DATE) + 1 AS after
    FROM coverage SEMI JOIN present USING (user_id, vehicle_id) WHERE from_date <= $to::DATE AND to_date >= $from::DATE
), states AS (
    SELECT user_id, vehicle_id, 'read' AS state, first, after FROM spans
    UNION ALL SELECT user_id, vehicle_id, 'settled', first, after FROM spans WHERE is_settled
), starts AS (
    SELECT *, coalesce(first > max(after) OVER (
        PARTITION BY user_id, vehicle_id, state ORDER BY first ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ), true) AS is_start FROM states
), numbered AS (
    SELECT *, count(*) FILTER (is_start) OVER (PARTITION BY user_id, vehicle_id, state ORDER BY first, after) AS number
    FROM starts
), joined AS (
    SELECT state, min(first) AS first, max(after) AS after FROM numbered GROUP BY user_id, vehicle_id, state, number
), steps AS (
    SELECT first AS "day", state, 1 AS step FROM joined UNION ALL SELECT after, state, -1 FROM joined
    UNION ALL SELECT $from::DATE, 'read', 0
), days AS (
    SELECT "day", coalesce(sum(step) FILTER (state = 'read'), 0) AS "read",
        coalesce(sum(step) FILTER (state = 'settled'), 0) AS settled
    FROM steps WHERE "day" <= $to::DATE GROUP BY "day"
)
SELECT "day" AS from_date, lead("day" - 1, 1, $to::DATE) OVER (ORDER BY "day") AS to_date,
    sum("read") OVER (ORDER BY "day")::BIGINT AS "read", sum(settled) OVER (ORDER BY "day")::BIGINT AS settled,
    (SELECT count(*) FROM present) AS vehicles
FROM days ORDER BY "day"
"""
