"""Which days are held, in SQL."""

# ruff: noqa: S608 - all that is put into SQL text is written in these rooms; values are bound

from __future__ import annotations

__all__ = ["spans_held"]


def spans_held(receipts: str, key: str) -> str:
    """Return a query for the days that receipts hold, by key: joined where they overlap or follow each other.

    Args:
        receipts: A table, or what may follow FROM, up to its WHERE.
        key: The columns that tell one holder from another.
    """
    by_key = f"PARTITION BY {key} ORDER BY from_date, held_to"
    return f"""
SELECT {key}, min(from_date) AS from_date, max(held_to) AS held_to FROM (
    SELECT *, sum(CASE WHEN from_date <= held_before + 1 THEN 0 ELSE 1 END) OVER ({by_key}) AS island FROM (
        SELECT {key}, from_date, held_to,
            max(held_to) OVER ({by_key} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS held_before
        FROM (SELECT {key}, from_date, held_to FROM {receipts} WHERE held_to IS NOT NULL)
    )
) GROUP BY {key}, island
"""
