"""A headless Chromium that opens a page as a reader does, and measures it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

__all__ = ["OpenPage", "Shown", "running_browser"]

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

# Texts that are hidden, and those of tables that are closed, have no size.
_MEASURE = """
() => {
    const texts = [], faults = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; (node = walk.nextNode()); ) {
        const parent = node.parentElement;
        if (!node.data.trim() || !parent.getBoundingClientRect().width) continue;
        if (parent.closest(".spoken, svg title")) continue;
        const range = document.createRange();
        range.selectNodeContents(node);
        for (const box of range.getClientRects()) texts.push([node.data.trim(), box, parent.closest(".scroll")]);
    }
    for (const [index, [text, box, scroller]] of texts.entries()) {
        if (!scroller && (box.left < -0.5 || box.right > innerWidth + 0.5)) faults.push(`outside: ${text}`);
        for (const [other, its, itsScroller] of texts.slice(index + 1)) {
            if (scroller || itsScroller) continue;
            const width = Math.min(box.right, its.right) - Math.max(box.left, its.left);
            const height = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
            if (width > 0.5 && height > 3) faults.push(`overlap: ${text} / ${other}`);
        }
    }
    if (document.documentElement.scrollWidth > innerWidth) faults.push(`wide: ${document.documentElement.scrollWidth}`);
    return {texts: texts.length, faults};
}
"""


@attrs.define
class Shown:
    """A page in the browser, with its lines on the console and its requests."""

    _thread: Executor
    _page: Page
    console: list[str] = attrs.field(factory=list)
    requests: list[str] = attrs.field(factory=list)

    def measure(self, width: int) -> dict[str, Any]:
        """Set the width of the window; return the number of texts, and those that overlap or leave the window."""
        self._thread.submit(self._page.set_viewport_size, {"width": width, "height": 900}).result()
        measured: dict[str, Any] = self.evaluate(_MEASURE)
        return measured

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """Run JavaScript in the page, which may have a policy against scripts of its own."""
        return self._thread.submit(self._page.evaluate, script, argument).result()

    def wait_for(self, condition: str) -> None:
        """Wait until a condition in JavaScript holds."""
        self._thread.submit(self._page.wait_for_function, f"() => {condition}").result()

    def violations(self) -> list[Any]:
        """Return what axe-core finds."""
        found: list[Any] = self._thread.submit(Axe().run, self._page).result().response["violations"]
        return found

    def close(self) -> None:
        """Close the window."""
        self._thread.submit(self._page.context.close).result()


@attrs.frozen
class OpenPage:
    """Opens pages in a browser."""

    _thread: Executor
    _browser: Browser

    def __call__(self, page: Path | str, scheme: Literal["light", "dark"] = "light") -> Shown:
        """Open a file or a URL in a new window."""
        url = page if isinstance(page, str) else page.as_uri()
        return self._thread.submit(self._open, url, scheme).result()

    def _open(self, url: str, scheme: Literal["light", "dark"]) -> Shown:
        context = self._browser.new_context(color_scheme=scheme, viewport={"width": 1440, "height": 900})
        shown = Shown(self._thread, context.new_page())
        shown._page.on("console", lambda message: shown.console.append(message.text))
        shown._page.on("pageerror", lambda error: shown.console.append(str(error)))
        shown._page.on("request", lambda request: shown.requests.append(request.url))
        shown._page.goto(url)
        return shown


def running_browser() -> Iterator[OpenPage]:
    """Start Debian's Chromium in a thread, since an event loop of its own runs there; without one, skip the test."""
    found = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if found is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    with ThreadPoolExecutor(1, thread_name_prefix="browser") as thread:
        playwright = thread.submit(sync_playwright().start).result()
        try:
            launch = partial(playwright.chromium.launch, executable_path=found, args=["--no-sandbox"])
            browser = thread.submit(launch).result()
            yield OpenPage(thread, browser)
            thread.submit(browser.close).result()
        finally:
            thread.submit(playwright.stop).result()
