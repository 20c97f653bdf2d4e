"""Errors: the tree, the cause of each, and the right reaction.

All errors derive from `podero_async.PoderoError`. Retries have already been made when an error is raised.
`podero_async.guide.services` says which status a service responds with.

# Which errors are there?

Those of `podero_async`, also by `help(podero_async.errors)`:

[the tree in podero_async/errors.py]

Those of `podero_async.backfill`, also by `help(podero_async.backfill.errors)`:

[the tree in podero_async/backfill/errors.py]

# What can go wrong, and what do I get?

[the table of "Errors" in README.md]

# Which errors are worth another attempt?

| error | later? |
|---|---|
| `podero_async.ServerError`, `podero_async.RequestTimeoutError` | yes, after minutes |
| `podero_async.RateLimitError` | yes, after `retry_after` seconds if it is set |
| `podero_async.CompletenessError` | yes, the list was changing |
| `podero_async.TransportError`, `podero_async.DecodeError` | if `retryable` is true; a refused certificate is not |
| `podero_async.AuthenticationError`, `podero_async.PermissionDeniedError` | after the credentials or the rights were corrected |
| `podero_async.NotFoundError`, `podero_async.InvalidRequestError` | no: the id or the argument is wrong |
| `podero_async.ConfigurationError`, `ValueError` | no: the program or its settings are wrong |
| `podero_async.backfill.ApiDownError` | yes: the same call reads the rest |
| `podero_async.backfill.StoreInUseError` | yes, when the other process has ended |

# The token expires, or an expired token is refused: what do I do?

Nothing. The client renews a token in the background, before it expires. If the API refuses one earlier (401), the client
asks for another and repeats the call. `podero_async.StaticToken` alone cannot be renewed: after it has expired, calls
raise `podero_async.AuthenticationError`. If no token can be had, a call raises the error of the token request, whose `path`
is that of the token endpoint.

# Unknown customer, or a mistyped id: what do I get?

An unknown id, of Podero's or your own, is a `podero_async.NotFoundError`. A mistyped one, not a uuid, is a
`ValueError` that names the argument, before anything is sent; so is a first day after the last one.

# Every call is a 404 (every customer is not found): is it the wrong organization?

Probably: the API responds to a wrong `PODERO_ORG_ID` with 404, as to an id that does not exist, so all calls raise
`podero_async.NotFoundError`. `podero-async doctor` checks the organization. A service checks it once, when it starts, by the
list of users, which does not exist only if the organization does not:

```python
from contextlib import aclosing

from podero_async import PoderoClient


async def check_organization(client: PoderoClient) -> None:
    async with aclosing(client.users()) as users:
        await anext(users, None)  # one request; NotFoundError if the organization does not exist
```

# A row cannot be read, or rows are unreadable: what happens?

Outcomes have such rows in `rejected`, with the path of the value and the reason, beside the sessions that could be read;
other calls raise `podero_async.DecodeError`, unless you pass `keep_rejected` or `on_rejected`. A backfill keeps them in the
table `rejected_items`, and if they are new or many, it ends with exit code 1.

# One vehicle fails: what about the others?

They go on. In a fleet, the failure is a value, `podero_async.VehicleFailure`, with the error that the call alone would
raise. `podero_async.frames` and `podero_async.summarize` raise it, unless you pass `on_failure`.

While many requests fail, for example because some of the API's servers are down, a fleet spends its retry budget, and
then vehicles fail after few attempts. The next backfill, or `--only-failed` at once, reads them again. A nightly run that
has hours may be given more: `RetryPolicy(budget=1_000_000, max_attempts=16)`.
"""
