"""Sessions as Arrow, pandas and polars frames, all of one schema."""
