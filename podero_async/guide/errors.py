"""Errors: the tree, the cause of each, and the right reaction.

All errors derive from `podero_async.PoderoError`. Retries have already been made when an error is raised.

# Which errors are there?

The errors of `podero_async`:

```text
.. include:: ../errors.py
   :start-after: in one tree.
   :end-before: Errors that another
```

The errors of `podero_async.backfill`:

```text
.. include:: ../backfill/errors.py
   :start-after: of the core package.
   :end-before: None of them
```

# What can go wrong, and what do I get?

.. include:: ../../README.md
   :start-after: ## Errors
   :end-before: ## Three knobs

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

# What does my service respond if a call fails?

The status `http_status_of(error)`, and a text of your own, since the text of an error names ids and paths:

```python
from podero_async import PoderoClient, PoderoError, http_status_of


async def handler(client: PoderoClient, user_id: str, vehicle_id: str) -> tuple[int, str]:
    try:
        session = await client.current_session(user_id, vehicle_id)
    except (PoderoError, ValueError) as error:
        return http_status_of(error), "the charging session is not available"
    return 200, session.to_json() if session else "null"
```

The `ValueError` is a mistyped id, or a first day after the last one, which the client refuses before it sends anything.
In FastAPI, register one handler for both: `@app.exception_handler(PoderoError)` and
`@app.exception_handler(ValueError)`.

# One vehicle fails: what about the others?

They go on. In a fleet, the failure is a value, `podero_async.VehicleFailure`, with the error that the call alone would
raise. `podero_async.frames` and `podero_async.summarize` raise it, unless you pass `on_failure`.

While many requests fail, for example because some of the API's servers are down, a fleet spends its retry budget, and
then vehicles fail after few attempts. The next backfill, or `--only-failed` at once, reads them again. A nightly run that
has hours may be given more: `RetryPolicy(budget=1_000_000, max_attempts=16)`.
"""
