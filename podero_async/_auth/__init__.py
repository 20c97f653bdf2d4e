"""The access token that each request carries: credentials, token requests, the token cache and the token store.

Import direction: `cache` imports `renewal`, this imports `grants` and `store`, and both import `credentials`.
"""
