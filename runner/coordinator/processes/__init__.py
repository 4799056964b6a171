"""Effect: the coordinator's child processes: workers, fronts and the probe."""
