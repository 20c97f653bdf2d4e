"""The guide: each page is the docstring of a module, and answers the questions of a user.

| page | questions |
|---|---|
| `podero_async.guide.getting_started` | How do I install it? Which credentials does it need? How do I try it without credentials? How do I use it in a notebook? Which time zone do the days have? What did one customer save in a month? Is a car charging, or only plugged in? |
| `podero_async.guide.completeness` | What do VERIFIED, REPAIRED and UNPROVEN mean? What do I do with an unproven list? Is a sum complete? Why is a session not there yet? |
| `podero_async.guide.tuning` | Why does the client wait? Too many requests, or a rate limit? It is slow: how do I make it faster? How much memory does it need? How long does a call wait? How many requests does it cost? |
| `podero_async.guide.errors` | What can go wrong, and what do I get? Which errors are worth another attempt? The token expires? |
| `podero_async.guide.services` | What does my service respond, and in an outage? How do I reply within a second? A health check? The client disconnects? NDJSON? Task groups? |
| `podero_async.guide.testing` | How do I test my code without the API? How do I test failures? Sessions of today? |
| `podero_async.guide.stores` | How do I ask a store with SQL? How do I make a report? Which sessions changed since yesterday? The store is in use, or locked: what now? How do I get a data frame of it? |
| `podero_async.guide.operations` | Which schedule? How do I resume after a crash? Why is my nightly exit code 1? Where are the logs? How do I follow a run? How do I erase a user, or old sessions? One process, shards, or Dask? How do I check a store? |

The reference is in the documentation of the packages: `podero_async` (the client, its models and errors),
`podero_async.backfill` (runs, stores and their tables), `podero_async.frames` (data frames), `podero_async.dask` (Dask),
`podero_async.publish` (PostgreSQL), `podero_async.report` (the page and its figures), `podero_async.testing` (the
simulator) and `podero_async.testing.pytest` (fixtures).
"""
