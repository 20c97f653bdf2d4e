"""The page as a browser shows it on a phone, a tablet and a desktop, light and dark; names in it are only texts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from podero_async.backfill import SessionStore, backfill
from podero_async.report import Report, build_report
from tests._support.browser import OpenPage
from tests._support.clients import client_of
from tests._support.odd_reports import empty_report, one_day, ten_years
from tests.conftest import small_fleet

WIDTHS = (360, 768, 1440)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

_SUMS = "fsum(actual_savings_eur), fsum(energy_charged_kwh), fsum(expected_savings_eur), fsum(actual_cost_eur)"
_TILES = f"SELECT {_SUMS}, count(*), count(*) FILTER (is_at_home) FROM live_sessions"
_MONTHS = """
SELECT month, fsum(actual_savings_eur), fsum(expected_savings_eur), sum(sessions)::BIGINT,
    sum(sessions_without_savings)::BIGINT
FROM monthly_savings_in('Europe/Vienna') GROUP BY month ORDER BY month
"""
_CUSTOMERS = """
SELECT external_user_id, count(*), fsum(energy_charged_kwh), fsum(actual_savings_eur) AS savings
FROM live_sessions GROUP BY ALL ORDER BY savings DESC LIMIT 10
"""
_CELLS = "id => [...document.querySelectorAll(`#${id} ~ details tbody tr`)].map(row => [...row.cells].map(c => c.textContent))"


@pytest.mark.slow
def test_a_page_shows_the_figures_of_its_store(open_page: OpenPage, tmp_path: Path) -> None:
    """The tiles, months and customers that a browser shows are those of SQL over the store's views."""

    async def page_and_figures() -> tuple[str, list[Any]]:
        async with small_fleet() as sim, client_of(sim) as client, SessionStore(":memory:") as store:
            await backfill(client, store, sim.first_day, sim.last_day)
            report = await build_report(store, time_zone="Europe/Vienna")
            rows = [await store.query(sql) for sql in (_TILES, _MONTHS, _CUSTOMERS)]
            return report.to_html(), [[list(row.values()) for row in each] for each in rows]

    path = tmp_path / "report.html"
    html, (tiles, months, customers) = asyncio.run(page_and_figures())
    path.write_text(html, encoding="utf-8")
    page = open_page(path)
    shown = page.evaluate("[...document.querySelectorAll('.tiles data')].map(each => Number(each.value))")
    assert shown[:-1] == pytest.approx(tiles[0])
    cells = page.evaluate(_CELLS, "savings-by-month")
    assert cells == [
        [f"{month:%B %Y}", f"{saved:,.2f}", f"{planned:,.2f}", f"{sessions:,}", f"{unknown:,}"]
        for month, saved, planned, sessions, unknown in months
    ]
    cells = page.evaluate(_CELLS, "most-savings")
    assert cells == [
        [name, f"{sessions:,}", f"{energy:,.2f}", f"{saved:,.2f}"] for name, sessions, energy, saved in customers
    ]


@pytest.mark.slow
@pytest.mark.parametrize("make", [empty_report, one_day, ten_years], ids=lambda make: make.__name__)
def test_a_page_is_readable_in_all_six_forms(make: Callable[[], Report], open_page: OpenPage, tmp_path: Path) -> None:
    """At three widths, light and dark, no text touches another or leaves the window, and axe-core finds nothing;
    the page writes no line to the console and requests nothing. One page is tried with its tables open, too.
    """
    path = tmp_path / "report.html"
    path.write_text(make().to_html(), encoding="utf-8")
    for scheme in SCHEMES:
        shown = open_page(path, scheme)
        for width in WIDTHS:
            measured = shown.measure(width)
            assert measured["texts"] > 20
            assert measured["faults"] == []
        if make is one_day:  # the tables of ten years would take most of a minute
            shown.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            assert shown.measure(360)["faults"] == []
        assert shown.violations() == []
        assert shown.requests == [path.as_uri()]
        assert shown.console == []
        shown.close()


def test_names_are_texts_and_nothing_else() -> None:
    """Names of customers and outcomes appear as they are, and none becomes markup; the page allows no script at all."""
    page = ten_years().to_html()
    assert "<script" not in page
    assert " onload=" not in re.sub(r">[^<]*<", "><", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }} {% raw %}" in page
    assert "default-src 'none'" in page
    assert "unsafe-inline" not in page
    assert not re.search(r"\b(src|href|url)\s*[=(]", page)
