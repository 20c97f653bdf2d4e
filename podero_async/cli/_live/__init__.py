"""The live view of a backfill: a page that follows it, and metrics for Prometheus, from the backfill's own process.

Import direction: `server` > `page`, `metrics` > `watch`; `server` > `address`.
"""
