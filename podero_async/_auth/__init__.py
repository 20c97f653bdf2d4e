"""The access token that each request carries: credentials, grants, the token cache and the token store.

Import direction: `cache` imports `grants` and `store`, and both import `credentials`.
"""
