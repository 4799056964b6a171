"""Effect: replaces the handlers of a running server."""
