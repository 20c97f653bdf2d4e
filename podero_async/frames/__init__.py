"""Charging sessions as Arrow, pandas and polars frames, all of one schema; `_bodies` reads columns straight from bytes.

# How do I get a data frame?

Of the sessions or outcomes that a client returned:

```python
outcomes = [outcome async for outcome in fleet]     # or sessions, or outcomes of `client.vehicle_sessions`
frame = to_pandas(outcomes)
frame.groupby(frame.plug_in_time.dt.tz_convert("Europe/Vienna").dt.month).actual_savings_eur.sum()
```

# Columns and types

A frame has one row for each session: `user_id`, `vehicle_id`, `external_user_id`, `manufacturer` and `model` of its
`VehicleRef`, then the fields of the `ChargingSession`. The five columns of the vehicle are null for a session that is given
without an outcome. The last three are also null if you name the vehicles by their ids alone, since only a discovery finds
them. `frame_schema` returns the types, which do not depend on the data:

| values | Arrow | pandas | polars |
|---|---|---|---|
| ids | uuid, or texts with `text_ids` | texts | texts |
| times | timestamp in microseconds, in UTC | `datetime64[us, UTC]` | `Datetime`, in UTC |
| enums | dictionary: the members, then unknown texts | `category` | `Categorical` |
| numbers | double | `float64`, with NaN for null | `Float64` |
| whole numbers | int32 | `int32[pyarrow]`, with `<NA>` for null | `Int32` |
| booleans | bool | `bool[pyarrow]`, with `<NA>` for null | `Boolean` |

Ids are texts in pandas and polars, because neither joins uuids with texts. Spark knows no uuid either: it reads
`spark.createDataFrame(to_arrow(items, text_ids=True))`. Every frame has `__arrow_c_stream__`, so DuckDB, PyArrow and other
libraries read it without a copy.

# Failures

A `VehicleFailure` has no rows. By default its error is raised; if you pass `on_failure`, it is called with each failure,
and the frame has the rows of the other vehicles. Frames hold neither verdicts nor rows that could not be read: look at
`completeness` and `rejected` of the outcomes, or at `fleet.summary`.

The extra `frames` installs pyarrow; install pandas or polars yourself. Import direction: `_frames` > `_batches` >
`_columns`, `_bodies` > `_schema`.
"""

from podero_async.frames._frames import arrow_batches, to_arrow, to_pandas, to_polars
from podero_async.frames._schema import frame_schema

__all__ = ["arrow_batches", "frame_schema", "to_arrow", "to_pandas", "to_polars"]

for _name in __all__:
    globals()[_name].__module__ = __name__  # so that reprs, tracebacks and pickles name no private module
