"""`podero-async sql`: queries over a store, as a table, CSV or JSON lines."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import signal
from pathlib import Path

import pytest

from podero_async.testing import PoderoSimulator
from tests._support.commands import Call, end_of, start

SAVINGS = """
SELECT month, actual_savings_eur FROM monthly_savings_in('Europe/Vienna') WHERE external_user_id = 'customer_1' ORDER BY month
"""
VALUES = """
SELECT 1 AS a, NULL AS b, true AS c, [1, 2] AS d, TIMESTAMPTZ '2026-01-31 06:00:00+01' AS e, DATE '2026-01-31' AS f,
    'x,"y"' AS g, 0.5 AS h, sum(range) AS i, 'nan'::DOUBLE AS j, INTERVAL 1 DAY AS k, {'z': uuid()} IS NULL AS l, 'ab'::BLOB AS m
FROM range(3)
"""


async def test_csv_and_json_lines(call: Call, filled: Path) -> None:
    """A pipe gets CSV, or JSON lines with `--json`; both have the same rows."""
    as_csv, as_json = (
        await call("sql", f"--store={filled}", SAVINGS),
        await call("sql", f"--store={filled}", "--json", SAVINGS),
    )
    assert (as_csv.code, as_json.code, as_csv.err, as_json.err) == (0, 0, "", "")
    rows = [json.loads(line) for line in as_json.out.splitlines()]
    assert len(rows) > 1
    assert [
        (row["month"], float(row["actual_savings_eur"] or 0)) for row in csv.DictReader(io.StringIO(as_csv.out))
    ] == [(row["month"], row["actual_savings_eur"] or 0) for row in rows]


async def test_values_of_each_type(call: Call, filled: Path) -> None:
    """Times are UTC with a Z, whole decimals are integers, lists are JSON, and NULL and NaN are empty."""
    row = json.loads((await call("sql", f"--store={filled}", "--json", VALUES)).out)
    expected = [1, None, True, [1, 2], "2026-01-31T05:00:00Z", "2026-01-31", 'x,"y"', 0.5, 3, None]
    assert list(row.values())[:10] == expected
    assert (row["l"], row["m"]) == (False, b"ab".hex())
    (cells,) = list(csv.reader(io.StringIO((await call("sql", f"--store={filled}", VALUES)).out)))[1:]
    assert cells[:10] == ["1", "", "true", "[1, 2]", "2026-01-31T05:00:00Z", "2026-01-31", 'x,"y"', "0.5", "3", ""]


async def test_columns_without_rows_and_of_the_same_name(call: Call, on_terminal: Call, filled: Path) -> None:
    """An empty result has its headings, and columns of the same name are all printed."""
    query = "SELECT id, id FROM sessions WHERE false"
    assert (await call("sql", f"--store={filled}", query)).out == "id,id\n"
    assert (await call("sql", f"--store={filled}", "--json", query)).out == ""
    assert (await call("sql", f"--store={filled}", "SELECT 1 AS a, 2 AS a")).out == "a,a\n1,2\n"
    assert "0 rows" in (await on_terminal("sql", f"--store={filled}", query)).out


async def test_a_table_on_a_terminal(on_terminal: Call, filled: Path) -> None:
    """A terminal gets a table of at most 1,000 rows, and one line says so; `--csv` prints all of them."""
    query = "SELECT range AS number FROM range({})"
    few, many = [await on_terminal("sql", f"--store={filled}", query.format(count)) for count in (1_000, 1_001)]
    assert (few.code, few.err, "1,000 rows" in few.out) == (0, "", True)
    assert many.complaint == "the first 1,000 rows; --csv and --json print all of them"
    every = await on_terminal("sql", f"--store={filled}", "--csv", query.format(2_500))
    assert every.out.splitlines() == ["number", *map(str, range(2_500))]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELEC 1", "SELEC"),
        ("FROM nowhere", "nowhere"),
        ("FROM live_session", 'live_session does not exist! Did you mean "live_sessions"?'),
        ("SELECT external_id FROM live_sessions", 'Candidate bindings: "external_user_id"'),
        ("", "no query"),
        ("SELECT 'x'::INTEGER", "Could not convert"),
        ("DELETE FROM sessions", "read-only"),
        ("CREATE TABLE more (a INTEGER)", "read-only"),
    ],
)
async def test_a_wrong_query_is_one_line(call: Call, filled: Path, query: str, said: str) -> None:
    """A query that is wrong, or would change the store, is wrong usage: one line, which does not blame the store."""
    ended = await call("sql", f"--store={filled}", query)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.complaint
    assert filled.name not in ended.complaint
    assert "LINE 1" not in ended.complaint
    assert len(ended.complaint) < 600


@pytest.mark.slow
async def test_a_signal_ends_a_long_query(served: PoderoSimulator, filled: Path) -> None:
    """SIGINT ends a query that would take hours, and the exit code is that of the signal."""
    forever = "SELECT sum(hash(a.range) % 7 + hash(b.range) % 5) FROM range(1000000000) a, range(1000000000) b"
    process = await start("sql", f"--store={filled}", forever)
    while not any(file.resolve() == filled for file in Path(f"/proc/{process.pid}/fd").iterdir() if file.exists()):
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    ended = await end_of(process)
    assert ended.code == 130
