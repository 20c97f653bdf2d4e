"""The page that follows a backfill, in the style of the report. It has counts and fixed words alone: no id and no name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files

import attrs

from podero_async.cli._live import plots
from podero_async.cli._live.watch import Watch
from podero_async.cli._output.progress import is_discovering, vehicles_done
from podero_async.models import ClientStatistics, Completeness
from podero_async.report import _words as words
from podero_async.report._style import csp_hash, style_text

__all__ = ["POLICY", "fragment_of", "page_of"]


def _file(name: str) -> str:
    return files("podero_async.cli._live").joinpath(name).read_text(encoding="utf-8")


_STYLE = style_text() + _file("style.css")
_SCRIPT = _file("follow.js")
POLICY = (
    f"default-src 'none'; style-src {csp_hash(_STYLE)}; script-src {csp_hash(_SCRIPT)}; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's Content-Security-Policy."""
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<noscript><meta http-equiv="refresh" content="5"></noscript>
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>Backfill</h1>
<p>{period}</p>
<p class="stale" id="stale" role="status" hidden>The run has ended, or cannot be reached. This is its last known state.</p>
</header>
<main id="live">
{fragment}
</main>
<footer>
<p>A vehicle with two windows of days to read counts twice. The page follows the run; <a href="metrics">metrics</a> has the figures for Prometheus.</p>
</footer>
<script>{script}</script>
</body>
</html>
"""
_CAUSES = {
    "ApiError": "Unexpected response, perhaps of a gateway",
    "CompletenessError": "List cannot be read to its end",
    "DecodeError": "Response cannot be read",
    "InvalidRequestError": "Request refused as invalid",
    "NotFoundError": "Not known to the API",
    "PermissionDeniedError": "Access denied",
    "RateLimitError": "Throttled for too long",
    "RequestTimeoutError": "No response in time",
    "ServerError": "Error of the API",
    "TransportError": "Connection failed",
}
"""What the kinds of errors mean; another one is shown by its name alone."""


@attrs.frozen(kw_only=True)
class _Tile:
    label: str
    text: str
    unit: str = ""
    notes: Sequence[str] = ()
    bar: str = ""
    is_alarm: bool = False

    def html(self, kind: str) -> str:
        space = ("", "\u2009") if self.unit == "%" else (" ", "")  # a space of the figure's own size would be wide
        unit = f"{space[0]}<small>{space[1]}{self.unit}</small>" if self.unit else ""
        alarm = " alarm" if self.is_alarm else ""
        notes = "".join(f'<dd class="note">{note}</dd>\n' for note in self.notes if note)
        figure = f'<dd class="figure{alarm}"><data value="{self.text}">{self.text}</data>{unit}</dd>\n'
        return f'<div class="{kind}">\n<dt>{self.label}</dt>\n{figure}{self.bar}{notes}</div>\n'


def page_of(watch: Watch) -> str:
    """Return the whole page."""
    return _PAGE.format(
        title=_title(watch),
        style=_STYLE,
        script=_SCRIPT,
        period=words.period(watch.from_date, watch.to_date),
        fragment=fragment_of(watch),
    )


def fragment_of(watch: Watch) -> str:
    """Return the part of the page that changes."""
    now = watch.statistics()
    text, is_alarm = _state(watch, now)
    kind = "state alarm" if is_alarm else "state"
    dot = '<svg aria-hidden="true" viewBox="0 0 8 8"><circle cx="4" cy="4" r="4"/></svg>'
    tiles = (_done, _sessions, _rate, _in_flight, _pauses, _failed, _age)
    shown = "".join(make(watch, now).html("tile" if number else "tile first") for number, make in enumerate(tiles))
    sections = (plots.rate(watch, now), plots.in_flight(watch, now), _coverage(watch), _failures(watch))
    return (
        f'<p class="{kind}" data-title="{_title(watch)}">{dot}<span>{text}</span></p>\n'
        f'<dl class="tiles">\n{shown}</dl>\n<div class="sections">\n{"".join(sections)}</div>'
    )


def _title(watch: Watch) -> str:
    return f"{_share(watch)} · Backfill" if _is_measured(watch) else "Backfill"


def _is_measured(watch: Watch) -> bool:
    return not is_discovering(watch.progress) and watch.progress.vehicles > 0


def _share(watch: Watch) -> str:
    return words.share(vehicles_done(watch.progress), watch.progress.vehicles)


def _state(watch: Watch, now: ClientStatistics) -> tuple[str, bool]:
    """Return what the run does in words, and whether that is a reason to worry."""
    if watch.progress.phase == "ended":
        return "Ending: the rest is written", False
    if now.is_breaker_open:
        return "The API fails: only single requests probe it", True
    if now.paused_for_s > 0:
        return f"Paused by the API, {_duration(now.paused_for_s)} to go", True
    phases = {"starting": "Starting", "discovering": "Looking for vehicles", "fetching": "Reading sessions"}
    return phases[watch.progress.phase], False


def _done(watch: Watch, _: ClientStatistics) -> _Tile:
    progress = watch.progress
    if not _is_measured(watch):
        return _Tile(label="Vehicles found", text=words.number(progress.vehicles))
    left = watch.seconds_left()
    still = progress.work_items - progress.received
    rest = f"about {_duration(left)} left" if left and still else "" if still else "all are read"
    text, _space, unit = _share(watch).rpartition("\u00a0")
    of_all = f"{words.number(vehicles_done(progress))} of {words.counted(progress.vehicles, 'vehicle')}"
    return _Tile(label="Vehicles done", text=text, unit=unit, bar=_parts(watch), notes=(of_all, rest))


def _parts(watch: Watch) -> str:
    bar = "".join(
        f'<rect class="{kind}" x="{left}%" width="{width}%" height="6"/>' for kind, left, width in _shares(watch)
    )
    return f'<dd><svg class="parts" aria-hidden="true"><rect class="left" width="100%" height="6"/>{bar}</svg></dd>\n'


def _shares(watch: Watch) -> Iterator[tuple[str, float, float]]:
    """Yield the class, the beginning and the width of each part of the bar, in percent."""
    counts = dict(zip(("settled", "provisional", "missing"), _counts(watch), strict=False))
    whole, left = max(1, sum(_counts(watch))), 0.0
    for kind, count in counts.items():
        width = round(100 * count / whole, 3)
        yield kind, left, width
        left = round(left + width, 3)


def _counts(watch: Watch) -> tuple[int, int, int, int]:
    """Return how much is proven now, was up to date before, has failed or is unproven, and is left."""
    progress = watch.progress
    proven = progress.verdicts[Completeness.VERIFIED] + progress.verdicts[Completeness.REPAIRED]
    faulty = progress.verdicts[Completeness.UNPROVEN] + progress.failed
    return proven, progress.skipped, faulty, progress.work_items - progress.received


def _sessions(watch: Watch, _: ClientStatistics) -> _Tile:
    text, unit = words.count(watch.progress.received_sessions)
    written = watch.progress.committed
    notes = (
        f"{words.number(written.new)} new in the store",
        f"{words.number(written.changed)} changed" if written.changed else "",
        f"{words.number(written.withdrawn)} withdrawn" if written.withdrawn else "",
        f"{words.number(written.rejected)} unreadable" if written.rejected else "",
    )
    return _Tile(label="Sessions received", text=text, unit=unit, notes=notes)


def _rate(watch: Watch, now: ClientStatistics) -> _Tile:
    notes = f"{words.number(now.requests)} so far", f"{words.number(now.retries)} retries" if now.retries else ""
    return _Tile(label="Requests", text=plots.speed(watch.requests_per_second()), unit="a second", notes=notes)


def _in_flight(_: Watch, now: ClientStatistics) -> _Tile:
    queued = f"{words.number(now.queued)} wait" if now.queued else ""
    return _Tile(label="In flight", text=words.number(now.in_flight), unit=f"of {now.limit:,}", notes=(queued,))


def _pauses(_: Watch, now: ClientStatistics) -> _Tile:
    note = f"{_duration(now.paused_for_s)} to go" if now.paused_for_s > 0 else "not paused"
    return _Tile(label="Pauses", text=words.number(now.pauses), notes=(note,), is_alarm=now.paused_for_s > 0)


def _failed(watch: Watch, _: ClientStatistics) -> _Tile:
    failed, unproven = watch.progress.failed, watch.progress.verdicts[Completeness.UNPROVEN]
    note = f"{words.number(unproven)} not proven complete" if unproven else ""
    return _Tile(label="Failed", text=words.number(failed), notes=(note,), is_alarm=failed > 0)


def _age(watch: Watch, _: ClientStatistics) -> _Tile:
    text, _space, unit = _duration(watch.seconds).partition("\u00a0")
    alarms = f"{words.counted(len(watch.progress.alarms), 'alarm')} so far" if watch.progress.alarms else ""
    return _Tile(label="Running for", text=text, unit=unit, notes=(alarms,))


def _duration(seconds: float) -> str:
    """Return a duration in words, with a space that does not break."""
    whole = max(1, round(seconds))
    if whole < 60:  # noqa: PLR2004
        return f"{whole}\u00a0s"
    minutes = round(seconds / 60)
    return f"{minutes}\u00a0min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}\u00a0h"  # noqa: PLR2004


def _coverage(watch: Watch) -> str:
    title, progress = "Coverage", watch.progress
    if is_discovering(progress):
        return _ranks("coverage", title, "Known as soon as all vehicles are found", "State", ())
    proven, skipped, _, left = _counts(watch)
    repaired = progress.verdicts[Completeness.REPAIRED]
    rows = (
        (
            "Read and proven complete",
            f"{words.number(repaired)} of them repaired" if repaired else "",
            proven,
            "settled",
        ),
        ("Up to date before the run", "", skipped, "provisional"),
        ("Read, but not proven complete", "", progress.verdicts[Completeness.UNPROVEN], "missing"),
        ("Failed", "", progress.failed, "missing"),
        ("Still to read", "", left, "left"),
    )
    return _ranks("coverage", title, "How much of the fleet is read, for the days of this run", "State", rows)


def _failures(watch: Watch) -> str:
    kinds = sorted(watch.progress.failed_by_kind.items(), key=lambda kind: -kind[1])
    rows = [(_CAUSES.get(kind, kind), kind if kind in _CAUSES else "", count, "missing") for kind, count in kinds]
    finding = "The next run tries them again" if rows else "Nothing has failed"
    return _ranks("failures", "Failures by cause", finding, "Cause", rows)


def _ranks(name: str, title: str, finding: str, first: str, rows: Sequence[tuple[str, str, int, str]]) -> str:
    peak = max((count for *_, count, _ in rows), default=0) or 1
    body = "".join(
        f'<tr><th scope="row"><div><span>{escape(text)}{f"<small>{escape(small)}</small>" if small else ""}</span>'
        f'<svg aria-hidden="true"><rect class="{kind}" width="{round(100 * count / peak, 2)}%" height="8" rx="2"/></svg>'
        f"</div></th><td>{words.number(count)}</td></tr>\n"
        for text, small, count, kind in rows
    )
    table = (
        f'<table class="ranks">\n<thead><tr><th scope="col">{first}</th><th scope="col">Vehicles</th></tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table>\n"
    )
    head = f'<h2 id="{name}">{title}</h2>\n<p class="finding">{finding}</p>\n'
    return f'<section aria-labelledby="{name}">\n{head}{table if rows else ""}</section>\n'
