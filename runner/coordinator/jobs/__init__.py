"""Pure: jobs in memory: registry, admission, retry decision, JSON form, usage and statistics."""
