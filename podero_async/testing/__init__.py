"""A simulator of the Podero Partner API: a real HTTP server on loopback, with a script of what goes wrong.

It knows the models and the wire, never the client, and so it can prove any client of the API.
"""

from __future__ import annotations

from podero_async.testing._fault_parser import parse_fault
from podero_async.testing._faults import Fault
from podero_async.testing._parameters import PageRequest
from podero_async.testing._session_list import rows_from_jsonl
from podero_async.testing._simulator import PoderoSimulator
from podero_async.testing._stats import Counts, RequestRecord

__all__ = ["Counts", "Fault", "PageRequest", "PoderoSimulator", "RequestRecord", "parse_fault", "rows_from_jsonl"]

for _name in __all__:
    _public = globals()[_name]
    if callable(_public):
        _public.__module__ = __name__  # so that reprs, tracebacks and pickles name no private module
