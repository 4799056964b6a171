"""Effect: used by all parts of the coordinator: clock, plan trigger, background tasks, stored values."""
