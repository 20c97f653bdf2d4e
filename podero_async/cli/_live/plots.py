"""The charts of the live view: requests per second, and requests in flight, over the last minutes."""

from __future__ import annotations

from collections.abc import Sequence

from podero_async.cli._live.watch import EVERY_S, MAX_SAMPLES, Watch
from podero_async.models import ClientStatistics
from podero_async.report import _charts as charts
from podero_async.report import _words as words
from podero_async.report._charts import WIDTHS, Label, Scale

__all__ = ["in_flight", "rate", "speed"]

_HEIGHT = 150.0
_PAUSE_PX = 4
_AXES = ((30, 15), (75, 30), (MAX_SAMPLES, 60))
"""Numbers of samples that an axis may have, and the seconds between its labels."""


def rate(watch: Watch, now: ClientStatistics) -> str:
    """Return the chart of requests per second, with the pauses below the axis."""
    rates = watch.rates()
    peak = f"At most {speed(max(rates))} in the last minutes" if rates else "No requests yet"
    retries = f"; {words.number(now.retries)} of all were retries" if now.retries else ""
    paused = [sample.is_paused for sample in watch.samples][1:]
    scale = Scale.of(rates, _HEIGHT)
    layers = [("bar", _steps(rates, scale))]
    if any(paused):
        spans = ((number, number + 1, _HEIGHT - _PAUSE_PX) for number, is_on in enumerate(paused) if is_on)
        layers.append(("missing", charts.step_path(spans, _HEIGHT)))
    keys = [("bar", "Requests a second"), *([("missing", "Paused by the API")] if any(paused) else [])]
    return _chart("rate", "Rate", f"{peak}{retries}", scale, layers, keys, len(rates))


def in_flight(watch: Watch, now: ClientStatistics) -> str:
    """Return the chart of the requests in flight, below the limit."""
    samples = list(watch.samples)[1:]
    limits = [float(sample.limit) for sample in samples]
    scale = Scale.of([*limits, *(sample.in_flight for sample in samples)], _HEIGHT, whole=True)
    layers = [
        ("rest", _steps([sample.in_flight for sample in samples], scale)),
        ("outline", _outline(limits, scale)),
    ]
    finding = f"The limit is {now.limit:,}; it falls when the API throttles, and grows again"
    keys = [("rest", "In flight"), ("outline", "Limit")]
    return _chart("in-flight", "Requests in flight", finding, scale, layers, keys, len(samples))


def speed(per_second: float) -> str:
    """Return a number of requests per second, with a digit behind the point if it is small."""
    return f"{per_second:,.1f}" if 0 < per_second < 10 else words.number(per_second)  # noqa: PLR2004


def _steps(values: Sequence[float], scale: Scale) -> str:
    return charts.step_path(((number, number + 1, scale.y(value)) for number, value in enumerate(values)), scale.y(0))


def _outline(values: Sequence[float], scale: Scale) -> str:
    steps = "".join(f"V{scale.y(value):g}H{number + 1}" for number, value in enumerate(values))
    return f"M0 {scale.y(values[0]):g}{steps}" if values else ""


def _chart(
    name: str,
    title: str,
    finding: str,
    scale: Scale,
    layers: Sequence[tuple[str, str]],
    keys: Sequence[tuple[str, str]],
    count: int,
) -> str:
    slots, label_every_s = next(axis for axis in _AXES if count <= axis[0])
    step = scale.ticks[1] - scale.ticks[0] if len(scale.ticks) > 1 else 0
    lines = "".join(
        f'<line class="{"grid" if value else "zero"}" x1="0" x2="100%" y1="{scale.y(value)}" y2="{scale.y(value)}"/>'
        f'<text class="end" x="-8" y="{scale.y(value) + 4}">{words.tick(value, step)}</text>\n'
        for value in scale.ticks
    )
    # The newest sample is at the right end.
    box = (
        f'width="100%" height="{_HEIGHT:g}" viewBox="{count - slots} 0 {slots} {_HEIGHT:g}" preserveAspectRatio="none"'
    )
    shapes = "".join(f'<svg class="{kind}" {box}><path d="{path}"/></svg>\n' for kind, path in layers if path)
    legend = "".join(_key(kind, text) for kind, text in keys)
    return (
        f'<section aria-labelledby="{name}">\n<h2 id="{name}">{title}</h2>\n'
        f'<p class="finding" id="{name}-finding">{finding}</p>\n'
        f'<div class="chart">\n<div class="unit">{legend}</div>\n'
        f'<svg role="img" aria-labelledby="{name}" aria-describedby="{name}-finding" height="{_HEIGHT + 24:g}">\n'
        f"{lines}{shapes}{_times(slots * EVERY_S, label_every_s)}</svg>\n</div>\n</section>\n"
    )


def _key(kind: str, text: str) -> str:
    shape = (
        '<rect class="mark" y="5" width="12" height="2"/>'
        if kind == "outline"
        else '<rect width="12" height="12" rx="2"/>'
    )
    style = "" if kind == "outline" else f' class="{kind}"'
    return f'<span class="key"><svg aria-hidden="true"{style} viewBox="0 0 12 12">{shape}</svg>{text}</span>'


def _times(length_s: float, every_s: int) -> str:
    """Return the labels of the axis: how long ago each moment was."""
    return "".join(
        f'<g class="{name}">'
        + "".join(
            f'<text class="{label.anchor}" x="{label.x}%" y="{_HEIGHT + 20:g}">{label.text}</text>'
            for label in _labels(length_s, every_s, width)
        )
        + "</g>\n"
        for name, width in WIDTHS.items()
    )


def _labels(length_s: float, every_s: int, width: float) -> list[Label]:
    """Return labels for a width: all of them, or each second one if they have no space."""
    for step_s in (every_s, 2 * every_s):
        moments = range(0, int(length_s) + 1, step_s)[::-1]
        positions = [100 - 100 * moment / length_s for moment in moments]
        if labels := charts.spaced([_ago(moment) for moment in moments], positions, width):
            return labels
    return []


def _ago(seconds: int) -> str:
    if not seconds:
        return "now"
    amount = f"{seconds // 60}\u00a0min" if seconds % 60 == 0 else f"{seconds}\u00a0s"
    return f"{words.MINUS}{amount}"
