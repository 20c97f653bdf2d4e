"""One page of a list, and the rows of it that were not on an earlier page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cached_property, partial
from itertools import compress
from math import ceil

import attrs

from podero_async._decode import PageOutline, decode_page, outline_page, stated_total
from podero_async.models import SessionsPage

__all__ = ["NewRows", "Page"]

_MAX_SESSIONS = 1_000_000  # of one vehicle: a plug-in every five minutes for nine years
_MAX_OUTLINED = 256 << 10  # bytes: a page is decoded later only where that holds the event loop up for no long time


@attrs.define(eq=False)
class Page:
    """One answer. What is not needed yet stays bytes: decoded rows are what the garbage collector walks over again."""

    offset: int
    total: int
    count: int
    """Rows on it, the unreadable ones included."""
    decode: Callable[[], SessionsPage] = attrs.field(repr=False)  # they hold the body
    read_outline: Callable[[], PageOutline] = attrs.field(repr=False)
    has_distinct_rows: bool = False
    """Whether it is known that no row stands on it twice."""

    @classmethod
    def outlined(cls, offset: int, body: bytes) -> Page:
        """Read only the outline of a page."""
        outline = outline_page(body)
        decode = partial(decode_page, body, first_index=offset)
        return cls(offset, outline.total, len(outline.ids), decode, lambda: outline)

    @classmethod
    def first(cls, most: int, body: bytes) -> Page:
        """Read the first page of a list, of at most `most` rows: decode it where it may be the whole list, as it mostly is.

        And where its text may be broken: an outline does not show that, and nobody would ask for the page again.
        """
        is_outlined = len(body) <= _MAX_OUTLINED and stated_total(body) > most and body.isascii()
        return cls.outlined(0, body) if is_outlined else cls.decoded(body)

    @classmethod
    def decoded(cls, body: bytes) -> Page:
        """Decode a page that may be a whole list: then nobody asks for its outline."""
        page = decode_page(body)
        are_distinct = len({row.id.int for row in page.items}) == len(page.items)
        count = len(page.items) + len(page.rejected)
        return cls(0, page.total, count, lambda: page, partial(outline_page, body), are_distinct)

    @cached_property
    def _outline(self) -> PageOutline:
        return self.read_outline()

    @property
    def ids(self) -> list[str]:
        """The rows' ids, as text: comparing uuids costs Python code."""
        return self._outline.ids

    @property
    def times(self) -> list[datetime | None]:
        """When the rows were plugged in; None where that cannot be read."""
        return self._outline.times

    @property
    def end(self) -> int:
        """The offset behind its last row."""
        return self.offset + self.count

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole list: one atomic answer, which needs no other proof."""
        return self.offset == 0 and self.count == self.total

    @property
    def is_whole_and_distinct(self) -> bool:
        """Whether nothing more needs to be known of it: it is the whole list, and no row stands on it twice."""
        return self.has_distinct_rows and self.is_whole

    @property
    def pages(self) -> int:
        """How many such pages the list has, by its own word; 1 where that cannot be true."""
        return 1 if self.is_inconsistent else ceil(self.total / max(1, self.count))

    @property
    def is_inconsistent(self) -> bool:
        """Whether its total cannot be true, however the list moved."""
        if self.total > _MAX_SESSIONS:
            return True
        return self.total < self.end if self.count else self.total < 0 or self.offset < self.total


@attrs.frozen(eq=False)
class NewRows:
    """A page, and which of its rows were not on an earlier one."""

    page: Page
    is_fresh: list[bool] | None
    """None where all are."""

    @classmethod
    def of(cls, page: Page, seen: set[str]) -> NewRows:
        """Mark the rows of a page whose ids are not among the `seen`, and add them there."""
        ids = page.ids
        if len(set(ids)) == len(ids):
            is_fresh = [row_id not in seen for row_id in ids]
            seen.update(ids)
        else:
            is_fresh = []
            for row_id in ids:
                is_fresh.append(row_id not in seen)
                seen.add(row_id)
        return cls(page, None if all(is_fresh) else is_fresh)

    @property
    def is_empty(self) -> bool:
        """Whether it brings nothing new."""
        return self.page.count == 0 or (self.is_fresh is not None and not any(self.is_fresh))

    def decode(self) -> SessionsPage:
        """Decode the page, and leave out what is not fresh."""
        page = self.page.decode()
        if self.is_fresh is None:
            return page
        if not page.rejected:
            return SessionsPage(total=page.total, items=list(compress(page.items, self.is_fresh)))
        rejected = {item.index: item for item in page.rejected}
        items = iter(page.items)
        kept = SessionsPage(total=page.total, items=[])
        for index, is_fresh in enumerate(self.is_fresh, self.page.offset):
            if index in rejected:
                kept.rejected.extend([rejected[index]] if is_fresh else [])
            else:
                row = next(items)
                kept.items.extend([row] if is_fresh else [])
        return kept
