"""The access token that each request carries: credentials, token requests, the token cache and the token store.

Import direction: `cache` > `refusals`, `renewal`; `renewal` > `grants`, `store` > `credentials`.
"""
