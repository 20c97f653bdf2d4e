"""The tests: a folder for each package, helpers in `_support`, and in `promises` the proofs that need the whole library."""
