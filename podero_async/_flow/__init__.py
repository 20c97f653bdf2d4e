"""Flow control: how many requests are sent at once, how fast and in which order, and how often a failed one is retried.

`limiter` imports `queue`, `concurrency`, `breaker`, `rate` and `policies`; `queue` imports `breaker`; `retry` imports
`policies`. Nothing here knows HTTP. `podero_async._failures` decides which errors are retried.
"""
