"""Makes a report of a store: the figures of a fleet, and a page that a fleet manager understands at a glance.

    async with SessionStore("fleet.duckdb", read_only=True) as store:
        report = await build_report(store, date(2026, 1, 1), date(2026, 6, 30), time_zone="Europe/Vienna")
    Path("report.html").write_text(report.to_html(), encoding="utf-8")

`Report` has the figures. The page is one file without scripts, which loads nothing and needs the extra `report` to be made.
It has the names of customers, so treat it as personal data.

Import direction: `_build` > `_queries`; `_page` > `_charts`, `_words`; both > `_figures`.
"""

from podero_async.report._build import build_report
from podero_async.report._figures import (
    CoveredDays,
    GroupSavings,
    GroupTrouble,
    HoursPluggedIn,
    MonthTotals,
    Report,
    WeekCount,
)

__all__ = [
    "CoveredDays",
    "GroupSavings",
    "GroupTrouble",
    "HoursPluggedIn",
    "MonthTotals",
    "Report",
    "WeekCount",
    "build_report",
]

for _name in __all__:
    globals()[_name].__module__ = __name__  # so that reprs, tracebacks and pickles name no private module
