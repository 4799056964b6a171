"""Effect: finds the sources of handlers, describes them in child processes and keeps their table."""
