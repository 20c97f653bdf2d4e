"""The benchmarks, one module for each subject: `python -m benchmarks` runs all but `scale`, which has a command of its own."""
