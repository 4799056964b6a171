"""Pure: the benchmark of the line against two references; `python -m benchmarks` runs it."""
