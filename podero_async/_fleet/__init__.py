"""Finds the vehicles of a fleet (`discovery`; `position` decides when a list has ended) and reads many at once (`fetch`).

Imports `_paging`, `_http` and `_flow`, never the client.
"""
