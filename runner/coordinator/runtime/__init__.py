"""Effect: what every part of the coordinator may use: clock, background tasks, names of stored values."""
