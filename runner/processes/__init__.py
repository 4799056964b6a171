"""Effect: child processes: start, config, restart back-off, logs, orphans, and process 1 of a container."""
