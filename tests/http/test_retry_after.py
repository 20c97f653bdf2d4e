"""`Retry-After` is read in all its forms, against the server's own clock, and never for longer than an hour."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from podero_async._http.retry_after import MAX_RETRY_AFTER_S, http_date, retry_after

NOW = datetime(2026, 11, 6, 8, 49, 37, tzinfo=UTC)
SOON = NOW + timedelta(seconds=90)
SERVER_DATE = format_datetime(NOW, usegmt=True)


@pytest.fixture(autouse=True)
def _local_time_differs_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", 0),
        ("2.0", 2),
        ("1.934", 1.934),
        ("0.0001", 0.001),
        ("2, 2", 2),
        ("2, 5", 5),
        (format_datetime(SOON, usegmt=True), 90),
        (format_datetime(SOON.astimezone(timezone(timedelta(hours=1)))), 90),
        ("Fri, 06 Nov 2026 08:51:07 -0000", 90),
        ("Friday, 06-Nov-26 08:51:07 GMT", 90),
        ("Fri Nov  6 08:51:07 2026", 90),
        ("Fri, 06 Nov 2026 08:49:30 GMT", 0),
        ("3601", MAX_RETRY_AFTER_S),
        ("9" * 400, MAX_RETRY_AFTER_S),
        ("Fri, 06 Nov 2099 08:51:07 GMT", MAX_RETRY_AFTER_S),
        *(
            (text, None)
            for text in ("", "soon", "-5", "+5", "5s", "1e3", "0x10", "nan", "inf", "\u00b2", "\u0663", "2,")
        ),
    ],
)
def test_retry_after_is_read_in_all_forms(text: str, seconds: float | None) -> None:
    """Seconds may have a fraction, which is rounded up; a date is compared with the `Date` of the response."""
    assert retry_after({"Retry-After": text, "Date": SERVER_DATE}) == (seconds and pytest.approx(seconds, abs=0.0011))


@pytest.mark.parametrize("server_date", [None, "yesterday"])
def test_without_a_server_date_our_clock_counts(server_date: str | None) -> None:
    """If the response has no valid `Date`, a date in `Retry-After` is compared with this machine's clock."""
    headers = {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)}
    if server_date:
        headers["Date"] = server_date
    assert retry_after(headers) == pytest.approx(90, abs=20)


def test_a_text_that_is_no_date_has_no_time() -> None:
    """A `Date` that is not an HTTP date is None."""
    assert [http_date(text) for text in ("", "soon", "Fri, 99 Nov 2026 08:49:37 GMT")] == [None] * 3
