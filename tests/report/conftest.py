"""Fixtures of the report's tests: a browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests._support.browser import OpenPage


@pytest.fixture(scope="session")
def open_page() -> Iterator[OpenPage]:
    """Start a browser, and return a function that opens a page in it."""
    from tests._support.browser import running_browser  # noqa: PLC0415 - not every test needs it

    yield from running_browser()
