"""The refusals (401) of tokens, counted for each call."""

from __future__ import annotations

import attrs

__all__ = ["Refusals"]


@attrs.define
class Refusals:
    """The refusals (401) that one call has met.

    Attributes:
        token: The last token that was refused.
        waited_s: Seconds for which the call has waited until the server knows this token.
        affects_all_calls: True if the refusal of the last token concerns every call.
    """

    count: int = 0
    token: str = attrs.field(default="", repr=False)
    waited_s: float = 0.0
    affects_all_calls: bool = False
