"""Effect: used by all parts of the coordinator: clock, background tasks, names of stored values."""
