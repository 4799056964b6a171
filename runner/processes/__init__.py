"""Effect: child processes: start, configuration, logs, orphans, and process 1 of a container."""
