"""Test your code against a simulated Podero Partner API: a real HTTP server on loopback, with faults on demand.

It imports the models, never the client, so it can test any client of the API.

    async with PoderoSimulator(users=10, vehicles=12, seed=1, faults=["status:503@5%"]) as simulator:
        credentials = ClientCredentials(simulator.client_id, simulator.client_secret)
        async with PoderoClient(simulator.org_id, credentials, base_url=simulator.base_url) as client:
            vehicle = simulator.vehicles[0]
            ids = (vehicle.user_id, vehicle.vehicle_id)
            fetched = await client.vehicle_sessions(*ids, simulator.first_day, simulator.last_day)
        assert [str(session.id) for session in fetched.sessions] == [row["id"] for row in simulator.truth(vehicle)]
        assert simulator.counts.requests["sessions"] >= 1

`with` instead of `async with` serves in a thread of its own, for synchronous tests. `podero_async.testing.pytest` has
fixtures and a marker for pytest.

# Endpoints

All those of the contract (sessions, the current session, users, a user by external id, electric
vehicles) and the three documented token endpoint styles. A seed determines all data, apart from tokens and request ids.
`vehicles` lists the fleet, `external_ids` the users, and `environment` the settings of a client. `rows_from_jsonl`
reads your own rows for `PoderoSimulator(rows=...)`. `truth()` and `current()` return the rows that a correct client must
see, `counts` and `requests` show what clients sent, and `secrets` must not occur in a log, even if requests fail.

# Changes while clients read

`insert`, `update`, `hide`, `remove` and `move_session` change the completed sessions;
`plug_in`, `complete_current` and `set_current` the current ones; `add_vehicle`, `remove_vehicle`, `share_vehicle`,
`move_vehicle` and `delete_user` the fleet; `revoke_tokens` and `revoke_refresh_tokens` end tokens. They take the models
of the client as well as ids and JSON rows. The hook `before_page` is called with a `PageRequest` right before each page
of the sessions list is made, so that a test can change the list between two pages.

# Faults

A `Fault` names a kind, its options, and the requests that it affects. `parse_fault` reads the same from a text of
the form `[endpoint[.page]/]kind[:option]...[@when[xtimes]]`, as the command line takes it:

| kind | example | effect |
|---|---|---|
| `status` | `status:429:retry-after=1` | this response instead; options `status` (default: 503), `body`, `content_type`; other names are headers |
| `reset` | `reset:100` | a TCP RST after `after_bytes` of the body; without a number, before the response |
| `truncated` | `truncated:100` | the connection ends after `after_bytes` of the body (default: half), short of its Content-Length |
| `hang` | `hang:2.5` | a response that is `seconds` late (default: it never comes) |
| `drip` | `drip:0.05:chunk_bytes=10` | `seconds` (default: 0.01) before each chunk of `chunk_bytes` (default: 1024) |
| `malformed_row` | `malformed_row:id:damage=missing` | one row has a damaged `field`; `damage` is `missing` or `wrong_type` (defaults: drawn) |
| `malformed_json` | `malformed_json` | a complete body with half a JSON document |
| `empty` | `empty` | status 200 with an empty body |
| `empty_list` | `empty_list` | a list of sessions, users or vehicles without items, although there are some |
| `token_revoked` | `token_revoked` | status 401, and the token of the request is revoked |
| `token_expiring` | `token_expiring:30` | the issued token expires after `seconds` |
| `clamped_limit` | `clamped_limit:50` | pages have at most `limit` rows, even if the request asks for more |
| `unstable_order` | `unstable_order` | each page comes from the list in a new random order |
| `wrong_total` | `wrong_total:-3` | the page's `total` is off by `delta` (default: 1) |

An option is `name=value`, or the value alone if the example shows it so. `@5%` affects a share of the matching
requests, `@#10` or `@#3,7` those numbers, counted from 1; without either, all. `x2` after one of them: at most twice, such
as `@100%x2` for the first two; without an `@`, it belongs to the option (`body=<html>x2`), or is refused. The prefix
`sessions/` restricts a fault to an endpoint (`current`, `sessions`, `token`, `user`, `users` or `vehicles`),
`sessions.first/` and `sessions.later/` to its first or its other pages. If several faults match a request, the first that
replaces or breaks the response wins.
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
    if "._" in getattr(_public, "__module__", ""):
        _public.__module__ = __name__  # so that reprs, tracebacks and pickles name no private module
