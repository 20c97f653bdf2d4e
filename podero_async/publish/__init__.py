"""Publishes a store of sessions to PostgreSQL, into the schema `podero`: only the changes, in one transaction."""

from podero_async.publish._publish import Published, publish
from podero_async.publish.errors import StoreRestoredError, TargetError

__all__ = ["Published", "StoreRestoredError", "TargetError", "publish"]

for _name in __all__:
    globals()[_name].__module__ = __name__  # so that reprs, tracebacks and pickles name no private module
