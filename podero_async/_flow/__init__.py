"""Flow control: how many requests are sent at once, how fast, and how often again.

`limiter` imports `breaker`, `rate` and `policies`; `retry` imports `policies`. Nothing here knows HTTP.
"""
