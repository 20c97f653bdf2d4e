"""The values of a run: its bounds."""

from __future__ import annotations

from typing import Any

import pytest

from podero_async.backfill import Bounds


@pytest.mark.parametrize(
    "bad", [{"max_failed": -0.1}, {"max_vanished": 1.1}, {"max_withdrawn": True}, {"max_failed": "1"}]
)
def test_bounds_are_shares(bad: dict[str, Any]) -> None:
    """A bound that is not a share from 0 to 1 raises a `ValueError` that names it."""
    with pytest.raises(ValueError, match=next(iter(bad))):
        Bounds(**bad)
