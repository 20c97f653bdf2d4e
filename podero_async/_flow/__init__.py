"""Flow control: how many requests are sent at once, how fast, in which order, and how often again.

`limiter` imports `queue`, `concurrency`, `breaker`, `rate` and `policies`; `queue` imports `breaker`; `retry` imports
`policies`. Nothing here knows HTTP.
"""
