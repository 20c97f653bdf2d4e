"""The comments on the tables, views and columns of a store, which a reader sees in any tool for databases."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb

__all__ = ["add_comments", "add_unknown_comments"]

_USER_ID = "The user's id at Podero"
_VEHICLE_ID = "The vehicle's id at Podero"
_EXTERNAL = "The partner's own id for the user; NULL if there is none, or if it is not kept"
_FROM, _TO = "First UTC day, inclusive", "Last UTC day, inclusive"
_HIDDEN = "Whether sessions that the server hides were requested, too"
_FIRST_SEEN = "When it was first listed, or first read because a caller gave it"
_LAST_SEEN = "When it was last listed; NULL if it was only given by callers"
_GONE = "Since when it is no longer listed; NULL while it is"
_KWH = "Energy charged, in kWh"
_COST = "Cost of the energy, in euros"
_EXPECTED = "Savings that the server planned, compared with charging at once, in euros"
_SAVINGS = "Savings achieved, compared with charging at once, in euros; NULL until the server has computed them"
_MANUFACTURER, _MODEL = "The vehicle's manufacturer", "The vehicle's model"

_SESSION = {
    "user_id": _USER_ID,
    "vehicle_id": _VEHICLE_ID,
    "id": "The session's id",
    "plug_in_time": "When the vehicle was plugged in",
    "unplug_time": "When the vehicle was unplugged; NULL if the server did not see that",
    "inferred_session_end": "End of the session as the server infers it, if it did not see the vehicle unplugged",
    "desired_charging_start_time": "Desired start of charging",
    "desired_charging_end_time": "Desired end of charging",
    "charge_deadline": "Time by which the vehicle had to be charged",
    "target_soc_pct": "State of charge to reach, in percent",
    "initial_soc_pct": "State of charge at plug-in, in percent",
    "final_soc_pct": "State of charge at the end, in percent",
    "energy_charged_kwh": _KWH,
    "avg_charge_power_kw": "Average charging power, in kW",
    "peak_charge_power_kw": "Highest charging power, in kW",
    "actual_cost_eur": _COST,
    "expected_savings_eur": _EXPECTED,
    "actual_savings_eur": _SAVINGS,
    "is_at_home": "Whether the vehicle was at its user's home",
    "session_outcome": "The outcome of the session, such as optimized",
    "is_hidden": "Whether the server hides the session, as it does with very short ones",
    "hidden_reason": "Why the session is hidden",
    "target_reachable": "Whether the target could be reached before the deadline",
    "reachable_soc_pct": "State of charge that could be reached before the deadline, in percent",
    "fetched_at": "The last read that returned the session",
    "first_seen_at": "The first read that returned the session",
    "changed_at": "The last visible change: of a field, the vehicle or the user, a withdrawal or a return",
}
_SPAN = {"from_date": _FROM, "to_date": _TO, "include_hidden": _HIDDEN}
_PAIR = {"user_id": _USER_ID, "vehicle_id": _VEHICLE_ID}
_SEEN = {"first_seen_at": _FIRST_SEEN, "last_seen_at": _LAST_SEEN, "gone_since": _GONE}
_MONTH = {
    "user_id": _USER_ID,
    "external_user_id": _EXTERNAL,
    "month": "First day of the month of plug-in, in UTC",
    "sessions": "Number of sessions",
    "energy_charged_kwh": _KWH,
    "actual_cost_eur": _COST,
    "expected_savings_eur": _EXPECTED,
    "actual_savings_eur": "Savings achieved, compared with charging at once, in euros",
    "sessions_without_savings": "Number of sessions whose savings are NULL, as they are until the server has computed them",
}

_COMMENTS: dict[str, tuple[str, dict[str, str]]] = {
    "meta": (
        "Values of the store, such as its schema version, its id, and the organization and origin that own it",
        {"key": "A name", "value": "Its value"},
    ),
    "sessions": (
        "Charging sessions, including withdrawn ones; the view live_sessions leaves these out",
        {
            **_SESSION,
            "absent_at": "When a proven read did not return the session, and a second one has not confirmed that yet",
            "withdrawn_at": "When it was confirmed that the server no longer lists the session; NULL otherwise",
        },
    ),
    "coverage": (
        "The days of vehicles that were read, as spans; a day without a row is missing",
        {
            **_PAIR,
            **_SPAN,
            "is_settled": "Whether nothing more can come for these days; if not, later runs read them again",
            "read_at": "When the days were read; for settled days, the oldest read",
        },
    ),
    "users": (
        "The organization's users, without names, e-mail addresses and postal addresses",
        {
            "user_id": _USER_ID,
            "external_user_id": _EXTERNAL,
            "role": "admin, staff, user or guest",
            "num_electric_vehicles": "The server's count of the user's vehicles",
            **_SEEN,
        },
    ),
    "vehicles": (
        "Vehicles by user: a vehicle that had two users has two rows",
        {
            **_PAIR,
            "manufacturer": _MANUFACTURER,
            "model": _MODEL,
            "year": "Model year",
            "price_zone": "Electricity price zone, such as AT",
            "lifecycle_state": "The server's state of the vehicle, such as active",
            "is_authenticated": "Whether the server has access to the vehicle at its manufacturer",
            **_SEEN,
        },
    ),
    "ownership": (
        "The history of each vehicle's users and of their external ids",
        {
            **_PAIR,
            "external_user_id": _EXTERNAL,
            "since": "The discovery that first showed this",
            "until": "The discovery that first showed something else; NULL if this is so today",
        },
    ),
    "receipts": (
        "One row for each read of a window, kept for 400 days",
        {
            "run_id": "The run",
            **_PAIR,
            **_SPAN,
            "completeness": "The verdict: verified, repaired or unproven",
            "total": "The server's count of sessions",
            "count": "Stored rows",
            "digest": "Hash of the ids and contents of the rows, in their order",
            "requests": "Number of requests",
            "fetched_at": "When the window was read",
        },
    ),
    "failures": (
        "Vehicles that failed or were not proven complete, and users whose list of vehicles failed",
        {
            "run_id": "The run",
            "user_id": _USER_ID,
            "vehicle_id": f"{_VEHICLE_ID}; NULL if the user's list of vehicles failed",
            **_SPAN,
            "kind": "Class of the error",
            "message": "Message of the error",
            "first_failed_at": "When this first failed",
            "failed_at": "When this last failed",
        },
    ),
    "rejected_items": (
        "Rows that could not be read",
        {
            **_PAIR,
            **_SPAN,
            "session_id": "The session's id, if it is readable",
            "index": "Position of the row in the list; -1 if a value was read, but no column can hold it",
            "path": "JSON path of the unreadable value",
            "reason": "The problem",
            "raw": "The row as the server sent it",
            "fetched_at": "When the row was read",
            "first_rejected_at": "When the row could not be read for the first time",
        },
    ),
    "runs": (
        "One row for each run, kept for 400 days",
        {
            "run_id": "The run",
            **_SPAN,
            "scope": "The fleet, a list of vehicles or failed vehicles; and the shard",
            "vehicles": "Vehicles of the run",
            "started_at": "Start of the run",
            "finished_at": "End of the run; NULL if it was interrupted",
            "done": "Windows that were read",
            "failed": "Vehicles that failed",
            "unproven": "Windows that were not proven complete",
            "sessions_new": "Sessions that were added",
            "sessions_changed": "Sessions that have changed",
            "sessions_unchanged": "Sessions that were as before",
            "sessions_withdrawn": "Sessions that were withdrawn",
            "rejected": "Rows that could not be read",
            "requests": "Number of requests",
            "retries": "Number of retries",
            "alarms": "Why the run is not clean, a line for each reason",
        },
    ),
    "forgotten": (
        "Users that were erased; later runs leave them out",
        {
            "user_hash": "SHA-256 of the salt and the user's id",
            "salt": "The id of the store in which the user was erased",
            "forgotten_at": "When the user was erased",
        },
    ),
    "live_sessions": (
        "The sessions that the server lists, with the external id of the user and the model of the vehicle",
        {**_SESSION, "external_user_id": _EXTERNAL, "manufacturer": _MANUFACTURER, "model": _MODEL},
    ),
    "monthly_savings": (
        "Sessions, energy, cost and savings by user and UTC month; monthly_savings_in('Europe/Vienna') has local months",
        _MONTH,
    ),
    "vehicle_coverage": (
        "The days of each vehicle that were read, as numbers",
        {
            **_PAIR,
            "external_user_id": _EXTERNAL,
            **_SPAN,
            "settled_days": "Days for which nothing more can come",
            "provisional_days": "Days that later runs read again",
            "missing_days": "Days between the first and the last one that were not read",
            "read_at": "The newest read",
        },
    ),
}
"""The comment on each table and view, and those on its columns."""
_UNKNOWN = "The fields that the release did not know, as JSON, as the last read that kept them returned them; NULL if there were none"
_VIEWS = {"live_sessions", "monthly_savings", "vehicle_coverage"}


def add_comments(con: duckdb.DuckDBPyConnection) -> None:
    """Set all comments. This takes 40 ms, so a store in memory has none."""
    con.execute("".join(_statements(_COMMENTS)))


def add_unknown_comments(con: duckdb.DuckDBPyConnection) -> None:
    """Set the comments on the column `unknown_fields`, and those on the view that was made anew with it."""
    view, columns = _COMMENTS["live_sessions"]
    table, _ = _COMMENTS["sessions"]
    unknown = {"unknown_fields": _UNKNOWN}
    con.execute("".join(_statements({"live_sessions": (view, columns | unknown), "sessions": (table, unknown)})))


def _statements(comments: dict[str, tuple[str, dict[str, str]]]) -> Iterator[str]:
    for table, (comment, columns) in comments.items():
        yield f"COMMENT ON {'VIEW' if table in _VIEWS else 'TABLE'} {table} IS '{_quoted(comment)}';"
        for column, text in columns.items():
            yield f"COMMENT ON COLUMN {table}.\"{column}\" IS '{_quoted(text)}';"


def _quoted(text: str) -> str:
    return text.replace("'", "''")
