"""Effect: server-sent events: readers, rings and pages of events."""
