"""Effect: finds the sources of handlers, describes them in child processes and keeps their table.

User code is imported in child processes only; the server itself sees descriptions (`HandlerSpec`).
"""
