"""Reads the sessions of many vehicles at once; imports `_paging`, `_http` and `_flow`, never the client."""
