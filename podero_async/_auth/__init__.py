"""The access token that each request carries: credentials, token requests, the token cache and the token store.

Import direction: `cache` > `renewal` > `grants`, `store` > `credentials`.
"""
