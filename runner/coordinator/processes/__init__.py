"""Effect: the child processes of the coordinator: workers, fronts and the probe."""
