"""Effect: the coordinator's clock and background tasks."""
