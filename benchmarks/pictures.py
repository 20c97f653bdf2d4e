"""Two pictures, as SVG: how the adaptive limit moves, and how the pages of some vehicles are scheduled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from benchmarks.fleet import FIRST_DAY, LAST_DAY, ORG, vehicles
from benchmarks.server import Answered, Plan, serving
from podero_async import PoderoClient, StaticToken, ThrottlePolicy

__all__ = ["limit_picture", "pager_picture"]

_WIDTH, _HEIGHT, _MARGIN = 900, 320, 50
_COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#8a5a9e", "#c77d1e", "#4f5d75")


def limit_picture(answered: list[Answered], seconds: float) -> str:
    """Draw how many requests the server had in service, and when it refused some, while its limit halves."""
    span = max(at for at, _, _ in answered)
    top = 50.0

    def x(at: float) -> float:
        return _MARGIN + at / span * (_WIDTH - 2 * _MARGIN)

    def y(value: float) -> float:
        return _HEIGHT - _MARGIN - value / top * (_HEIGHT - 2 * _MARGIN)

    line = " ".join(f"{x(at):.1f},{y(serving):.1f}" for at, _, serving in answered[:: max(1, len(answered) // 1500)])
    half = seconds / 2
    corners = ((0.0, 40), (half, 40), (half, 20), (span, 20))
    limit = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in corners)
    parts = [
        f'<polyline points="{limit}" fill="none" stroke="#999" stroke-dasharray="6 4"/>',
        f'<polyline points="{line}" fill="none" stroke="{_COLOURS[0]}"/>',
        *(
            f'<circle cx="{x(at):.1f}" cy="{y(46):.1f}" r="2" fill="{_COLOURS[1]}"/>'
            for at, status, _ in answered
            if status != 200
        ),
        *(_label(x(at), _HEIGHT - _MARGIN + 18, f"{at:.0f} s") for at in range(0, int(span) + 1, 5)),
        *(_label(_MARGIN - 20, y(value) + 4, str(value)) for value in (0, 20, 40)),
    ]
    title = "Requests in service (blue) under a hidden limit (dashed) of 40 that halves; refusals with 429 (red)"
    return _picture(title, parts, _HEIGHT)


def pager_picture(core: int | None) -> str:
    """Draw when the pages of six vehicles were asked for, with 100 ms a request and eight in flight."""
    with serving(Plan(latency_s=0.1), core=core) as server:
        spans = asyncio.run(_page_spans(server.origin))
    end = max(span[3] for span in spans)
    rows = sorted({(number, offset) for number, offset, _, _ in spans})
    height = 2 * _MARGIN + 11 * len(rows)

    def x(at: float) -> float:
        return 2 * _MARGIN + at / end * (_WIDTH - 3 * _MARGIN)

    parts = []
    for number, offset, began, ended in spans:
        y = _MARGIN + 11 * rows.index((number, offset))
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(f'<rect x="{x(began):.1f}" y="{y}" width="{x(ended) - x(began):.1f}" height="9" fill="{colour}"/>')
        if offset == 0:
            parts.append(_label(_MARGIN, y + 9, f"vehicle {number + 1}"))
    parts += [_label(x(tenth / 10), height - _MARGIN + 18, f"{tenth * 100} ms") for tenth in range(int(end * 10) + 1)]
    title = "Pages of six vehicles, one bar a request: eight in flight, 100 ms each; lists that were begun go first"
    return _picture(title, parts, height)


async def _page_spans(origin: str) -> list[tuple[int, int, float, float]]:
    """Return vehicle, offset, begin and end of each request."""
    fleet = list(vehicles([1000, 200, 1500, 700, 150, 900]))
    numbers = {vehicle.vehicle_id: number for number, vehicle in enumerate(fleet)}
    spans: list[tuple[int, int, float, float]] = []
    async with PoderoClient(
        ORG, StaticToken("benchmark"), base_url=origin, throttle=ThrottlePolicy(max_concurrency=8)
    ) as client:
        session = client._transport.session  # noqa: SLF001
        plain = session.send

        async def timed(method: str, url: Any, path: str, *rest: Any) -> Any:
            since = time.perf_counter() - began
            try:
                return await plain(method, url, path, *rest)
            finally:
                vehicle = next(number for key, number in numbers.items() if str(key) in path)
                spans.append((vehicle, int(url.query["offset"]), since, time.perf_counter() - began))

        session.send = timed  # type: ignore[assignment, method-assign]
        began = time.perf_counter()
        async with client.fetch_fleet(FIRST_DAY, LAST_DAY, fleet) as stream:
            async for _ in stream:
                pass
    return spans


def _label(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle">{text}</text>'


def _picture(title: str, parts: Iterable[str], height: float) -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{height:.0f}" fill="white"/>',
        f'<text x="{_WIDTH / 2:.0f}" y="24" text-anchor="middle" font-size="14">{title}</text>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
