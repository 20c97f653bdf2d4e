"""The page: what a browser shows of it on a phone, a tablet and a desktop, light and dark, and what it must not do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe

from podero_async.report import Report
from tests._support.browser import OpenPage
from tests._support.odd_reports import empty_report, one_day, ten_years

WIDTHS = (360, 768, 1440)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.mark.slow
@pytest.mark.parametrize("make", [empty_report, one_day, ten_years], ids=lambda make: make.__name__)
def test_a_page_is_readable_in_all_six_forms(make: Callable[[], Report], open_page: OpenPage, tmp_path: Path) -> None:
    """At three widths, light and dark, no text touches another or leaves the window, and axe-core finds nothing;
    the page writes no line to the console and requests nothing.
    """
    path = tmp_path / "report.html"
    path.write_text(make().to_html(), encoding="utf-8")
    for scheme in SCHEMES:
        shown = open_page(path, scheme)
        for width in WIDTHS:
            measured = shown.measure(width)
            assert measured["texts"] > 20
            assert measured["faults"] == []
        shown.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert shown.measure(360)["faults"] == []
        found = Axe().run(shown.page)
        assert found.response["violations"] == []
        assert shown.requests == [path.as_uri()]
        assert shown.console == []
        shown.page.context.close()


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
