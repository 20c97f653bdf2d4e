"""The sessions of a fleet as Dask data frames, fetched by the workers of a cluster: `pip install 'podero_async[dask]'`.

```python
import dask
from podero_async.dask import read_outcomes, read_sessions

sessions = read_sessions(vehicles, from_date, to_date, partitions=16)
outcomes = read_outcomes(vehicles, from_date, to_date, partitions=16)
energy, failed = dask.compute(
    sessions.groupby("vehicle_id").energy_charged_kwh.sum(), outcomes[outcomes.error.notnull()]
)
```

One process is nearly always enough: `podero_async.guide.operations` says when it is not.

**Fetches.** Each computation fetches the vehicles; a call of the functions below sends nothing. If both frames were made
with the same arguments, one `dask.compute`, `dask.persist` or `client.compute([sessions, outcomes])` fetches each vehicle
once. Persist the frames or write them to Parquet if you compute more than once. A partition is a share of the vehicles,
and is in memory as a whole.

**Sessions** have the columns and types of `podero_async.frames.to_pandas`; only the columns that are used are made.

**Outcomes** have a row for each vehicle: the five columns of the vehicle, `completeness`, `reason` (of an unproven list or
of a failure), `error` (the name of its class, null if the vehicle was read), `total`, `sessions`, `rejected`, `requests`
and `retries`. A failure of one vehicle is only a row; an error that would fail all, such as refused credentials, fails
the computation.

**Credentials** are never part of the graph, which a scheduler keeps and shows. Each worker reads the variables of
`PoderoClient.from_env` in its own environment. Its tasks share a token in memory or, if the variable
`PODERO_TOKEN_STORE` names a file on the worker, in a `FileTokenStore`. The vehicles are part of the graph.

**Rate.** Each task sends its part of `requests_per_second`: an equal one for each thread of the cluster, or for each partition
if there are fewer. The tasks count the threads every second, and a worker that joins sends nothing for its first three
seconds, so the sum stays within the rate. The part of a worker that dies goes to the others. Dask's own schedulers
(`scheduler="threads"`) do not tell how many tasks run, so there each partition has its part. The 64 requests that a client may
have in flight are divided among the threads of a worker.

**A worker that dies** loses its partitions, which others fetch again; no session is lost or doubled.

Import direction: `_frames` > `_read` > `_place`.
"""

try:
    import dask.dataframe  # noqa: F401
except ImportError:
    raise ImportError("podero_async.dask needs the extra: pip install 'podero_async[dask]'") from None

from podero_async.dask._frames import read_outcomes, read_sessions

__all__ = ["read_outcomes", "read_sessions"]

for _name in __all__:
    globals()[_name].__module__ = __name__  # so that reprs, tracebacks and pickles name no private module
