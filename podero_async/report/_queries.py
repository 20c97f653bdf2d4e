"""The SQL of a report, and the values made of its rows."""

# ruff: noqa: S608 - the SQL is composed of constants of this module; values are bound

from __future__ import annotations

__all__ = ["COVERAGE", "HOURS", "OUTCOMES", "PERIOD", "TIMES", "ZONE", "count_of", "groups_of", "troubles_of"]

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
live AS NOT MATERIALIZED (
    SELECT *, epoch_us(plug_in_time) // {_QUARTER_US} AS quarter FROM sessions
    WHERE withdrawn_at IS NULL
        AND ($from IS NULL OR plug_in_time >= $from::DATE::TIMESTAMP AT TIME ZONE $zone)
        AND ($to IS NULL OR plug_in_time < ($to::DATE + 1)::TIMESTAMP AT TIME ZONE $zone)
)
"""
# A null time of some servers is in the year 1, which is the year 0 in the time zones of America. The year 10,000 is as near.
_LOCAL = f"""
greatest(TIMESTAMP '0001-01-01', least(TIMESTAMP '9999-12-20', make_timestamptz(quarter * {_QUARTER_US}) AT TIME ZONE $zone))
"""
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

_PRICE_ZONE = "LEFT JOIN (SELECT user_id, vehicle_id, price_zone FROM vehicles) USING (user_id, vehicle_id)"
_MODEL = "nullif(concat_ws(' ', manufacturer, model), '')"
_GROUPS = {
    "customer": ("user_id", "", "(SELECT any_value(external_user_id) FROM users WHERE user_id = key)"),
    "vehicle": ("vehicle_id", "", f"(SELECT any_value({_MODEL}) FROM vehicles WHERE vehicle_id = key)"),
    "price-zone": ("price_zone", _PRICE_ZONE, "NULL"),
}
"""The key of a group, the table that has it, and the name of a group."""


def groups_of(by: str) -> str:
    """Return the query of the groups with the most savings. Only their sums are in memory, besides the savings of all."""
    key, table, name = _GROUPS[by]
    return f"""
    WITH {_LIVE}, keyed AS NOT MATERIALIZED (
        SELECT {key} AS key, live.* FROM live {table}
    ), top AS MATERIALIZED (
        SELECT key, fsum(actual_savings_eur) AS savings FROM keyed GROUP BY key HAVING count(actual_savings_eur) > 0
        ORDER BY savings DESC, key LIMIT 10
    ), sums AS (
        SELECT keyed.key, {_SUMS} FROM keyed JOIN top ON keyed.key IS NOT DISTINCT FROM top.key GROUP BY keyed.key
    )
    SELECT *, {name} AS name FROM sums ORDER BY actual_savings_eur DESC, key
    """


def count_of(column: str) -> str:
    """Return the query of the number of vehicles or users with sessions."""
    return f"WITH {_LIVE} SELECT count(DISTINCT {column}) AS number FROM live"


_OWN_LIST = "concat_ws(' ', 'Vehicles of', external_user_id)"
_TROUBLED = {
    "customer": ("user_id", "external_user_id"),
    "vehicle": ("coalesce(vehicle_id, user_id)", f"if(vehicle_id IS NULL, {_OWN_LIST}, {_MODEL})"),
    "price-zone": ("price_zone", "NULL"),
}
"""The key of a group, and its name."""


def troubles_of(by: str) -> str:
    """Return the query of the groups with the most failed, unproven and unreadable reads."""
    key, name = _TROUBLED[by]
    is_within = "coalesce(to_date >= $from::DATE, true) AND coalesce(from_date <= $to::DATE, true)"
    return f"""
    WITH pairs AS (
        SELECT user_id, vehicle_id, count(*) FILTER (kind <> 'CompletenessError') AS failed,
            count(*) FILTER (kind = 'CompletenessError') AS unproven, 0 AS rejected
        FROM failures WHERE {is_within} GROUP BY user_id, vehicle_id
        UNION ALL
        SELECT user_id, vehicle_id, 0, 0, count(*) FROM rejected_items WHERE {is_within} GROUP BY user_id, vehicle_id
    ), named AS (
        SELECT p.*, u.external_user_id, v.manufacturer, v.model, v.price_zone FROM pairs p
        LEFT JOIN users u ON u.user_id = p.user_id
        LEFT JOIN vehicles v ON v.user_id = p.user_id AND v.vehicle_id = p.vehicle_id
    ), groups AS (
        SELECT {key} AS key, any_value({name}) AS name, sum(failed)::BIGINT AS failed,
            sum(unproven)::BIGINT AS unproven, sum(rejected)::BIGINT AS rejected
        FROM named GROUP BY key
    )
    SELECT *, count(*) OVER () AS troubled FROM groups ORDER BY failed + unproven DESC, rejected DESC, key LIMIT 10
    """


PERIOD = "SELECT min(from_date) AS from_date, max(to_date) AS to_date, max(read_at) AS read_at FROM coverage"

# The spans of a vehicle are disjoint, except that those of reads with hidden sessions may overlap those without. So a day's
# count is that of all spans minus that of their overlaps, and changes only where a span or an overlap begins or ends.
COVERAGE = """
WITH gone AS (
    SELECT user_id, vehicle_id FROM vehicles WHERE gone_since IS NOT NULL
), spans AS NOT MATERIALIZED (
    SELECT user_id, vehicle_id, include_hidden, is_settled, greatest(from_date, $from::DATE) AS first,
        least(to_date, $to::DATE) + 1 AS after
    FROM coverage ANTI JOIN gone USING (user_id, vehicle_id) WHERE from_date <= $to::DATE AND to_date >= $from::DATE
), signed AS (
    SELECT first, after, 1 AS "read", is_settled::INTEGER AS settled FROM spans
    UNION ALL
    SELECT greatest(a.first, b.first), least(a.after, b.after), -1, -(a.is_settled AND b.is_settled)::INTEGER
    FROM spans a JOIN spans b ON a.include_hidden AND NOT b.include_hidden AND a.user_id = b.user_id
        AND a.vehicle_id = b.vehicle_id AND a.first < b.after AND b.first < a.after
), steps AS (
    SELECT first AS "day", sum("read") AS "read", sum(settled) AS settled FROM signed GROUP BY first
    UNION ALL SELECT after, -sum("read"), -sum(settled) FROM signed GROUP BY after
    UNION ALL SELECT $from::DATE, 0, 0
), days AS (
    SELECT "day", sum("read") AS "read", sum(settled) AS settled FROM steps WHERE "day" <= $to::DATE GROUP BY "day"
)
SELECT "day" AS from_date, lead("day" - 1, 1, $to::DATE) OVER (ORDER BY "day") AS to_date,
    sum("read") OVER (ORDER BY "day")::BIGINT AS "read", sum(settled) OVER (ORDER BY "day")::BIGINT AS settled,
    (SELECT count(*) FROM (
        SELECT user_id, vehicle_id FROM coverage UNION SELECT user_id, vehicle_id FROM vehicles
    ) ANTI JOIN gone USING (user_id, vehicle_id)) AS vehicles
FROM days ORDER BY "day"
"""
