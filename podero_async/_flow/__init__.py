"""Flow control: how many requests are sent at once, how fast and in which order, and how often a failed one is retried.

Import direction: `limiter` > `queue`, `concurrency` > `breaker`; `limiter` > `rate`, `policies`; `retry` > `policies`.
Nothing here knows HTTP. `podero_async._failures` decides which errors are retried.
"""
